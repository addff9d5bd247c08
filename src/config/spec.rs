//! What is typed: the document's objects, each with its table of fields and the struct that is read from it.
//!
//! A Spec may be wrong, and what is not written is not there (`None`): defaults, and rules that look at more than
//! one field, are in `check`. One file per part of the document, a table above each reader.

pub mod connection;
pub mod join;
pub mod path;
pub mod pipeline;
pub mod sink;
pub mod step;

use super::grammar::{Field, Object, Shape, Words, names};
use super::plan::{HttpWrites, Secret};
use super::read::{At, Fields, Value};
use connection::{CLICKHOUSE, ClickHouseSpec, KAFKA, KafkaSpec};
use pipeline::{PIPELINE, PipelineSpec};

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FileSpec {
    pub kafka: KafkaSpec,
    pub clickhouse: ClickHouseSpec,
    pub state: StateSpec,
    pub http: HttpSpec,
    pub runtime: RuntimeSpec,
    pub pipelines: Vec<PipelineSpec>,
}

pub static FILE: Object = Object {
    name: "the configuration",
    doc: "The configuration of weir: connections, limits, and the pipelines.",
    choice: false,
    fields: &[&[
        Field::new("version", Shape::Int { min: 1, max: 1 }, "The version of this form.").default("1"),
        Field::new("kafka", Shape::Object(&KAFKA), "The default connection to Kafka; a source may have its own."),
        Field::new("clickhouse", Shape::Object(&CLICKHOUSE), "The default connection to ClickHouse."),
        Field::new("state", Shape::Object(&STATE), "Where the state of the pipelines lives."),
        Field::new("http", Shape::Object(&HTTP), "The HTTP API and the metrics."),
        Field::new("runtime", Shape::Object(&RUNTIME), "How much of the machine weir uses."),
        Field::new("pipelines", Shape::List(&Shape::Object(&PIPELINE)), "The pipelines, at least one."),
    ]],
};

impl FileSpec {
    pub fn read(document: &Value<'_>) -> Option<FileSpec> {
        let fields = document.fields(&FILE)?;
        fields.int("version");
        Some(FileSpec {
            kafka: fields.get("kafka").and_then(|v| KafkaSpec::read(&v)).unwrap_or_default(),
            clickhouse: fields.get("clickhouse").and_then(|v| ClickHouseSpec::read(&v)).unwrap_or_default(),
            state: fields.get("state").and_then(|v| StateSpec::read(&v)).unwrap_or_default(),
            http: fields.get("http").and_then(|v| HttpSpec::read(&v)).unwrap_or_default(),
            runtime: fields.get("runtime").and_then(|v| RuntimeSpec::read(&v)).unwrap_or_default(),
            pipelines: read_list(&fields, "pipelines", PipelineSpec::read),
        })
    }
}

/// Reads each item of a list; those that cannot be read are findings and left out.
pub fn read_list<T>(fields: &Fields<'_>, name: &str, read: impl Fn(&Value<'_>) -> Option<T>) -> Vec<T> {
    let items = fields.get(name).and_then(|value| value.list()).unwrap_or_default();
    items.iter().filter_map(read).collect()
}

/// Where state lives.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StateSpec {
    pub rocksdb_path: Option<At<String>>,
    pub retain_left_ms: Option<At<i64>>,
}

static STATE: Object = Object {
    name: "`state`",
    doc: "Where the state of the pipelines lives.",
    choice: false,
    fields: &[&[
        Field::new("rocksdb", Shape::Object(&ROCKSDB), "In this process, on a local disk."),
        Field::new("redis", Shape::Unread, "In a Redis server.").later("state in Redis"),
        Field::new(
            "retain_left",
            Shape::Duration { min_ms: 0 },
            "How long the state of a partition stays on disk after the partition went to another instance.",
        )
        .default("24h"),
    ]],
};

static ROCKSDB: Object = Object {
    name: "`rocksdb`",
    doc: "State in RocksDB, one database per pipeline.",
    choice: false,
    fields: &[&[Field::new("path", Shape::Text, "The folder. It must outlive the process.").default("./data")]],
};

impl StateSpec {
    fn read(value: &Value<'_>) -> Option<StateSpec> {
        let fields = value.fields(&STATE)?;
        fields.either("rocksdb", "redis");
        let rocksdb = fields.get("rocksdb").and_then(|value| value.fields(&ROCKSDB));
        Some(StateSpec {
            rocksdb_path: rocksdb.and_then(|fields| fields.text("path")),
            retain_left_ms: fields.duration("retain_left"),
        })
    }
}

/// The HTTP API.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HttpSpec {
    pub listen: Option<At<String>>,
    pub token: Option<Secret>,
    pub hosts: Vec<At<String>>,
    pub writes: Option<At<HttpWrites>>,
}

const WRITES: Words<HttpWrites> = &[
    ("loopback", HttpWrites::Loopback),
    ("token", HttpWrites::Token),
    ("anyone", HttpWrites::Anyone),
    ("nobody", HttpWrites::Nobody),
];

static HTTP: Object = Object {
    name: "`http`",
    doc: "The HTTP API and the metrics.",
    choice: false,
    fields: &[&[
        Field::new("listen", Shape::Text, "Address and port.").default("127.0.0.1:8080"),
        Field::new("token", Shape::Secret, "What a caller shows (`Authorization: Bearer …`) to change things."),
        Field::new("writes", Shape::Word(|| names(WRITES)), "Who may change things.").default("loopback"),
        Field::new("hosts", Shape::OneOrList(&Shape::Text), "Further names under which the API is reached."),
    ]],
};

impl HttpSpec {
    fn read(value: &Value<'_>) -> Option<HttpSpec> {
        let fields = value.fields(&HTTP)?;
        let hosts = fields.get("hosts").map(|value| value.one_or_list()).unwrap_or_default();
        Some(HttpSpec {
            listen: fields.text("listen"),
            token: fields.text("token").map(|text| Secret(text.value)),
            hosts: hosts.iter().filter_map(Value::filled_text).collect(),
            writes: fields.word("writes", WRITES),
        })
    }
}

/// How much of the machine is used.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RuntimeSpec {
    pub workers: Option<At<u64>>,
    pub memory_limit_bytes: Option<At<u64>>,
}

static RUNTIME: Object = Object {
    name: "`runtime`",
    doc: "How much of the machine weir uses.",
    choice: false,
    fields: &[&[
        Field::new("workers", Shape::Int { min: 1, max: 1024 }, "Threads that process records.")
            .default("the cores of the machine or container"),
        Field::new(
            "memory_limit",
            Shape::Size { min: 64 << 20, max: 1 << 50 },
            "What caches, buffers and queues may take together.",
        )
        .default("half of the machine's or container's memory"),
    ]],
};

impl RuntimeSpec {
    fn read(value: &Value<'_>) -> Option<RuntimeSpec> {
        let fields = value.fields(&RUNTIME)?;
        Some(RuntimeSpec { workers: fields.int("workers"), memory_limit_bytes: fields.size("memory_limit") })
    }
}
