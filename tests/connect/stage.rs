//! A pipeline's surroundings: a topic, a database, a folder, and the binary that runs in it.

use crate::support::clickhouse::ClickHouse;
use crate::support::free_port;
use crate::support::kafka::{Kafka, TestRecord};
use crate::support::process::Process;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What every good table ends with.
pub const ENGINE: &str = "ENGINE = MergeTree ORDER BY tuple() SETTINGS non_replicated_deduplication_window = 100000";

pub struct Stage {
    pub name: String,
    pub folder: TempDir,
    pub kafka: &'static Kafka,
    pub clickhouse_url: String,
    pub port: u16,
    /// Below the pipeline's name.
    pub source: String,
    pub sink: String,
    pub rest: String,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.out, self.err))
    }

    /// The findings as "code: message", without the notes that are not asked for here.
    pub fn findings(&self) -> Vec<String> {
        let findings = self.json()["findings"].as_array().cloned().unwrap_or_default();
        let text = |finding: &Value| {
            format!("{}: {}", finding["code"].as_str().unwrap(), finding["message"].as_str().unwrap())
        };
        findings.iter().filter(|finding| finding["code"] != "local_dead_letters").map(text).collect()
    }
}

impl Stage {
    /// Topic, database and pipeline of that name; a topic of two partitions.
    pub fn new(name: &str) -> Stage {
        let stage = Stage::without_topic(name);
        stage.kafka.create_topic(name, 2);
        stage
    }

    pub fn without_topic(name: &str) -> Stage {
        let clickhouse = ClickHouse::shared();
        clickhouse.query(&format!("CREATE DATABASE `{name}`"));
        Stage {
            name: name.to_owned(),
            folder: tempfile::tempdir().unwrap(),
            kafka: Kafka::shared(),
            clickhouse_url: clickhouse.url(),
            port: free_port(),
            source: format!("kafka: {{ topic: {name} }}"),
            sink: "table: t".to_owned(),
            rest: String::new(),
        }
    }

    /// Runs SQL in which `$` stands for the database.
    pub fn sql(&self, sql: &str) -> String {
        ClickHouse::shared().query(&sql.replace('$', &self.name))
    }

    pub fn produce(&self, records: &[&str]) {
        let records: Vec<TestRecord> = records.iter().map(|record| TestRecord::new(*record).partition(0)).collect();
        self.kafka.produce(&self.name, &records);
    }

    pub fn config(&self) -> PathBuf {
        let Stage { name, clickhouse_url, port, source, sink, rest, .. } = self;
        let brokers = self.kafka.brokers();
        let text = format!(
            "version: 1
kafka: {{ brokers: [\"{brokers}\"], librdkafka: {{ session.timeout.ms: 6000 }} }}
clickhouse: {{ url: \"{clickhouse_url}\", database: \"{name}\" }}
state: {{ rocksdb: {{ path: ./data }} }}
http: {{ listen: 127.0.0.1:{port} }}
runtime: {{ workers: 1, memory_limit: 512MiB }}
pipelines:
  - name: {name}
    source: {{ {source} }}
    sink: {{ clickhouse: {{ {sink}, batch: {{ interval: 1s }} }} }}
    {rest}
"
        );
        let path = self.folder.path().join("weir.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        self.config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.env_clear().current_dir(&self.folder).args(args);
        command
    }

    pub fn weir(&self, args: &[&str]) -> Ended {
        let ended = Process::run(&format!("weir {}", args.join(" ")), self.command(args), self.folder.path());
        Ended { code: ended.code, out: ended.out, err: ended.err }
    }

    pub fn check(&self) -> Ended {
        self.weir(&["check", "--connect", "--format", "json"])
    }

    pub fn run_until_end(&self) -> Ended {
        self.weir(&["run", "--until-end"])
    }

    /// What the running weir answers.
    pub fn get(&self, path: &str) -> Value {
        let text = ureq::get(self.url(path)).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub fn metrics(&self) -> String {
        ureq::get(self.url("/metrics")).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// Status and text of `/readyz`; `None` while nobody answers.
    pub fn ready(&self) -> Option<(u16, String)> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let mut answer = config.build().new_agent().get(self.url("/readyz")).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// Sends a POST and waits for its answer for so long only. Whether it was on its way, and not refused.
    pub fn post(&self, path: &str, wait_ms: u64) -> bool {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_millis(wait_ms.max(1))));
        match config.build().new_agent().post(self.url(path)).send("") {
            Ok(_) => true,
            Err(error) => matches!(error, ureq::Error::Timeout(_)),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// `weir run` in the background.
    pub fn start(&self) -> Process {
        Process::start("weir", self.command(&["run"]), &self.folder.path().join("log"))
    }
}
