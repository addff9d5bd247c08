//! `weir explain`: the plan in words: what is read, kept and written, what is promised on each edge, and what a
//! crash there does.
//!
//! Promises: nothing is changed anywhere; without `--connect` nobody is asked, and what only a connection knows is
//! given as a formula.

mod steps;

use super::{Global, check, print};
use crate::codec::time::Moment;
use crate::config::plan::{
    ClickHouseSinkPlan, DeadLettersPlan, DeliveryGuarantee, Matching, PipelinePlan, Plan, SinkPlan, StartAt, StepPlan,
};
use crate::runtime::compile::{self, Race};
use crate::runtime::facts::{self, InsertFacts, TopicFacts};
use crate::runtime::inspect::duration;
use crate::runtime::memory::{self, SharedMemory};
use crate::sink::clickhouse::mapping::PINNED;
use crate::sink::clickhouse::schema::full_name;
use std::fmt::Write;
use std::process::ExitCode;

/// Say in words what each pipeline does, keeps and promises
#[derive(clap::Args)]
pub struct Explain {
    /// Also ask Kafka and ClickHouse: partitions, rates, the exact INSERT
    #[arg(long)]
    connect: bool,

    /// Only this pipeline; may be given several times
    #[arg(long, value_name = "NAME")]
    pipeline: Vec<String>,
}

/// More new parts a second than this, and merges may fall behind.
const PARTS_PER_SECOND_MAX: f64 = 10.0;
/// Assumed where nobody was asked.
const PARTITIONS_ASSUMED: i32 = 8;

impl Explain {
    pub fn run(self, global: &Global) -> ExitCode {
        let (report, plan) = check::judged(global);
        let Some(mut plan) = plan.filter(|_| !report.has_errors()) else {
            eprint!("{}", report.text(super::colour(&std::io::stderr())));
            return ExitCode::FAILURE;
        };
        if let Err(unknown) = super::run::pick(&mut plan, &self.pipeline) {
            eprintln!("error: {unknown}");
            return ExitCode::FAILURE;
        }
        let mut all_answered = true;
        let texts: Vec<String> = plan
            .pipelines
            .iter()
            .map(|pipeline| {
                let seen = if self.connect { Seen::ask(pipeline) } else { Seen::default() };
                all_answered &= seen.troubles.is_empty();
                seen.troubles.iter().for_each(|trouble| eprintln!("{}: {trouble}", pipeline.name));
                Words { plan: &plan, pipeline, seen: &seen, text: String::new() }.all()
            })
            .collect();
        print(&texts.join("\n"));
        if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What the connections said.
#[derive(Default)]
struct Seen {
    topics: Option<TopicFacts>,
    insert: Option<InsertFacts>,
    troubles: Vec<String>,
}

impl Seen {
    fn ask(pipeline: &PipelinePlan) -> Seen {
        let mut seen = Seen::default();
        let tokio = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
            Ok(tokio) => tokio,
            Err(error) => return Seen { troubles: vec![error.to_string()], ..seen },
        };
        match facts::topics(pipeline) {
            Ok(topics) => seen.topics = Some(topics),
            Err(error) => seen.troubles.push(error.message),
        }
        let partitions = seen.topics.as_ref().map_or(1, |topics| topics.partitions);
        match facts::insert(pipeline, partitions, tokio.handle()) {
            Ok(insert) => seen.insert = Some(insert),
            Err(error) => seen.troubles.push(error.message),
        }
        seen
    }
}

/// One pipeline in words, section by section.
struct Words<'a> {
    plan: &'a Plan,
    pipeline: &'a PipelinePlan,
    seen: &'a Seen,
    text: String,
}

