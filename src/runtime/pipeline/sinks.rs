//! The sink of a pipeline, looked at and connected: its table, and where dead letters go.
//!
//! Promises: what does not fit is told in a sentence, with the statement that mends it where there is one, before
//! anything is read.

use super::target;
use crate::config::plan::{BlockCompression, DeadLettersPlan, PipelinePlan, SinkPlan};
use crate::error::{Error, Result, Severity};
use crate::runtime::compile::{self, MakeBuilder};
use crate::runtime::delivery::{AnySink, PipelineSinks};
use crate::runtime::engine::Process;
use crate::runtime::inspect;
use crate::runtime::letters::LetterBlocks;
use crate::runtime::prepare::Preparing;
use crate::sink::Block;
use crate::sink::clickhouse::client::Client;
use crate::sink::clickhouse::insert::ClickHouseSink;
use crate::sink::clickhouse::mapping;
use crate::sink::clickhouse::schema::{ServerInfo, TableSchema};
use crate::sink::clickhouse::table::{self, Load, TableReport};
use crate::sink::dead_letter::{self, LetterBuilder};
use crate::sink::kafka_letters::{self, KafkaLetters};
use crate::state::letters::Letter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A sink that was looked at and fits.
pub(super) struct ConnectedSink {
    pub sinks: PipelineSinks,
    pub make_builder: MakeBuilder,
    pub letters: Option<LetterSink>,
    /// For how long the table remembers a token at least.
    pub window_ms: i64,
}

pub(super) fn connect_sink(plan: &PipelinePlan, process: &Process, partitions: i32) -> Result<ConnectedSink> {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    let client = Arc::new(Client::new(&sink.connection)?);
    let beside = process.beside_ms.get(&plan.name).map_or(&[][..], Vec::as_slice);
    let load = inspect::load(plan, sink, partitions).beside(beside);
    let database = &sink.connection.database;
    let describe_by_broker = process.options.describe_by_broker;
    let preparing = Preparing { plan, client: &client, tokio: &process.tokio, load, describe_by_broker };
    let (server, schema) = usable(preparing.table()?)?;
    let (mapping, problems) = mapping::map(sink, &schema, &server, &mut |_| crate::codec::rows::Slot(0));
    refuse(&problems)?;
    drop(mapping);
    let rows = ClickHouseSink::new(client.clone(), &server, database, &sink.table, &sink.settings)
        .shared(is_unaskable(plan, process));
    let (letters, letter_sink) = connect_letters(plan, process, load)?;
    let window_ms = table::window_seconds(&server, &schema, load).saturating_mul(1000).min(i64::MAX as u64) as i64;
    let (sink_plan, server_info) = (sink.clone(), server);
    let make_builder: MakeBuilder =
        Arc::new(move |resolve| Box::new(mapping::map(&sink_plan, &schema, &server_info, resolve).0.builder()));
    Ok(ConnectedSink {
        sinks: PipelineSinks {
            rows: Arc::new(rows) as Arc<dyn AnySink>,
            rows_target: target(database, &sink.table),
            letters: letters.as_ref().map(|letters| letters.target().to_owned()).zip(letter_sink),
        },
        make_builder,
        letters,
        window_ms,
    })
}

/// Whether counting the rows of an epoch's records in the table tells nothing: they may be another pipeline's, and what
/// comes out of a join may be of records of earlier epochs.
fn is_unaskable(plan: &PipelinePlan, process: &Process) -> bool {
    process.sharing.contains(&plan.name) || compile::join_sides(plan) > 0
}

/// How dead letters are encoded and who takes them; neither for the local store.
type LettersOut = (Option<LetterSink>, Option<Arc<dyn AnySink>>);

