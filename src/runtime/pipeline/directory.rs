//! The state directory of a pipeline: opened, or set aside when it is damaged, never repaired.

use crate::config::plan::{PipelinePlan, StatePlan};
use crate::error::{Error, Result};
use crate::metrics::PipelineStats;
use crate::runtime::engine::Process;
use crate::state::rocks::RocksStore;
use std::path::{Path, PathBuf};

/// Opens `<path>/<pipeline>`; one that is corrupt is set aside as a whole.
pub(super) fn open_store(
    plan: &PipelinePlan,
    state: &StatePlan,
    process: &Process,
    stats: &PipelineStats,
) -> Result<RocksStore> {
    let path = path_of(plan, state);
    match RocksStore::open(&path, &process.rocks) {
        Err(error) if error.code == "corrupt" && !plan.strict => {
            start_without(&path, plan, process, stats, &error)?;
            RocksStore::open(&path, &process.rocks)
        }
        Err(error) if error.code == "locked" => {
            stats.recovered("locked");
            Err(error)
        }
        opened => opened,
    }
}

pub(super) fn path_of(plan: &PipelinePlan, state: &StatePlan) -> PathBuf {
    state.rocksdb_path.join(&plan.name)
}

/// Makes room for a directory in the place of a corrupt one, and says so.
pub(super) fn start_without(
    path: &Path,
    plan: &PipelinePlan,
    process: &Process,
    stats: &PipelineStats,
    error: &Error,
) -> Result<()> {
    let aside = set_aside(path, process.clock.wall_ms())?;
    stats.recovered("corrupt");
    tracing::error!(pipeline = plan.name, aside = %aside.display(), "{error}; set aside, starting without it");
    Ok(())
}

fn set_aside(path: &Path, wall_ms: i64) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.corrupt-{wall_ms}"));
    std::fs::rename(path, &aside)
        .map_err(|error| Error::stop("unreadable", format!("cannot set {} aside: {error}", path.display())))?;
    Ok(aside)
}
