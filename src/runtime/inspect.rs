//! What only the connection shows: topics, tables, and whether they fit a pipeline (`check --connect`).
//!
//! Owns the questions and turns the answers into findings with their place in the file. Promises: it only reads;
//! a statement that would mend something is handed out, and run by `mend` alone; every pipeline is judged, whatever
//! is wrong with another.

use crate::config::plan::{
    ClickHousePlan, ClickHouseSinkPlan, DeadLettersPlan, KafkaPlan, MissingField, PipelinePlan, Plan, SinkPlan,
};
use crate::config::plan::{ColumnPlan, FieldPath};
use crate::error::{Error, Finding, Place, Result, Severity};
use crate::runtime::compile;
use crate::runtime::copartition::{self, Doubt};
use crate::runtime::pipeline::table_name;
use crate::runtime::prepare::Preparing;
use crate::sink::clickhouse::client::Client;
use crate::sink::clickhouse::schema::{DefaultKind, ServerInfo, TableSchema};
use crate::sink::clickhouse::table::{self, Load, Problem, TableReport};
use crate::sink::clickhouse::{create, mapping};
use crate::sink::dead_letter::{self, LetterBuilder};
use crate::source::kafka::{self, KafkaGroup, MemberOptions};
use crate::source::{Group, GroupEvent, TopicInfo};
use std::time::Duration;

/// A statement that mends something, and where it is to be run.
#[derive(Clone, PartialEq, Debug)]
pub struct Fix {
    pub sql: String,
    pub connection: ClickHousePlan,
}

/// What the connections show of all pipelines.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inspection {
    pub findings: Vec<Finding>,
    /// Each statement once, in the order in which they are to be run.
    pub fixes: Vec<Fix>,
}

/// Names in a list are cut here.
const NAMES_SHOWN: usize = 8;
/// How long the client's own complaints are waited for when a question got no answer.
const TROUBLE_WAIT: Duration = Duration::from_millis(500);
const TROUBLES_MAX: usize = 10;

/// Asks Kafka and ClickHouse about every pipeline of the plan, all at the same time.
pub fn inspect(plan: &Plan, tokio: &tokio::runtime::Handle) -> Inspection {
    let mut inspection = Inspection::default();
    let each = std::thread::scope(|scope| {
        let ask = |(place, pipeline)| {
            scope.spawn(move || {
                let beside_ms = intervals_beside(&plan.pipelines, pipeline);
                let mut inspector = Inspector { place, plan: pipeline, beside_ms, tokio, seen: Inspection::default() };
                inspector.inspect();
                inspector.seen
            })
        };
        let threads: Vec<_> = plan.pipelines.iter().enumerate().map(ask).collect();
        threads.into_iter().map(|thread| thread.join().expect("a question never panics")).collect::<Vec<_>>()
    });
    for seen in each {
        inspection.findings.extend(seen.findings);
        for fix in seen.fixes {
            if !inspection
                .fixes
                .iter()
                .any(|known| known.sql == fix.sql && known.connection.urls == fix.connection.urls)
            {
                inspection.fixes.push(fix);
            }
        }
    }
    inspection
}

/// Runs one statement.
pub fn mend(fix: &Fix, tokio: &tokio::runtime::Handle) -> Result<()> {
    let client = Client::new(&fix.connection)?;
    tokio.block_on(client.execute(&fix.sql)).map_err(|failure| failure.into_error("mending"))
}

struct Inspector<'a> {
    place: usize,
    plan: &'a PipelinePlan,
    /// See [`intervals_beside`].
    beside_ms: Vec<u64>,
    tokio: &'a tokio::runtime::Handle,
    seen: Inspection,
}