/// The table or topic for dead letters, with the same checks as the sink's.
fn connect_letters(plan: &PipelinePlan, process: &Process, load: Load) -> Result<LettersOut> {
    match &plan.dead_letters {
        DeadLettersPlan::Local { .. } => Ok((None, None)),
        DeadLettersPlan::Kafka { topic, .. } => {
            let taker = KafkaLetters::connect(&plan.kafka, topic, &process.tokio)?;
            let sink = LetterSink::Topic { bytes_max: taker.letter_bytes_max(), target: target("kafka", topic) };
            Ok((Some(sink), Some(Arc::new(taker))))
        }
        DeadLettersPlan::ClickHouse { connection, table, .. } => {
            let client = Arc::new(Client::new(connection)?);
            let load = Load { servers: connection.urls.len(), ..load };
            let looked = table::inspect(&client, &connection.database, table, load, dead_letter::inserted);
            let report = process.tokio.block_on(looked);
            let report = report.map_err(|failure| failure.into_error("looking at the table of dead letters"))?;
            let (server, schema) = usable(report)?;
            let SinkPlan::ClickHouse(sink) = &plan.sink;
            LetterBuilder::new(&schema, sink.compression)
                .map_err(|problems| Error::stop("dead_letters", sentences(&problems)))?;
            let taker = ClickHouseSink::new(client, &server, &connection.database, table, &BTreeMap::new())
                .of_letters(&plan.name)
                .shared(compile::join_sides(plan) > 0);
            let letters = LetterSink::Table {
                schema: Arc::new(schema),
                compression: sink.compression,
                target: target(&connection.database, table),
            };
            Ok((Some(letters), Some(Arc::new(taker))))
        }
    }
}

fn usable(report: TableReport) -> Result<(ServerInfo, TableSchema)> {
    refuse(&report.problems)?;
    let schema = report.schema.ok_or_else(|| Error::stop("no_table", "the table does not exist"))?;
    Ok((report.server, schema))
}

fn refuse(problems: &[table::Problem]) -> Result<()> {
    problems
        .iter()
        .filter(|problem| problem.severity != Severity::Error)
        .for_each(|problem| tracing::warn!("{}", problem.message));
    let errors: Vec<_> = problems.iter().filter(|problem| problem.severity == Severity::Error).cloned().collect();
    match errors.first() {
        None => Ok(()),
        Some(first) => Err(Error::stop(first.code, sentences(&errors))),
    }
}

fn sentences(problems: &[table::Problem]) -> String {
    let sentence = |problem: &table::Problem| match &problem.fix_sql {
        Some(fix) => format!("{}; this mends it: {fix}", problem.message),
        None => problem.message.clone(),
    };
    problems.iter().map(sentence).collect::<Vec<_>>().join("\n")
}

/// Encodes dead letters for where they go.
#[derive(Clone)]
pub(super) enum LetterSink {
    Table { schema: Arc<TableSchema>, compression: BlockCompression, target: String },
    Topic { bytes_max: usize, target: String },
}

impl LetterBlocks for LetterSink {
    fn target(&self) -> &str {
        match self {
            LetterSink::Table { target, .. } | LetterSink::Topic { target, .. } => target,
        }
    }

    fn takes(&self, letter: &Letter) -> bool {
        match self {
            LetterSink::Table { .. } => true,
            LetterSink::Topic { bytes_max, .. } => kafka_letters::message_bytes(letter) <= *bytes_max,
        }
    }

    fn encode(&mut self, letters: &[Letter]) -> Block {
        match self {
            LetterSink::Table { schema, compression, .. } => table_block(schema, *compression, letters),
            LetterSink::Topic { .. } => kafka_letters::block_of(letters),
        }
    }
}

fn table_block(schema: &TableSchema, compression: BlockCompression, letters: &[Letter]) -> Block {
    let builder = LetterBuilder::new(schema, compression);
    let mut builder = builder.unwrap_or_else(|_| unreachable!("the table was tried at start"));
    for letter in letters {
        let headers = crate::codec::record::encode_headers(&letter.headers);
        builder.push(&dead_letter::Letter {
            time_ms: letter.noted_ms,
            pipeline: &letter.pipeline,
            step: &letter.step,
            reason: &letter.reason,
            message: &letter.message,
            topic: &letter.topic,
            partition: letter.partition as i32,
            offset: letter.offset,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &headers,
        });
    }
    builder.seal().expect("there is at least one letter")
}
