//! What the connections tell about one pipeline, for `explain`: partitions, rate, the statement of the INSERT.
//!
//! Owns nothing. Promises: it only reads; what is not known stays unknown, with the reason.

use crate::config::plan::{PipelinePlan, SinkPlan};
use crate::error::{Error, Result};
use crate::runtime::inspect;
use crate::sink::ColumnHeader;
use crate::sink::clickhouse::client::Client;
use crate::sink::clickhouse::mapping;
use crate::sink::clickhouse::schema::full_name;
use crate::sink::clickhouse::table::{self, TableReport};
use crate::source::kafka;

/// Of each topic: enough to see a rate.
const SAMPLE_RECORDS: usize = 1_000;

/// Of the pipeline's topics together.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicFacts {
    pub partitions: i32,
    /// Records that the topics hold now.
    pub records: i64,
    /// Records per second of each topic, by the Kafka timestamps of its newest records; `None`: too few to tell.
    pub rates: Vec<Option<f64>>,
}

impl TopicFacts {
    /// Of these topics together, as far as it is known.
    pub fn rate_of(&self, topics: &[usize]) -> Option<f64> {
        topics.iter().filter_map(|topic| self.rates[*topic]).reduce(|sum, rate| sum + rate)
    }

    /// Of all topics.
    pub fn rate(&self) -> Option<f64> {
        self.rates.iter().flatten().copied().reduce(|sum, rate| sum + rate)
    }
}

/// The table's answer.
#[derive(Clone, PartialEq, Debug)]
pub struct InsertFacts {
    pub server_version: String,
    pub statement: String,
    pub settings: Vec<(String, String)>,
    pub engine: String,
    pub partition_key: String,
}

/// Asks Kafka.
pub fn topics(plan: &PipelinePlan) -> Result<TopicFacts> {
    let mut facts = TopicFacts { partitions: 0, records: 0, rates: Vec::new() };
    for topic in &plan.topics {
        let sample = kafka::sample(&plan.kafka, &topic.name, None, SAMPLE_RECORDS)?;
        if sample.ranges.is_empty() {
            return Err(Error::stop("missing_topic", format!("topic `{}` does not exist", topic.name)));
        }
        facts.partitions = sample.ranges.len() as i32;
        facts.records += sample.ranges.iter().map(|(first, end)| end - first).sum::<i64>();
        facts.rates.push(sample.records_per_second());
    }
    Ok(facts)
}

/// Asks ClickHouse.
pub fn insert(plan: &PipelinePlan, partitions: i32, tokio: &tokio::runtime::Handle) -> Result<InsertFacts> {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    let client = Client::new(&sink.connection)?;
    let load = inspect::load(plan, sink, partitions);
    let looked = table::inspect(&client, &sink.connection.database, &sink.table, load, mapping::inserted(sink));
    let report = tokio.block_on(looked).map_err(|failure| failure.into_error("looking at the table"))?;
    let TableReport { server, schema: Some(schema), .. } = report else {
        let message = format!("table {} does not exist yet", full_name(&sink.connection.database, &sink.table));
        return Err(Error::stop("no_table", message));
    };
    let (mapping, problems) = mapping::map(sink, &schema, &server, &mut |_| crate::codec::rows::Slot(0));
    if let Some(problem) = problems.iter().find(|problem| problem.severity == crate::error::Severity::Error) {
        return Err(Error::stop(problem.code, problem.message.clone()));
    }
    let header: Vec<ColumnHeader> = mapping.builder().header().to_vec();
    Ok(InsertFacts {
        server_version: server.version.clone(),
        statement: mapping::insert_statement(&schema.full_name(), &header),
        settings: mapping::insert_settings(&server, &sink.settings),
        engine: schema.engine,
        partition_key: schema.partition_key,
    })
}
