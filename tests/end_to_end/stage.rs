//! What one test plays on: a topic, a database with a table, a group, and the configuration of each instance.

use crate::support::clickhouse::{ClickHouse, USER};
use crate::support::free_port;
use crate::support::kafka::Kafka;
use crate::support::process::{Ended, Process};
use crate::weir::Weir;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The member that does not answer for so long is out of the group.
pub const SESSION_TIMEOUT_MS: u64 = 6_000;

/// The columns of every table here; what a test adds comes behind.
pub const COLUMNS: &str = "id String, seq UInt64, ts Int64, text String, _partition Int32, _offset Int64";

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
    pub lines: Vec<String>,
    /// Other pipelines of the same file.
    pub neighbours: String,
    /// What stands in `source` besides the topic, such as `time: { … }`.
    pub source: String,
    /// In the place of `topic: <name>`, such as `topics: [a, b]`.
    pub topics: String,
    /// The sink's, in the database of the stage's name.
    pub table: String,
    pub batch: String,
    /// What comes behind the rest of `clickhouse` and of the sink, with a comma before it.
    pub connection: String,
    pub sink: String,
    /// Under `kafka`, such as `security: { … }`.
    pub security: String,
    pub memory_limit: String,
    pub session_timeout_ms: u64,
    /// A file may not be longer, where that is set.
    pub file_bytes_max: Option<u64>,
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
            lines: vec![],
            neighbours: String::new(),
            source: String::new(),
            topics: format!("topic: {name}"),
            table: "t".to_owned(),
            batch: "rows: 2000, interval: 200ms".to_owned(),
            connection: String::new(),
            sink: String::new(),
            security: String::new(),
            memory_limit: "512MiB".to_owned(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            file_bytes_max: None,
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
        let config = self.write_config(instance, port);
        Weir::start(instance, &config, port, &self.log(instance), arguments, self.file_bytes_max)
    }

    /// Runs another command of weir on this instance's configuration, to its end.
    pub fn run(&self, instance: &str, arguments: &[&str]) -> Ended {
        let config = self.write_config(instance, free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments).arg("--config").arg(config);
        Process::run(&format!("weir {}", arguments.join(" ")), command, self.folder.path())
    }

    /// The dead letters of the local store while this instance is stopped, as `export` tells them.
    pub fn letters(&self, instance: &str) -> Vec<serde_json::Value> {
        let ended = self.run(instance, &["dead-letters", "export"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn write_config(&self, instance: &str, port: u16) -> PathBuf {
        let path = self.folder.path().join(format!("{instance}.yaml"));
        std::fs::write(&path, self.config(instance, port)).unwrap();
        path
    }

    fn config(&self, instance: &str, port: u16) -> String {
        let Stage { name, brokers, url, connection, security, memory_limit, session_timeout_ms, .. } = self;
        let (state, pipeline) = (self.state(instance), self.pipeline());
        format!(
            "version: 1
kafka:
  brokers: [\"{brokers}\"]
  librdkafka: {{ session.timeout.ms: {session_timeout_ms}, heartbeat.interval.ms: 500,
    topic.metadata.refresh.interval.ms: 1000 }}
  {security}
clickhouse: {{ url: \"{url}\", database: {name}, user: {USER}{connection} }}
state: {{ rocksdb: {{ path: \"{}\" }} }}
http: {{ listen: \"127.0.0.1:{port}\" }}
runtime: {{ workers: 2, memory_limit: {memory_limit} }}
pipelines:
{pipeline}{}",
            state.display(),
            self.neighbours
        )
    }

    /// The pipeline alone.
    pub fn pipeline(&self) -> String {
        let Stage { name, steps, source, topics, table, batch, sink, .. } = self;
        let more: String = self.lines.iter().map(|line| format!("    {line}\n")).collect();
        format!(
            "  - name: {name}
    source:
      kafka: {{ {topics} }}
      {source}
    steps: {steps}
    sink:
      clickhouse: {{ database: {name}, table: {table}, batch: {{ {batch} }}{sink} }}
{more}"
        )
    }
}
