//! Whether a table can take part in exactly once, and what would mend it.
//!
//! Owns the judgement of engines and deduplication windows (`exactly-once.md`, Rules for the insert). Promises:
//! every problem names the table and, where a statement mends it, that statement.

use super::client::Client;
use super::errors::Failure;
use super::schema::{self, ServerInfo, TableSchema, ViewTarget};
use crate::config::plan::DeliveryGuarantee;
use crate::error::Severity;
use serde::Deserialize;

/// One thing that is wrong, or worth saying, about a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// A short stable name, such as `no_window`.
    pub code: &'static str,
    pub message: String,
    /// The statement that mends it; `check --connect --fix` runs it.
    pub fix_sql: Option<String>,
}

impl Problem {
    pub fn error(code: &'static str, message: String) -> Problem {
        Problem { severity: Severity::Error, code, message, fix_sql: None }
    }

    pub fn warning(code: &'static str, message: String) -> Problem {
        Problem { severity: Severity::Warning, code, message, fix_sql: None }
    }

    fn with_fix(self, fix_sql: String) -> Problem {
        Problem { fix_sql: Some(fix_sql), ..self }
    }
}

/// What the pipeline will do to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    pub delivery: DeliveryGuarantee,
    /// How many urls there are.
    pub servers: usize,
    /// How many tasks insert.
    pub tasks: u64,
    pub batch_interval_ms: u64,
}

/// All that is known about a sink's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableReport {
    pub server: ServerInfo,
    /// `None`: there is no such table, or it is not visible; then `problems` says so.
    pub schema: Option<TableSchema>,
    pub problems: Vec<Problem>,
}

/// The count of blocks (or parts) that a window must hold at least.
const WINDOW_COUNT_MIN: u64 = 10_000;
/// A week: longer than any outage that goes unnoticed.
const WINDOW_SECONDS_MIN: u64 = 604_800;

/// Reads the server and the table, and judges them. `inserted` names the columns that blocks will have.
pub async fn inspect(
    client: &Client,
    database: &str,
    table: &str,
    load: Load,
    inserted: impl Fn(&ServerInfo, &TableSchema) -> Vec<String>,
) -> Result<TableReport, Failure> {
    let server = schema::read_server(client).await?;
    let Some(mut schema) = schema::read_table(client, database, table).await? else {
        let problems = vec![missing(client, database, table)];
        return Ok(TableReport { server, schema: None, problems });
    };
    schema::read_constants(client, &mut schema).await?;
    let views = schema::read_view_targets(client, database, table).await?;
    let mut problems = judge(&server, &schema, &views, load);
    problems.extend(missing_grant(client, &schema, &inserted(&server, &schema)).await?);
    Ok(TableReport { server, schema: Some(schema), problems })
}

fn missing(client: &Client, database: &str, table: &str) -> Problem {
    let name = schema::full_name(database, table);
    Problem::error(
        "no_table",
        format!(
            "table {name} does not exist at {}, or user `{}` may not see it: create it, grant SELECT and INSERT on \
             it, or set `create_table`",
            client.url(),
            client.user()
        ),
    )
}

/// Whether the user may insert these columns; who may insert into the whole table may. Servers that do not know the
/// question are asked nothing.
async fn missing_grant(client: &Client, schema: &TableSchema, columns: &[String]) -> Result<Option<Problem>, Failure> {
    #[derive(Deserialize)]
    struct Granted {
        result: u8,
    }
    if columns.is_empty() {
        // That is said by who looked for some.
        return Ok(None);
    }
    let name = schema.full_name();
    let listed: Vec<String> = columns.iter().map(|column| super::types::identifier(column)).collect();
    match client.rows::<Granted>(&format!("CHECK GRANT INSERT({}) ON {name}", listed.join(", "))).await {
        Ok(answer) if answer.first().is_some_and(|granted| granted.result == 0) => {
            let user = client.user();
            let message = format!("user `{user}` may not insert into {name}");
            let fix = format!("GRANT INSERT ON {name} TO {}", super::types::identifier(user));
            Ok(Some(Problem::error("no_grant", message).with_fix(fix)))
        }
        Err(failure) if matches!(failure.code.as_str(), "network" | "timeout") => Err(failure),
        _ => Ok(None),
    }
}

/// Judges what was read. Pure, so that engines which cannot run here are judged in tests too.
pub fn judge(server: &ServerInfo, schema: &TableSchema, views: &[ViewTarget], load: Load) -> Vec<Problem> {
    if load.delivery == DeliveryGuarantee::AtLeastOnce {
        return at_least_once(schema);
    }
    let mut problems = judge_table(server, schema, load, None);
    for view in views {
        match &view.target {
            Some(target) => problems.extend(judge_table(server, target, load, Some(&view.view))),
            None => problems.push(Problem::error(
                "hidden_view_target",
                format!(
                    "the target of materialized view {}, which {} feeds, is not visible, so whether it drops \
                     repeated blocks is not known: grant SELECT on it, or set `delivery: at_least_once`",
                    view.view,
                    schema.full_name()
                ),
            )),
        }
    }
    problems
}

