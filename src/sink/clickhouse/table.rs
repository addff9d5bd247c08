//! Whether a table can take part in exactly once, and what would mend it.
//!
//! Owns the judgement of engines and deduplication windows (`exactly-once.md`, Rules for the insert). Promises:
//! every problem names the table and, where a statement mends it, that statement.

use super::client::Client;
use super::errors::Failure;
use super::schema::{self, ServerInfo, TableColumn, TableSchema, ViewTarget};
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
    /// How many tasks insert, those of other pipelines that write into the table included.
    pub tasks: u64,
    pub batch_interval_ms: u64,
}

impl Load {
    /// The same where other pipelines write into the table, too, at these intervals. They are taken to have as many
    /// tasks as this one: nobody asks for their topics.
    pub fn beside(self, intervals_ms: &[u64]) -> Load {
        let tasks_of =
            |interval_ms: &u64| self.tasks.saturating_mul(self.batch_interval_ms).div_ceil((*interval_ms).max(1));
        Load { tasks: self.tasks + intervals_ms.iter().map(tasks_of).sum::<u64>(), ..self }
    }
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

/// Whether the server is too old for tokens, by its version as well as by its list of settings: who answers in its place
/// may keep that list short.
fn is_without_tokens(server: &ServerInfo) -> bool {
    let mut numbers = server.version.split('.').map(|number| number.parse::<u32>());
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return false,
    };
    version < (22, 2) && !server.settings.contains("insert_deduplication_token")
}