impl Inspector<'_> {
    fn inspect(&mut self) {
        let partitions = self.kafka();
        let SinkPlan::ClickHouse(sink) = &self.plan.sink;
        let load = load(self.plan, sink, partitions.unwrap_or(1)).beside(&self.beside_ms);
        self.sink(sink, load, partitions.is_some());
        self.dead_letters(load);
    }

    // --- Kafka ---------------------------------------------------------------------------------------------

    /// The topics; answers their partition count where all is well with them.
    fn kafka(&mut self) -> Option<i32> {
        let names: Vec<String> = self.plan.topics.iter().map(|topic| topic.name.clone()).collect();
        let infos = match topics(&self.plan.kafka, &names) {
            Ok(infos) => infos,
            Err(error) => {
                let help = format!("asked at {}", self.plan.kafka.brokers.join(", "));
                let at = self.plan.topics[0].at;
                self.say("source.kafka", at, Severity::Error, "kafka", error.message, Some(help));
                return None;
            }
        };
        let mut all_there = true;
        for (topic, info) in self.plan.topics.iter().zip(&infos) {
            if info.partitions == 0 {
                all_there = false;
                let message = format!("topic `{}` does not exist", topic.name);
                let help = "create it: weir never does".to_owned();
                self.say("source.kafka.topic", topic.at, Severity::Error, "missing_topic", message, Some(help));
            }
        }
        if !all_there {
            return None;
        }
        self.equal_partitions(&infos);
        self.retention();
        self.co_partitioned(infos[0].partitions);
        Some(infos[0].partitions)
    }

    fn equal_partitions(&mut self, infos: &[TopicInfo]) {
        let first = &infos[0];
        for (topic, info) in self.plan.topics.iter().zip(infos) {
            if info.partitions != first.partitions {
                let message = format!(
                    "`{}` has {} partitions and `{}` has {}: a task is the same partition of all topics",
                    first.name, first.partitions, info.name, info.partitions
                );
                let help = "give them the same number (and the same key → the same partition)".to_owned();
                self.say("source.kafka.topics", topic.at, Severity::Error, "unequal_partitions", message, Some(help));
            }
        }
    }

    /// Counts that are equal are not enough for a join: the same key has to be in the same partition.
    fn co_partitioned(&mut self, partitions: i32) {
        let doubts = copartition::look(self.plan, partitions, None).map(|seen| seen.doubts).unwrap_or_default();
        for Doubt { join, code, message, help } in doubts {
            let Some((place, of)) = compile::joins_with_places(self.plan).nth(join) else { continue };
            self.say(&format!("steps[{place}].join.key"), of.at, Severity::Warning, code, message, Some(help));
        }
    }

    /// A restore without the local disk re-reads twice the reach of the steps.
    fn retention(&mut self) {
        let Some(reach_ms) = compile::reach_ms(self.plan) else { return };
        for topic in &self.plan.topics {
            let Ok(Some(retention)) = kafka::retention(&self.plan.kafka, &topic.name) else { continue };
            let Some(kept_ms) = retention.ms else { continue };
            let needed_ms = reach_ms.map(|reach_ms| reach_ms.saturating_mul(2));
            if needed_ms.is_some_and(|needed_ms| kept_ms >= needed_ms) {
                continue;
            }
            let needs = match needed_ms {
                Some(needed_ms) => format!("twice the windows of the steps are {}", duration(needed_ms)),
                None => "a window of this pipeline has no end".to_owned(),
            };
            let name = &topic.name;
            let message = format!(
                "`{name}` keeps its records for {}, and {needs}: with its disk lost, weir could not restore its \
                 whole memory",
                duration(kept_ms)
            );
            let help = match needed_ms {
                Some(needed_ms) => format!("raise `retention.ms` of `{name}` to {needed_ms} or more, or keep the disk"),
                None => format!("set `retention.ms` of `{name}` to -1, or keep the disk"),
            };
            self.say("source.kafka.topic", topic.at, Severity::Warning, "short_retention", message, Some(help));
        }
    }

    // --- ClickHouse ----------------------------------------------------------------------------------------

    fn sink(&mut self, sink: &ClickHouseSinkPlan, load: Load, has_topics: bool) {
        let Some(client) = self.client(&sink.connection, "sink.clickhouse") else { return };
        let database = &sink.connection.database;
        let looked = table::inspect(&client, database, &sink.table, load, mapping::inserted(sink));
        let report = match self.tokio.block_on(looked) {
            Ok(report) => report,
            Err(failure) => return self.unreachable(&sink.connection, "sink.clickhouse", failure.into_error("asking")),
        };
        let preparing =
            Preparing { plan: self.plan, client: &client, tokio: self.tokio, load, describe_by_broker: None };
        match &report.schema {
            None if sink.create_table.is_some() => self.expect_creation(sink, &preparing, has_topics),
            None => self.problems(&sink.connection, "sink.clickhouse.table", sink.table_at, &report.problems),
            Some(schema) => {
                self.problems(&sink.connection, "sink.clickhouse.table", sink.table_at, &report.problems);
                self.columns(sink, schema, &report.server);
                let records = if has_topics { preparing.records().unwrap_or_default() } else { Vec::new() };
                self.fit(sink, schema, &report.server, &records);
                self.evolution(sink, schema, &records);
            }
        }
    }

    /// Shows what a start would create.
    fn expect_creation(&mut self, sink: &ClickHouseSinkPlan, preparing: &Preparing, has_topics: bool) {
        let at = sink.create_table.as_ref().map_or(sink.table_at, |create| create.at);
        let path = "sink.clickhouse.create_table";
        if !has_topics {
            let message =
                format!("table `{}` does not exist, and without its topic nobody knows its columns", sink.table);
            return self.say(path, at, Severity::Error, "no_table", message, None);
        }
        match preparing.create_statement() {
            Ok(statement) => {
                let message = format!("table `{}` does not exist yet; the first start creates it", sink.table);
                let help = format!("{}\n{statement}", "from the newest records of the topic:");
                self.say(path, at, Severity::Note, "creates_table", message, Some(help));
            }
            Err(error) if error.code == "no_sample" => {
                self.say(path, at, Severity::Warning, "no_sample", error.message, None);
            }
            Err(error) => self.say(path, at, Severity::Error, "create_table", error.message, None),
        }
    }

    /// Types that cannot be written, columns that are not there.
    fn columns(&mut self, sink: &ClickHouseSinkPlan, schema: &TableSchema, server: &ServerInfo) {
        let (_, problems) = mapping::map(sink, schema, server, &mut |_| crate::codec::rows::Slot(0));
        for problem in problems {
            let named = |column: &&ColumnPlan| problem.message.contains(&format!("`{}`", column.column));
            let place = sink.columns.iter().find(named).map(|column| (column.column.clone(), column.path.at));
            let (path, at) = match place {
                Some((column, at)) => (format!("sink.clickhouse.columns.{column}"), at),
                None => ("sink.clickhouse.table".to_owned(), sink.table_at),
            };
            self.problems(&sink.connection, &path, at, &[problem]);
        }
    }

    /// Columns that nothing fills, and fields that no column takes.
    fn fit(&mut self, sink: &ClickHouseSinkPlan, schema: &TableSchema, server: &ServerInfo, records: &[Vec<u8>]) {
        let (mapping, _) = mapping::map(sink, schema, server, &mut |_| crate::codec::rows::Slot(0));
        let paths: Vec<&str> = mapping.bindings.iter().map(|binding| binding.path.as_str()).collect();
        let left_out = compile::left_out(self.plan, &paths);
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let fields: Vec<String> = create::infer(&records).into_iter().map(|field| field.path).collect();
        let meets = |path: &str, field: &str| {
            let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
            path == field || inside(path, field) || inside(field, path)
        };
        let is_seen = |path: &str| path.starts_with('_') || fields.iter().any(|field| meets(path, field));
        let (mut never, mut unseen) = (Vec::new(), Vec::new());
        for binding in &mapping.bindings {
            if left_out.contains(&binding.path.as_str()) {
                never.push(binding.name.clone());
            } else if !fields.is_empty() && !is_seen(&binding.path) {
                unseen.push(binding.name.clone());
            }
        }
        let at = sink.table_at;
        let path = "sink.clickhouse.table";
        if !never.is_empty() {
            let message = format!("nothing fills {} of `{}`: the select has no such field", shown(&never), sink.table);
            let has_default =
                |name: &String| schema.column(name).is_some_and(|column| column.default_kind == DefaultKind::Default);
            let strict = sink.missing == MissingField::DeadLetter && !never.iter().all(has_default);
            let (severity, help) = match strict {
                true => (Severity::Error, "with `missing: dead_letter` every row would be a dead letter"),
                false => (Severity::Note, "they take their DEFAULT, null, or the default of their type"),
            };
            self.say(path, at, severity, "unfilled_columns", message, Some(help.to_owned()));
        }
        if !unseen.is_empty() {
            let message =
                format!("none of the {} sampled records fills {} of `{}`", records.len(), shown(&unseen), sink.table);
            let help = "name the field under `columns` if it is called otherwise".to_owned();
            self.say(path, at, Severity::Note, "unfilled_columns", message, Some(help));
        }
        let is_taken = |field: &String| paths.iter().any(|path| meets(path, field));
        let extra: Vec<String> = fields.iter().filter(|field| !is_taken(field)).cloned().collect();
        if !extra.is_empty() && !sink.evolve_add_columns {
            let message = format!("no column of `{}` takes {}: ignored, and counted", sink.table, shown(&extra));
            self.say(path, at, Severity::Note, "extra_fields", message, None);
        }
    }

    /// Shows what a start would add.
    fn evolution(&mut self, sink: &ClickHouseSinkPlan, schema: &TableSchema, records: &[Vec<u8>]) {
        if !sink.evolve_add_columns {
            return;
        }
        let used: Vec<&str> =
            sink.columns.iter().map(|ColumnPlan { path: FieldPath { text, .. }, .. }| text.as_str()).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        if let Some(statement) = create::add_columns_statement(schema, &used, &records) {
            let message = format!("the next start adds columns to `{}`", sink.table);
            self.say("sink.clickhouse.evolve", sink.table_at, Severity::Note, "adds_columns", message, Some(statement));
        }
    }

    // --- dead letters --------------------------------------------------------------------------------------

    fn dead_letters(&mut self, load: Load) {
        match &self.plan.dead_letters {
            DeadLettersPlan::Local { .. } => {}
            DeadLettersPlan::Kafka { topic, at } => match topics(&self.plan.kafka, std::slice::from_ref(topic)) {
                Ok(infos) if infos[0].partitions == 0 => {
                    let message = format!("topic `{topic}` for dead letters does not exist");
                    let help = Some("create it: weir never does".to_owned());
                    self.say("dead_letters.kafka.topic", *at, Severity::Error, "missing_topic", message, help);
                }
                // A broker that does not answer was named already.
                _ => {}
            },
            DeadLettersPlan::ClickHouse { connection, table, at } => self.letter_table(connection, table, *at, load),
        }
    }

    fn letter_table(&mut self, connection: &ClickHousePlan, name: &str, at: Place, load: Load) {
        let path = "dead_letters.clickhouse.table";
        let Some(client) = self.client(connection, path) else { return };
        let load = Load { servers: connection.urls.len(), ..load };
        let looked = table::inspect(&client, &connection.database, name, load, dead_letter::inserted);
        match self.tokio.block_on(looked) {
            Err(failure) => self.unreachable(connection, path, failure.into_error("asking")),
            Ok(TableReport { schema: None, .. }) => {
                let sql = dead_letter::create_statement(&connection.database, name, table::window_needed(load));
                let message = format!("the table `{name}` for dead letters does not exist");
                let problem = Problem { severity: Severity::Error, code: "no_table", message, fix_sql: Some(sql) };
                self.problems(connection, path, at, &[problem]);
            }
            Ok(TableReport { schema: Some(schema), mut problems, .. }) => {
                let SinkPlan::ClickHouse(sink) = &self.plan.sink;
                problems.extend(LetterBuilder::new(&schema, sink.compression).err().unwrap_or_default());
                self.problems(connection, path, at, &problems);
            }
        }
    }

    // --- findings ------------------------------------------------------------------------------------------

    fn client(&mut self, connection: &ClickHousePlan, path: &str) -> Option<Client> {
        match Client::new(connection) {
            Ok(client) => Some(client),
            Err(error) => {
                self.unreachable(connection, path, error);
                None
            }
        }
    }

    fn unreachable(&mut self, connection: &ClickHousePlan, path: &str, error: Error) {
        let help = match error.code.as_str() {
            "network" => Some("check `url`".to_owned()),
            "516" | "192" | "193" | "194" => Some("check `user` and `password`".to_owned()),
            "81" => Some(format!("create the database `{}`, or name another", connection.database)),
            _ => None,
        };
        self.say(path, connection.at, Severity::Error, "clickhouse", error.message, help);
    }

    fn problems(&mut self, connection: &ClickHousePlan, path: &str, at: Place, problems: &[Problem]) {
        for problem in problems {
            let help = problem.fix_sql.as_ref().map(|sql| format!("`weir check --connect --fix` runs: {sql}"));
            self.say(path, at, problem.severity, problem.code, problem.message.clone(), help);
            let fix = |sql: &String| Fix { sql: sql.clone(), connection: connection.clone() };
            self.seen.fixes.extend(problem.fix_sql.as_ref().map(fix));
        }
    }

    fn say(
        &mut self,
        path: &str,
        at: Place,
        severity: Severity,
        code: &'static str,
        message: String,
        help: Option<String>,
    ) {
        let path = format!("pipelines[{}].{path}", self.place);
        self.seen.findings.push(Finding { severity, code, path, place: Some(at), message, help });
    }
}

