//! `weir outbox`: blocks that are stored and not acknowledged, and the way out for one that the table can never
//! take.
//!
//! Promises: `list` and `export` only look; `discard` asks the weir that runs the pipeline, and takes the directory
//! for itself where none does; it says what it did in the log.

use super::ask::{self, Heard, Verb, escaped};
use super::dead_letters::small;
use super::{Format, Global, check, print};
use crate::config::plan::{PipelinePlan, Plan};
use crate::demo::clickhouse::decompress;
use crate::runtime::chain::percent_escaped;
use crate::runtime::outbox::{self, Waiting};
use crate::runtime::pipeline::rows_target;
use crate::sink::clickhouse::frames::is_framed;
use crate::state::rocks::RocksStore;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Look at blocks that are not acknowledged, and discard one that can never be
#[derive(clap::Args)]
pub struct Outbox {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// One line for each block, in the order of delivery
    List {
        /// Only of this pipeline
        #[arg(long, value_name = "NAME")]
        pipeline: Option<String>,
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Write a block to a file, in ClickHouse's Native format
    Export {
        /// The block, as `list` names it
        token: String,
        /// The file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Take a block out for good: its rows will not be in the table
    Discard {
        /// The block, as `list` names it
        token: String,
        /// Also when it may be in the table already
        #[arg(long)]
        force: bool,
    },
}

impl Outbox {
    pub fn run(self, global: &Global) -> ExitCode {
        let (report, plan) = check::judged(global);
        let Some(plan) = plan.filter(|_| !report.has_errors()) else {
            eprint!("{}", report.text(super::colour(&std::io::stderr())));
            return ExitCode::FAILURE;
        };
        let done = match self.command {
            Command::List { pipeline, format } => list(&plan, pipeline.as_deref(), format),
            Command::Export { token, to } => export(&plan, &token, &to),
            Command::Discard { token, force } => discard(&plan, &token, force),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

fn list(plan: &Plan, name: Option<&str>, format: Format) -> Result<(), String> {
    let picked = name.map(|name| ask::pick(plan, Some(name))).transpose()?;
    let mut all = Vec::new();
    for pipeline in plan.pipelines.iter().filter(|pipeline| picked.is_none_or(|picked| picked.name == pipeline.name)) {
        all.extend(blocks(plan, pipeline)?);
    }
    match format {
        Format::Json => print(&format!("{:#}\n", json!({ "blocks": all }))),
        Format::Text => print(&table(&all)),
    }
    Ok(())
}

fn blocks(plan: &Plan, pipeline: &PipelinePlan) -> Result<Vec<Value>, String> {
    let path = format!("/api/v1/pipelines/{}/outbox", escaped(&pipeline.name));
    if let Heard::Done(body, _) = ask::ask(&plan.http, Verb::Get, &path)? {
        tell(body["trouble"].as_str());
        return Ok(body["blocks"].as_array().cloned().unwrap_or_default());
    }
    let Some(store) = look(plan, pipeline)? else { return Ok(Vec::new()) };
    let (blocks, trouble) = outbox::unacknowledged(pipeline, &store).map_err(|error| error.message)?;
    tell(trouble.map(|error| error.message).as_deref());
    Ok(blocks.iter().map(|block| json!(block)).collect())
}

fn tell(trouble: Option<&str>) {
    if let Some(trouble) = trouble {
        eprintln!("warning: Kafka cannot be asked what was announced, so every block counts as unclear: {trouble}");
    }
}

fn export(plan: &Plan, token: &str, to: &std::path::Path) -> Result<(), String> {
    let pipeline = of_token(plan, token)?;
    let store = look(plan, pipeline)?.ok_or_else(|| no_block(token))?;
    let block = find(pipeline, &store, token)?;
    let body = outbox::body(&store, &block).map_err(|error| error.message)?;
    let native = if is_framed(&body) { decompress(&body)? } else { body };
    std::fs::write(to, &native).map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    eprintln!("{} rows, {} bytes written to {} (FORMAT Native)", block.rows, native.len(), to.display());
    Ok(())
}

fn discard(plan: &Plan, token: &str, force: bool) -> Result<(), String> {
    let pipeline = of_token(plan, token)?;
    let forced = if force { "&force=true" } else { "" };
    let call = format!("/api/v1/pipelines/{}/outbox/discard?token={}{forced}", escaped(&pipeline.name), escaped(token));
    if let Heard::Done(done, _) = ask::ask(&plan.http, Verb::Post(""), &call)? {
        eprintln!("discarded: {} rows; the pipeline goes on behind them", done["rows"]);
        return Ok(());
    }
    look(plan, pipeline)?.ok_or_else(|| no_block(token))?;
    let path = plan.state.rocksdb_path.join(&pipeline.name);
    let store = RocksStore::open(&path, &small()).map_err(|error| match error.code.as_str() {
        "locked" => {
            format!("pipeline `{}` runs in a weir that does not answer at {}: {error}", pipeline.name, plan.http.listen)
        }
        _ => error.message,
    })?;
    let block = find(pipeline, &store, token)?;
    outbox::discard(&store, &block, force, &rows_target(pipeline)).map_err(|error| error.message)?;
    tracing::warn!(
        pipeline = pipeline.name,
        token,
        rows = block.rows,
        bytes = block.bytes,
        standing = block.standing.name(),
        "block discarded: its rows are not in the table, or nobody knows"
    );
    eprintln!("discarded: {} rows. It holds when this directory is the next to run the partition.", block.rows);
    Ok(())
}

fn find(pipeline: &PipelinePlan, store: &RocksStore, token: &str) -> Result<Waiting, String> {
    let (blocks, trouble) = outbox::waiting(pipeline, store).map_err(|error| error.message)?;
    tell(trouble.map(|error| error.message).as_deref());
    blocks.into_iter().find(|block| block.token == token).ok_or_else(|| no_block(token))
}

fn no_block(token: &str) -> String {
    format!("there is no block {token} in the outbox; `weir outbox list` shows them")
}

/// The pipeline that a token names.
fn of_token<'p>(plan: &'p Plan, token: &str) -> Result<&'p PipelinePlan, String> {
    let is_named = |pipeline: &&PipelinePlan| token.starts_with(&format!("weir1/{}/", percent_escaped(&pipeline.name)));
    plan.pipelines.iter().find(is_named).ok_or_else(|| {
        format!(
            "`{token}` names no block of a pipeline of this file: a token begins with weir1/<pipeline>/<partition>/"
        )
    })
}

/// The directory of a pipeline, for a look; `None` where it has never run.
fn look(plan: &Plan, pipeline: &PipelinePlan) -> Result<Option<RocksStore>, String> {
    let path = plan.state.rocksdb_path.join(&pipeline.name);
    match RocksStore::open_read_only(&path, &small()) {
        Ok(store) => Ok(Some(store)),
        Err(error) if error.code == "absent" => Ok(None),
        Err(error) => Err(error.message),
    }
}

fn table(blocks: &[Value]) -> String {
    let mut lines = vec![format!(
        "{:>9} {:>8} {:>10} {:>12} {:<8} {}\n",
        "partition", "epoch", "rows", "bytes", "standing", "token"
    )];
    for block in blocks {
        let text = |name: &str| block[name].as_str().map_or(block[name].to_string(), str::to_owned);
        lines.push(format!(
            "{:>9} {:>8} {:>10} {:>12} {:<8} {}\n",
            text("partition"),
            text("epoch"),
            text("rows"),
            text("bytes"),
            text("standing"),
            text("token")
        ));
    }
    lines.concat()
}
