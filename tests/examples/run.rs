//! Runs one example: its topics in an in-process Kafka, its tables in the embedded ClickHouse, its pipeline to the
//! end, and then the question.

use crate::support::clickhouse::ClickHouse;
use crate::support::{PATIENCE, wait_for};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};
use weir::clock::SystemClock;
use weir::config;
use weir::config::plan::DeadLettersPlan;
use weir::demo::broker::Broker;
use weir::metrics::StepKind;
use weir::runtime::engine::{Engine, RunOptions};

const PARTITIONS: i32 = 2;

/// Key and value; for the source's topic and of now, if nothing else is said.
pub struct Record {
    topic: Option<&'static str>,
    key: String,
    /// `None`: a tombstone.
    value: Option<String>,
    timestamp_ms: Option<i64>,
}

impl Record {
    pub fn of(key: impl Into<String>, value: impl Into<String>) -> Record {
        Record { topic: None, key: key.into(), value: Some(value.into()), timestamp_ms: None }
    }

    pub fn tombstone(key: impl Into<String>, timestamp_ms: i64) -> Record {
        Record { topic: None, key: key.into(), value: None, timestamp_ms: Some(timestamp_ms) }
    }

    /// For another topic than the source's.
    pub fn to(self, topic: &'static str) -> Record {
        Record { topic: Some(topic), ..self }
    }
}

pub struct Example {
    /// The file's path in the repository.
    pub config: &'static str,
    pub records: Vec<Record>,
    /// The query whose answer is compared.
    pub result: &'static str,
}

pub struct Outcome {
    pub rows: String,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// The values in the topic of dead letters, if the example has one, in order.
    pub letters_topic: Vec<String>,
}

impl Example {
    pub fn run(self) -> Outcome {
        let clickhouse = ClickHouse::shared();
        tables().values().for_each(|statement| drop(clickhouse.query(statement)));
        let broker = Broker::start(&[]).unwrap();
        let state = tempfile::tempdir().unwrap();
        let variables = |name: &str| match name {
            "KAFKA_BROKERS" => Some(broker.address().to_owned()),
            "CLICKHOUSE_URL" => Some(clickhouse.url()),
            "WEIR_STATE_PATH" => Some(state.path().display().to_string()),
            _ => None,
        };
        let (plan, findings) = config::parse(&read(self.config), &variables);
        let plan = plan.unwrap_or_else(|| panic!("{}: {findings:#?}", self.config));
        let [pipeline] = plan.pipelines.as_slice() else { panic!("{} has one pipeline", self.config) };
        pipeline.topics.iter().for_each(|topic| broker.create_topic(&topic.name, PARTITIONS).unwrap());
        if let DeadLettersPlan::Kafka { topic, .. } = &pipeline.dead_letters {
            broker.create_topic(topic, PARTITIONS).unwrap();
        }
        produce(broker.address(), &pipeline.topics[0].name, &self.records);
        // The in-process cluster answers some questions only when a broker is asked by its number.
        let options = RunOptions { until_end: true, describe_by_broker: Some(1), ..RunOptions::default() };
        let engine = Engine::start(&plan, options, Arc::new(SystemClock)).unwrap();
        wait_for(&format!("the end of {}", self.config), PATIENCE, || engine.has_ended().then_some(()));
        let outcome = engine.join().remove(0);
        outcome.result.unwrap_or_else(|error| panic!("{}: {error}", self.config));
        let stats = outcome.stats;
        assert_eq!(stats.records_read(), self.records.len() as u64, "{}", self.config);
        let letters_topic = match &pipeline.dead_letters {
            DeadLettersPlan::Kafka { topic, .. } => Some(values_in(broker.address(), topic)),
            _ => None,
        };
        let dedups = stats.steps.iter().filter(|step| step.kind == StepKind::Dedup);
        Outcome {
            rows: clickhouse.query(self.result),
            duplicates: dedups.map(|step| step.dropped.load(Relaxed)).sum(),
            dead_letters: stats.dead_letters().values().sum(),
            letters_topic: letters_topic.unwrap_or_default(),
        }
    }
}

/// In this order, and each key into one partition.
fn produce(brokers: &str, source: &str, records: &[Record]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    for record in records {
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        let mut sent = BaseRecord::to(record.topic.unwrap_or(source)).key(&record.key).timestamp(timestamp_ms);
        sent.payload = record.value.as_ref();
        producer.send(sent).unwrap_or_else(|(error, _)| panic!("{error}"));
    }
    producer.flush(PATIENCE).unwrap();
}

/// Everything that the topic holds now.
fn values_in(brokers: &str, topic: &str) -> Vec<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "reader");
    let consumer: BaseConsumer = config.create().unwrap();
    let (mut places, mut waiting) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        let (first, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        places.add_partition_offset(topic, partition, Offset::Offset(first)).unwrap();
        waiting += end - first;
    }
    consumer.assign(&places).unwrap();
    let mut values: Vec<String> = (0..waiting)
        .map(|_| consumer.poll(PATIENCE).expect("the topic holds it").unwrap())
        .map(|message| String::from_utf8(message.payload().unwrap().to_vec()).unwrap())
        .collect();
    values.sort();
    values
}

/// The example configurations: path in the repository, and text.
pub fn configs() -> Vec<(String, String)> {
    let mut paths = vec!["config/weir.yaml".to_owned()];
    paths.extend(files("config/pipelines", "yaml"));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The statements that make the tables of the examples, by table.
pub fn tables() -> BTreeMap<String, String> {
    let table = |path: &String| Path::new(path).file_stem().unwrap().to_str().unwrap().to_owned();
    files("config/clickhouse", "sql").into_iter().map(|path| (table(&path), read(&path))).collect()
}

fn files(folder: &str, extension: &str) -> Vec<String> {
    let found = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut paths: Vec<String> = found
        .map(|name| format!("{folder}/{}", name.to_str().unwrap()))
        .filter(|path| Path::new(path).extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