fn at_least_once(schema: &TableSchema) -> Vec<Problem> {
    match schema.engine.as_str() {
        "View" | "MaterializedView" | "LiveView" | "WindowView" => vec![not_a_table(schema)],
        _ => Vec::new(),
    }
}

fn not_a_table(schema: &TableSchema) -> Problem {
    Problem::error("not_a_table", format!("{} is a {}: insert into its table", schema.full_name(), schema.engine))
}

fn judge_table(server: &ServerInfo, schema: &TableSchema, load: Load, view: Option<&str>) -> Vec<Problem> {
    let name = schema.full_name();
    let whose = match view {
        Some(view) => format!("{name} (the target of materialized view {view})"),
        None => name.clone(),
    };
    if !schema.engine.ends_with("MergeTree") {
        return vec![unfit_engine(schema, &whose)];
    }
    let windows = Windows::of(server, schema);
    let count_needed = window_needed(load);
    let mut problems = Vec::new();
    if is_replicated(&schema.engine) {
        problems.extend(judge_replicated(&windows, &name, &whose, count_needed));
    } else {
        if load.servers > 1 && view.is_none() {
            problems.push(Problem::error(
                "plain_table_on_several_servers",
                format!(
                    "{whose} is a plain {}, and there are {} urls: servers with plain tables share no window, so a \
                     block repeated at another one comes twice; use one url, a Replicated or Shared engine, or \
                     `delivery: at_least_once`",
                    schema.engine, load.servers
                ),
            ));
        }
        problems.extend(judge_plain(&windows, &name, &whose, count_needed));
    }
    problems
}

fn unfit_engine(schema: &TableSchema, whose: &str) -> Problem {
    let why = match schema.engine.as_str() {
        "View" | "MaterializedView" | "LiveView" | "WindowView" => return not_a_table(schema),
        "Buffer" => "it loses the tokens of blocks: insert into the table behind it",
        "Distributed" => "it hands blocks on without their tokens: insert into the table behind it",
        "Null" => "it stores nothing, so nobody can tell whether a block has arrived",
        _ => "it cannot drop a repeated block",
    };
    let message = format!(
        "{whose} has engine {}, and exactly once needs a MergeTree: {why}; or set `delivery: at_least_once`",
        schema.engine
    );
    Problem::error("unfit_engine", message)
}

fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

/// How many parts a table must remember: two hours of them.
pub fn window_needed(load: Load) -> u64 {
    parts_per_hour(load).saturating_mul(2).max(WINDOW_COUNT_MIN)
}

/// Parts that an hour brings: one per task, interval, and partition of the table that a block touches (one, as far
/// as can be known before).
fn parts_per_hour(load: Load) -> u64 {
    load.tasks.saturating_mul(3_600_000) / load.batch_interval_ms.max(1)
}

/// The deduplication windows of a table: its own settings, else the server's defaults.
struct Windows {
    plain: u64,
    count: u64,
    seconds: u64,
}

impl Windows {
    fn of(server: &ServerInfo, schema: &TableSchema) -> Windows {
        let defaults = if is_replicated(&schema.engine) && !server.replicated_windows.is_empty() {
            &server.replicated_windows
        } else {
            &server.plain_windows
        };
        let window = |name: &str| {
            let own = setting_of(&schema.engine_full, name);
            own.or_else(|| defaults.get(name).copied()).unwrap_or(0)
        };
        Windows {
            plain: window("non_replicated_deduplication_window"),
            count: window("replicated_deduplication_window"),
            seconds: window("replicated_deduplication_window_seconds"),
        }
    }
}

/// A number among the settings of `engine_full`.
fn setting_of(engine_full: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine_full.rsplit_once(" SETTINGS ")?;
    settings.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        if key.trim() == name { value.trim().trim_matches('\'').parse().ok() } else { None }
    })
}

fn judge_plain(windows: &Windows, name: &str, whose: &str, count_needed: u64) -> Option<Problem> {
    if windows.plain >= count_needed {
        return None;
    }
    let is = match windows.plain {
        0 => "does not drop repeated blocks (non_replicated_deduplication_window = 0)".to_owned(),
        window => format!(
            "remembers the last {window} parts (non_replicated_deduplication_window), and this pipeline needs \
             {count_needed}: less than that may pass before a block is repeated"
        ),
    };
    let message = format!("{whose} {is}; mend it, or set `delivery: at_least_once`");
    let fix = format!("ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = {count_needed}");
    Some(Problem::error("no_window", message).with_fix(fix))
}

fn judge_replicated(windows: &Windows, name: &str, whose: &str, count_needed: u64) -> Option<Problem> {
    if windows.count >= count_needed && windows.seconds >= WINDOW_SECONDS_MIN {
        return None;
    }
    let message = format!(
        "{whose} remembers the last {} parts for {} s (replicated_deduplication_window, _seconds), and this pipeline \
         needs {count_needed} for {WINDOW_SECONDS_MIN} s: a block repeated after an outage would come twice; mend \
         it, or set `delivery: at_least_once`",
        windows.count, windows.seconds
    );
    let fix = format!(
        "ALTER TABLE {name} MODIFY SETTING replicated_deduplication_window = {}, \
         replicated_deduplication_window_seconds = {}",
        windows.count.max(count_needed),
        windows.seconds.max(WINDOW_SECONDS_MIN)
    );
    Some(Problem::error("short_window", message).with_fix(fix))
}