/// Judges what was read. Pure, so that engines which cannot run here are judged in tests too.
pub fn judge(server: &ServerInfo, schema: &TableSchema, views: &[ViewTarget], load: Load) -> Vec<Problem> {
    if load.delivery == DeliveryGuarantee::AtLeastOnce {
        return at_least_once(schema);
    }
    let mut problems = Vec::new();
    if is_without_tokens(server) {
        problems.push(Problem::error(
            "no_tokens",
            format!(
                "ClickHouse {} knows no insert_deduplication_token, by which a repeated block is dropped: take a \
                 newer one (22.2 or later), or set `delivery: at_least_once`",
                server.version
            ),
        ));
    }
    problems.extend(judge_table(server, schema, load, None));
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
    let needed = Needed { count: count_needed(load, schema), partitions: partitions_touched(schema) };
    let mut problems = Vec::new();
    if is_replicated(&schema.engine) {
        problems.extend(judge_replicated(&windows, &name, &whose, needed));
    } else {
        if load.servers > 1 {
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
        problems.extend(judge_plain(&windows, &name, &whose, needed));
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

/// What a table must remember.
#[derive(Clone, Copy)]
struct Needed {
    count: u64,
    /// Of the table, in one insert: each takes a place in the window.
    partitions: u64,
}

impl Needed {
    fn shown(self) -> String {
        match self.partitions {
            1 => format!("this pipeline needs {}", self.count),
            many => {
                format!("this pipeline, whose blocks touch about {many} partitions of it each, needs {}", self.count)
            }
        }
    }
}

/// How many parts a table without partitions must remember: two hours of them.
pub fn window_needed(load: Load) -> u64 {
    window_for(load, 1)
}

fn count_needed(load: Load, schema: &TableSchema) -> u64 {
    window_for(load, partitions_touched(schema))
}

fn window_for(load: Load, partitions: u64) -> u64 {
    parts_per_hour(load, partitions).saturating_mul(2).max(WINDOW_COUNT_MIN)
}

/// Parts that an hour brings: one per task, interval, and partition of the table that a block touches.
fn parts_per_hour(load: Load, partitions: u64) -> u64 {
    load.tasks.saturating_mul(3_600_000).saturating_mul(partitions) / load.batch_interval_ms.max(1)
}

/// Rows of one block lie in this partition of time and, those that are late, in the one before.
const PARTITIONS_BY_TIME: u64 = 2;
/// What else a table is divided by (a country, a tenant) cannot be known before rows have come.
const PARTITIONS_UNKNOWN: u64 = 8;
/// More in one insert is what ClickHouse itself refuses by default.
const PARTITIONS_MAX: u64 = 100;

/// How many partitions of the table a block touches: by its key, and not fewer than the last hour's inserts did.
fn partitions_touched(schema: &TableSchema) -> u64 {
    let key = schema.partition_key.trim();
    if key.is_empty() || key == "tuple()" {
        return 1;
    }
    let parts = match key.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => split_outside_parentheses(inner),
        None => vec![key],
    };
    let by_key = parts.into_iter().map(|part| partitions_of(part.trim(), schema)).fold(1, u64::saturating_mul);
    by_key.min(PARTITIONS_MAX).max(schema.partitions_written)
}

/// By how much one part of a partition key divides a block.
fn partitions_of(part: &str, schema: &TableSchema) -> u64 {
    let is_date = |column: &TableColumn| column.type_text.contains("Date");
    let function = part.split_once('(').map_or("", |(function, _)| function);
    let of_time = ["toYYYYMM", "toDate", "toMonday", "toStartOf", "toYear", "toISOYear", "toQuarter", "toLastDay"];
    let is_of_time = of_time.iter().any(|begins| function.starts_with(begins))
        || function.eq_ignore_ascii_case("date_trunc")
        || function.eq_ignore_ascii_case("dateTrunc");
    let column = part.trim_matches('`');
    if is_of_time || schema.column(column).is_some_and(is_date) {
        return PARTITIONS_BY_TIME;
    }
    let divisor = match part.rsplit_once('%') {
        Some((_, divisor)) => divisor.trim().parse(),
        None => {
            part.strip_prefix("modulo(").unwrap_or("").trim_end_matches(')').rsplit(", ").next().unwrap_or("").parse()
        }
    };
    divisor.unwrap_or(PARTITIONS_UNKNOWN)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
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

fn judge_plain(windows: &Windows, name: &str, whose: &str, needed: Needed) -> Option<Problem> {
    if windows.plain >= needed.count {
        return None;
    }
    let is = match windows.plain {
        0 => "does not drop repeated blocks (non_replicated_deduplication_window = 0)".to_owned(),
        window => format!(
            "remembers the last {window} parts (non_replicated_deduplication_window), and {}: less than that may pass \
             before a block is repeated",
            needed.shown()
        ),
    };
    let message = format!("{whose} {is}; mend it, or set `delivery: at_least_once`");
    let fix = format!("ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = {}", needed.count);
    Some(Problem::error("no_window", message).with_fix(fix))
}

fn judge_replicated(windows: &Windows, name: &str, whose: &str, needed: Needed) -> Option<Problem> {
    if windows.count >= needed.count && windows.seconds >= WINDOW_SECONDS_MIN {
        return None;
    }
    let message = format!(
        "{whose} remembers the last {} parts for {} s (replicated_deduplication_window, _seconds), and {} for \
         {WINDOW_SECONDS_MIN} s: a block repeated after an outage would come twice; mend it, or set \
         `delivery: at_least_once`",
        windows.count,
        windows.seconds,
        needed.shown()
    );
    let fix = format!(
        "ALTER TABLE {name} MODIFY SETTING replicated_deduplication_window = {}, \
         replicated_deduplication_window_seconds = {}",
        windows.count.max(needed.count),
        windows.seconds.max(WINDOW_SECONDS_MIN)
    );
    Some(Problem::error("short_window", message).with_fix(fix))
}

/// For how long an announced block may go unacknowledged before its token may have left the table's window: its
/// seconds where it has them, and the time in which the pipeline at its fullest would fill its count. For ever with
/// `delivery: at_least_once`, which counts on no window: what is unclear is sent again.
pub fn window_seconds(server: &ServerInfo, schema: &TableSchema, load: Load) -> u64 {
    if load.delivery == DeliveryGuarantee::AtLeastOnce {
        return u64::MAX;
    }
    let windows = Windows::of(server, schema);
    let replicated = is_replicated(&schema.engine);
    let count = if replicated { windows.count } else { windows.plain };
    let by_count = count.saturating_mul(3600) / parts_per_hour(load, partitions_touched(schema)).max(1);
    if replicated { by_count.min(windows.seconds) } else { by_count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn table(engine: &str, settings: &str) -> TableSchema {
        TableSchema {
            database: "d".to_owned(),
            table: "t".to_owned(),
            engine: engine.to_owned(),
            engine_full: format!("{engine} ORDER BY a SETTINGS index_granularity = 8192{settings}"),
            partition_key: String::new(),
            partitions_written: 0,
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
        let settings = ["insert_deduplication_token".to_owned()].into();
        ServerInfo { plain_windows: windows.clone(), replicated_windows: windows, settings, ..ServerInfo::default() }
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
        let shared = busy.beside(&[1_000, 4_000]);
        assert_eq!(window_needed(shared), 460_800 * 9 / 4);
        assert_eq!(window_needed(LOAD.beside(&[])), window_needed(LOAD));
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
        let week = ", replicated_deduplication_window_seconds = 604800";
        let target = table("MergeTree", ", non_replicated_deduplication_window = 10000");
        let views = [ViewTarget { view: "d.mv".to_owned(), target: Some(target) }];
        let problems = judge(&server(), &table("ReplicatedMergeTree", week), &views, two);
        assert_eq!(problems[0].code, "plain_table_on_several_servers");
        assert!(problems[0].message.contains("d.mv"), "{problems:?}");
    }

    #[test]
    fn each_partition_that_a_block_touches_takes_a_place_in_the_window() {
        let by = |key: &str, partitions_written: u64| {
            let column = |name: &str, of: &str| TableColumn {
                name: name.to_owned(),
                type_text: of.to_owned(),
                default_kind: schema::DefaultKind::None,
                default_expression: String::new(),
                constant: None,
            };
            TableSchema {
                partition_key: key.to_owned(),
                partitions_written,
                columns: vec![column("day", "Date"), column("country", "String")],
                ..table("MergeTree", ", non_replicated_deduplication_window = 10000")
            }
        };
        let touched = |key: &str| partitions_touched(&by(key, 0));
        assert_eq!((touched(""), touched("tuple()")), (1, 1));
        assert_eq!(
            (touched("toYYYYMM(ts)"), touched("day"), touched("toStartOfInterval(ts, toIntervalHour(6))")),
            (2, 2, 2)
        );
        assert_eq!((touched("id % 4"), touched("modulo(id, 16)"), touched("country")), (4, 16, 8));
        assert_eq!((touched("(toYYYYMM(ts), id % 4)"), touched("(country, id % 1000)")), (8, 100));
        assert_eq!((partitions_touched(&by("toYYYYMM(ts)", 31)), partitions_touched(&by("", 31))), (31, 1));

        let busy = Load { tasks: 8, batch_interval_ms: 2_000, ..LOAD };
        let problems = judge(&server(), &by("country", 20), &[], busy);
        assert!(problems[0].fix_sql.as_ref().unwrap().ends_with("= 576000"), "{problems:?}");
        assert!(problems[0].message.contains("about 20 partitions"), "{problems:?}");
        let week = window_seconds(&server(), &by("", 0), LOAD);
        assert_eq!(window_seconds(&server(), &by("country", 20), LOAD), week / 20);
    }

    #[test]
    fn a_server_without_tokens_is_refused() {
        let old = ServerInfo { settings: BTreeSet::new(), version: "21.8".to_owned(), ..server() };
        let good = table("MergeTree", ", non_replicated_deduplication_window = 10000");
        assert_eq!(judge(&old, &good, &[], LOAD)[0].code, "no_tokens");
        let silent = ServerInfo { version: "26.8.1.1".to_owned(), ..old.clone() };
        assert_eq!(judge(&silent, &good, &[], LOAD), []);
        let at_least_once = Load { delivery: DeliveryGuarantee::AtLeastOnce, ..LOAD };
        assert_eq!(judge(&old, &good, &[], at_least_once), []);
    }

    #[test]
    fn at_least_once_counts_on_no_window() {
        let at_least_once = Load { delivery: DeliveryGuarantee::AtLeastOnce, ..LOAD };
        for engine in ["MergeTree", "ReplicatedMergeTree", "Memory"] {
            assert_eq!(window_seconds(&server(), &table(engine, ""), at_least_once), u64::MAX, "{engine}");
        }
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
