//! What one test plays on: a topic, a database with a table, a group, and the configuration of each instance.

use crate::support::clickhouse::{ClickHouse, USER};
use crate::support::free_port;
use crate::support::kafka::Kafka;
use crate::weir::Weir;
use std::path::PathBuf;
use tempfile::TempDir;

/// The member that does not answer for so long is out of the group.
pub const SESSION_TIMEOUT_MS: u64 = 6_000;

/// The columns of every table here; what a test adds comes behind.
pub const COLUMNS: &str = "id String, seq UInt64, ts Int64, _partition Int32, _offset Int64";

pub struct Stage {
    /// Of the topic, the database, the pipeline; the group is `weir-<name>`.
    pub name: String,
    pub folder: TempDir,
    pub brokers: String,
    /// Of ClickHouse, or of a proxy in front of it.
    pub url: String,
    /// The pipeline's `steps`, as YAML.
    pub steps: String,
    /// More lines of the pipeline, such as `on_offset_reset: halt`.
    pub pipeline: Vec<String>,
    /// What stands in `source` besides the topic, such as `time: { … }`.
    pub source: String,
    pub batch: String,
    pub environment: Vec<(String, String)>,
}

impl Stage {
    /// Makes the topic and the table.
    pub fn new(name: &str, kafka: &Kafka, clickhouse: &ClickHouse, partitions: i32) -> Stage {
        let stage = Stage::bare(name, kafka, clickhouse);
        kafka.create_topic(name, partitions);
        clickhouse.query(&format!("CREATE DATABASE {name}"));
        stage.create_table(clickhouse, COLUMNS);
        stage
    }

    /// Makes nothing.
    pub fn bare(name: &str, kafka: &Kafka, clickhouse: &ClickHouse) -> Stage {
        let mut folder = tempfile::Builder::new().prefix(&format!("weir-{name}-")).tempdir().unwrap();
        folder.disable_cleanup(std::env::var_os("WEIR_KEEP").is_some());
        Stage {
            name: name.to_owned(),
            folder,
            brokers: kafka.brokers(),
            url: clickhouse.url(),
            steps: "[ { dedup: { key: id, window: 24h } } ]".to_owned(),
            pipeline: vec![],
            source: String::new(),
            batch: "rows: 2000, interval: 200ms".to_owned(),
            environment: vec![],
        }
    }

    pub fn create_table(&self, clickhouse: &ClickHouse, columns: &str) {
        clickhouse.query(&format!(
            "CREATE TABLE {}.t ({columns}) ENGINE = MergeTree ORDER BY id \
             SETTINGS non_replicated_deduplication_window = 1000000",
            self.name
        ));
    }

    pub fn table(&self) -> String {
        format!("{}.t", self.name)
    }

    pub fn group(&self) -> String {
        format!("weir-{}", self.name)
    }

    /// The state directory of an instance; the pipeline's part is a folder of its name in it.
    pub fn state(&self, instance: &str) -> PathBuf {
        self.folder.path().join(format!("state-{instance}"))
    }

    pub fn log(&self, instance: &str) -> PathBuf {
        self.folder.path().join(format!("{instance}.log"))
    }

    /// Starts `weir run` as this instance.
    pub fn weir(&self, instance: &str) -> Weir {
        self.weir_with(instance, &[])
    }

    /// Starts `weir run` with further arguments.
    pub fn weir_with(&self, instance: &str, arguments: &[&str]) -> Weir {
        let port = free_port();
        let config = self.folder.path().join(format!("{instance}.yaml"));
        std::fs::write(&config, self.config(instance, port)).unwrap();
        Weir::start(instance, &config, port, &self.log(instance), arguments, &self.environment)
    }

    fn config(&self, instance: &str, port: u16) -> String {
        let Stage { name, brokers, url, steps, source, batch, .. } = self;
        let state = self.state(instance);
        let more: String = self.pipeline.iter().map(|line| format!("    {line}\n")).collect();
        format!(
            "version: 1
kafka:
  brokers: [\"{brokers}\"]
  librdkafka:
    session.timeout.ms: {SESSION_TIMEOUT_MS}
    heartbeat.interval.ms: 500
    topic.metadata.refresh.interval.ms: 1000
clickhouse: {{ url: \"{url}\", database: {name}, user: {USER} }}
state: {{ rocksdb: {{ path: \"{}\" }} }}
http: {{ listen: \"127.0.0.1:{port}\" }}
runtime: {{ workers: 2, memory_limit: 512MiB }}
pipelines:
  - name: {name}
    source:
      kafka: {{ topic: {name} }}
      {source}
    steps: {steps}
    sink:
      clickhouse: {{ table: t, batch: {{ {batch} }} }}
{more}",
            state.display()
        )
    }
}