/// For how long an announced block may go unacknowledged before its token may have left the table's window: its
/// seconds where it has them, and the time in which the pipeline at its fullest would fill its count.
pub fn window_seconds(server: &ServerInfo, schema: &TableSchema, load: Load) -> u64 {
    let windows = Windows::of(server, schema);
    let replicated = is_replicated(&schema.engine);
    let count = if replicated { windows.count } else { windows.plain };
    let by_count = count.saturating_mul(3600) / parts_per_hour(load).max(1);
    if replicated { by_count.min(windows.seconds) } else { by_count }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(engine: &str, settings: &str) -> TableSchema {
        TableSchema {
            database: "d".to_owned(),
            table: "t".to_owned(),
            engine: engine.to_owned(),
            engine_full: format!("{engine} ORDER BY a SETTINGS index_granularity = 8192{settings}"),
            partition_key: String::new(),
            columns: Vec::new(),
        }
    }

    fn server() -> ServerInfo {
        let windows = [
            ("non_replicated_deduplication_window", 0),
            ("replicated_deduplication_window", 10_000),
            ("replicated_deduplication_window_seconds", 3_600),
        ];
        let windows: std::collections::BTreeMap<_, _> =
            windows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        ServerInfo { plain_windows: windows.clone(), replicated_windows: windows, ..ServerInfo::default() }
    }

    const LOAD: Load =
        Load { delivery: DeliveryGuarantee::ExactlyOnce, servers: 1, tasks: 4, batch_interval_ms: 10_000 };

    fn judged(engine: &str, settings: &str, load: Load) -> Vec<Problem> {
        judge(&server(), &table(engine, settings), &[], load)
    }

    #[test]
    fn a_plain_table_without_a_window_is_refused_with_the_statement_that_mends_it() {
        let problems = judged("MergeTree", "", LOAD);
        assert_eq!(
            problems[0].fix_sql.as_deref(),
            Some("ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_deduplication_window = 10000")
        );
        assert_eq!(judged("ReplacingMergeTree", ", non_replicated_deduplication_window = 10000", LOAD), []);
        assert_eq!(judged("MergeTree", ", non_replicated_deduplication_window = 9999", LOAD).len(), 1);
    }

    #[test]
    fn a_window_must_hold_two_hours_of_parts() {
        let busy = Load { tasks: 64, batch_interval_ms: 1_000, ..LOAD };
        let problems = judged("MergeTree", ", non_replicated_deduplication_window = 10000", busy);
        assert!(problems[0].fix_sql.as_ref().unwrap().ends_with("= 460800"), "{problems:?}");
    }

    #[test]
    fn a_replicated_table_must_remember_for_a_week() {
        let problems = judged("ReplicatedMergeTree", "", LOAD);
        assert_eq!(
            problems[0].fix_sql.as_deref(),
            Some(
                "ALTER TABLE `d`.`t` MODIFY SETTING replicated_deduplication_window = 10000, \
                 replicated_deduplication_window_seconds = 604800"
            )
        );
        let week = ", replicated_deduplication_window_seconds = 604800";
        assert_eq!(judged("SharedReplacingMergeTree", week, Load { servers: 3, ..LOAD }), []);
    }

    #[test]
    fn engines_that_lose_tokens_are_refused() {
        for engine in ["Buffer", "Distributed", "Null", "Memory", "MaterializedView", "Kafka"] {
            let problems = judged(engine, "", LOAD);
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].severity, Severity::Error, "{engine}");
        }
        let at_least_once = Load { delivery: DeliveryGuarantee::AtLeastOnce, servers: 3, ..LOAD };
        assert_eq!(judged("Distributed", "", at_least_once), []);
        assert_eq!(judged("MergeTree", "", at_least_once), []);
    }

    #[test]
    fn plain_tables_share_no_window_between_servers() {
        let two = Load { servers: 2, ..LOAD };
        let problems = judged("MergeTree", ", non_replicated_deduplication_window = 10000", two);
        assert_eq!(problems[0].code, "plain_table_on_several_servers");
    }

    #[test]
    fn the_targets_of_views_are_judged_like_the_table() {
        let good = table("MergeTree", ", non_replicated_deduplication_window = 10000");
        let target = TableSchema { table: "tgt".to_owned(), ..table("SummingMergeTree", "") };
        let views = [
            ViewTarget { view: "d.mv".to_owned(), target: Some(target) },
            ViewTarget { view: "d.hidden".to_owned(), target: None },
        ];
        let problems = judge(&server(), &good, &views, LOAD);
        assert_eq!(
            problems.iter().map(|problem| problem.code).collect::<Vec<_>>(),
            ["no_window", "hidden_view_target"]
        );
        assert!(problems[0].message.contains("d.mv") && problems[0].message.contains("`d`.`tgt`"));
    }
}