impl Words<'_> {
    fn all(mut self) -> String {
        let _ = writeln!(self.text, "pipeline {}", self.pipeline.name);
        self.reads();
        self.steps();
        self.writes();
        self.edges();
        self.memory();
        self.not_promised();
        self.text
    }

    fn head(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n  {name}");
    }

    fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.text, "    {}", text.as_ref());
    }

    fn sink(&self) -> &ClickHouseSinkPlan {
        let SinkPlan::ClickHouse(sink) = &self.pipeline.sink;
        sink
    }

    fn partitions(&self) -> i32 {
        self.seen.topics.as_ref().map_or(PARTITIONS_ASSUMED, |topics| topics.partitions)
    }

    fn reads(&mut self) {
        self.head("reads");
        let kafka = &self.pipeline.kafka;
        for topic in &self.pipeline.topics {
            let start = match topic.start {
                StartAt::Earliest => "its first record".to_owned(),
                StartAt::Latest => "its end".to_owned(),
                StartAt::TimeMs(ms) => Moment::from_nanos(i128::from(ms) * 1_000_000)
                    .map_or(format!("{ms} ms since 1970"), |moment| moment.to_rfc3339()),
            };
            self.line(format!("topic `{}`; a group without an offset begins at {start}", topic.name));
        }
        self.line(format!("from {} as group `{}`", kafka.brokers.join(", "), kafka.group));
        if let Some(topics) = &self.seen.topics {
            let rate = match topics.rate() {
                Some(rate) => format!("about {rate:.0} records/s"),
                None => "too few records to tell a rate".to_owned(),
            };
            self.line(format!("{} partitions, {} records there now, {rate}", topics.partitions, topics.records));
        }
        let several = if self.pipeline.topics.len() > 1 { " of all topics" } else { "" };
        self.line(format!(
            "a task is one partition number{several}; its state, its order and its delivery are its own"
        ));
        self.line(steps::time_text(&self.pipeline.source.time));
    }

    fn writes(&mut self) {
        self.head("writes");
        let sink = self.sink();
        let name = full_name(&sink.connection.database, &sink.table);
        let batch = sink.batch;
        let urls = sink.connection.urls.join(", ");
        let compression = format!("{:?}", sink.compression).to_lowercase();
        let user_settings = sink.settings.clone();
        self.line(format!("table {name} at {urls}"));
        self.line(format!(
            "a block of each task at {} rows, {} or {}, whichever comes first; {compression} on the way",
            batch.rows,
            bytes(batch.bytes),
            duration(batch.interval_ms as i64)
        ));
        self.parts_per_second(batch.interval_ms);
        match &self.seen.insert {
            Some(insert) => {
                self.line(format!("{} (ClickHouse {})", insert.engine, insert.server_version));
                self.line(&insert.statement);
                let settings: Vec<String> =
                    insert.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.line(format!("SETTINGS {}", settings.join(", ")));
            }
            None => {
                self.line(format!("INSERT INTO {name} (every column that can be written) FORMAT Native"));
                let user = user_settings.iter().map(|(name, value)| format!("{name}={value}"));
                let pinned = PINNED.iter().map(|(name, value)| format!("{name}={value}"));
                let settings: Vec<String> = user.chain(pinned).chain(["wait_end_of_query=1".to_owned()]).collect();
                self.line(format!("SETTINGS {} (those that the server knows)", settings.join(", ")));
            }
        }
        self.line(
            "insert_deduplication_token=weir1/<pipeline>/<partition>/<incarnation>/<epoch>/<output>/<database>/<table>",
        );
    }

    fn parts_per_second(&mut self, interval_ms: u64) {
        let partitions = self.partitions();
        let rate = f64::from(partitions) * 1000.0 / interval_ms.max(1) as f64;
        let assumed = if self.seen.topics.is_none() { " (assumed; --connect asks)" } else { "" };
        let per_partition = match self.seen.insert.as_ref().map(|insert| insert.partition_key.as_str()) {
            Some("") => "",
            _ => ", times the partitions of the table that a block touches",
        };
        self.line(format!("{partitions} tasks{assumed} make {rate:.1} parts a second at most{per_partition}"));
        if rate > PARTS_PER_SECOND_MAX {
            self.line(format!(
                "WARNING: a table can hardly merge more than {PARTS_PER_SECOND_MAX} parts a second: raise \
                 `batch.interval` to {} or more",
                duration((f64::from(partitions) * 1000.0 / PARTS_PER_SECOND_MAX).ceil() as i64)
            ));
        }
    }

    fn edges(&mut self) {
        self.head("promises");
        let exactly = self.pipeline.delivery == DeliveryGuarantee::ExactlyOnce;
        self.line("topic → steps: each record once, in the order of its partition.");
        self.line("  A crash here: the open epoch is read again from the stored positions; nothing of it had left.");
        self.line("steps → disk: state, positions and the sealed block are one synced write.");
        self.line("  A crash before it: as above. After it: the block is there, and goes out.");
        self.line("disk → Kafka: the block is announced in the committed offsets' metadata before its first insert.");
        self.line("  A crash after it: whoever comes next, with or without this disk, sends exactly these records.");
        if exactly {
            self.line("block → table: exactly once: the same bytes under the same token until acknowledged.");
            self.line("  A crash or a lost answer here: it is sent again; the table knows the token and drops it.");
        } else {
            self.line("block → table: at least once (`delivery: at_least_once`): sent until acknowledged.");
            self.line("  A crash or a lost answer here: the block may be in the table twice.");
        }
        self.line("table → offsets: an offset is committed only when its rows are acknowledged.");
        self.line("  A crash here: the block is sent once more under its token, and the offset follows.");
        let letters = match &self.pipeline.dead_letters {
            DeadLettersPlan::Local { bytes_max } => format!(
                "record → dead letters: in the same synced write, on this disk (at most {}; full = the pipeline stops)",
                bytes(*bytes_max)
            ),
            DeadLettersPlan::Kafka { topic, .. } => {
                format!("record → dead letters: topic `{topic}`, at least once; its headers tell copies apart")
            }
            DeadLettersPlan::ClickHouse { table, connection, .. } => format!(
                "record → dead letters: table {}, a block like any other, under a token of its own",
                full_name(&connection.database, table)
            ),
        };
        self.line(letters);
    }

    fn memory(&mut self) {
        self.head("memory");
        let limit = self.plan.runtime.memory_limit_bytes;
        let shared = SharedMemory::of(limit);
        self.line(format!(
            "{} for the process: block cache {}, write buffers {}, the rest for tasks",
            bytes(limit),
            bytes(shared.block_cache_bytes),
            bytes(shared.write_buffer_bytes)
        ));
        let batch = self.sink().batch;
        let divided = memory::divide(
            limit,
            self.plan.pipelines.len() as u64,
            self.partitions() as u64,
            self.pipeline.topics.len() as u64,
            compile::join_sides(self.pipeline),
            batch.bytes,
            self.plan.runtime.workers as u64,
        );
        match divided {
            Ok(memory) => {
                self.line(memory.to_string());
                if memory.task.block_bytes < batch.bytes {
                    self.line(format!(
                        "a block is sealed at {} at the latest, before `batch.bytes`: that is its share of the memory",
                        bytes(memory.task.block_bytes)
                    ));
                }
            }
            Err(error) => self.line(format!("REFUSED: {error}")),
        }
    }

    fn not_promised(&mut self) {
        self.head("does not promise");
        let pipeline = self.pipeline;
        if pipeline.delivery == DeliveryGuarantee::ExactlyOnce {
            self.line("- a block repeated after its token has left the table's window, or after TRUNCATE or DROP");
            self.line("  PARTITION in between (`on_unclear` says what happens to one that is too old)");
            self.line("- rows that the engine acknowledged and then lost with its power, without fsync");
        }
        let joins: Vec<Matching> = compile::joins_of(pipeline).map(|join| join.matching).collect();
        let is_dedup = |step: &StepPlan| matches!(step, StepPlan::Dedup(_));
        let right_steps = compile::joins_of(pipeline).flat_map(|join| &join.steps);
        if pipeline.steps.iter().chain(right_steps).any(is_dedup) {
            self.line("- duplicates that come through different partitions: the producer has to key by the dedup key");
        }
        if !joins.is_empty() {
            self.line("- pairs that come through different partitions: all topics need equal keys in equal partitions");
        }
        let is_table = |matching: &Matching| matches!(matching, Matching::Table { .. });
        if !joins.iter().all(is_table) {
            self.line("- pairs of rows that come later than `lateness` allows: they can be lost, never doubled");
        }
        if joins.iter().any(is_table) {
            self.line(
                "- the version of a table that was valid for a row later than `lateness`: it meets one still kept",
            );
        }
        if compile::reach_ms(pipeline).is_some() {
            self.line("- a memory restored without this disk beyond the topic's retention, or of late rows");
        }
        for race in compile::races(pipeline) {
            self.line(match race {
                Race::Topics(step) => format!(
                    "- the same verdicts of step {step} after a lost disk: which of two topics' records comes first is a \
                     race"
                ),
                Race::Joined(step) => format!(
                    "- the same verdicts of step {step} after a lost disk: what a join without `exact` has found is a race"
                ),
            });
        }
        match &pipeline.dead_letters {
            DeadLettersPlan::Local { .. } => self.line("- dead letters when this disk is lost: use a topic or a table"),
            DeadLettersPlan::Kafka { .. } => self.line("- dead letters once only: a crash can bring one again"),
            DeadLettersPlan::ClickHouse { .. } => {}
        }
        self.line("- offsets set by hand to exactly where they were: the block under way then comes twice");
    }
}

fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

/// `86.4 million`.
fn counted(count: f64) -> String {
    match count {
        count if count >= 1e9 => format!("{:.1} billion", count / 1e9),
        count if count >= 1e6 => format!("{:.1} million", count / 1e6),
        count => format!("{count:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_said_in_words() {
        assert_eq!([999.4, 86_400_000.0, 2.5e9].map(counted), ["999", "86.4 million", "2.5 billion"]);
    }
}