/// What a pipeline does to its table.
pub fn load(plan: &PipelinePlan, sink: &ClickHouseSinkPlan, partitions: i32) -> Load {
    Load {
        delivery: plan.delivery,
        servers: sink.connection.urls.len(),
        tasks: partitions as u64,
        batch_interval_ms: sink.batch.interval_ms,
    }
}

/// The batch intervals of the other pipelines that write into the table of this one: they fill its window, too. Names
/// alone decide: one server has many addresses.
pub fn intervals_beside(pipelines: &[PipelinePlan], plan: &PipelinePlan) -> Vec<u64> {
    let is_beside = |other: &&PipelinePlan| other.name != plan.name && table_name(other) == table_name(plan);
    let others = pipelines.iter().filter(is_beside);
    let interval_ms = |other: &PipelinePlan| {
        let SinkPlan::ClickHouse(sink) = &other.sink;
        sink.batch.interval_ms
    };
    others.map(interval_ms).collect()
}

/// Asks for topics; where there is no answer, what the client itself complains about is the better sentence.
fn topics(kafka: &KafkaPlan, names: &[String]) -> Result<Vec<TopicInfo>> {
    let mut group = KafkaGroup::open(MemberOptions {
        kafka,
        instance_id: None,
        topics: names,
        queued_bytes_per_partition: 1 << 20,
        with_headers: false,
        describe_by_broker: None,
    })?;
    group.topics().map_err(|error| {
        let mut told = Vec::new();
        // A client that cannot connect complains without an end.
        while let Some(event) = group.poll(TROUBLE_WAIT).filter(|_| told.len() < TROUBLES_MAX) {
            if let GroupEvent::Trouble(trouble) | GroupEvent::Fatal(trouble) = event {
                told.push(trouble);
            }
        }
        // That all are down follows from what is wrong with each.
        let precise = told.iter().position(|trouble| !trouble.message.starts_with("no broker of"));
        match precise.or(told.len().checked_sub(1)) {
            Some(place) => told.swap_remove(place),
            None => error,
        }
    })
}

/// `a`, `b` and 3 more.
fn shown(names: &[String]) -> String {
    let listed: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// As the configuration would say it, in the largest unit that is not finer than needed.
pub fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let exact = UNITS.iter().find(|(unit, _)| ms != 0 && ms % unit == 0);
    match exact {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{}s", ms as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        let texts = [86_400_000, 90_000, 5_400_000, 1_500, 0].map(duration);
        assert_eq!(texts, ["1d", "90s", "90m", "1.5s", "0s"]);
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(shown(&names), "`0`, `1`, `2`, `3`, `4`, `5`, `6`, `7` and 2 more");
    }
}
