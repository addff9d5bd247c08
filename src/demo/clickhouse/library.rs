//! Where the parts that a test or a demo starts lie on this machine.

use crate::error::{Error, Result};
use std::env;
use std::path::PathBuf;

/// The folder of the engine's version, as `scripts/parts.sh` lays it out.
const ENGINE_FOLDER: &str = "chdb-26.5.3";

/// The folder of fetched parts: `WEIR_PARTS`, else `weir/parts` under the user's cache folder.
pub fn parts_path() -> PathBuf {
    if let Some(path) = env::var_os("WEIR_PARTS").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("weir").join("parts")
}

/// The engine's library; an error when it is not there.
pub fn library_path() -> Result<PathBuf> {
    let path = parts_path().join(ENGINE_FOLDER).join("libchdb.so");
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::stop(
        "parts",
        format!("the embedded ClickHouse is not at {}: run `make parts` once, it fetches it", path.display()),
    ))
}
