//! What the configuration means, checked and complete: a Spec may be wrong, a Plan cannot be.
//!
//! Every default is filled in, every duration is milliseconds, every size is bytes, every `${VAR}` is replaced.
//! What needs a connection or another layer (expressions, tables) keeps its place in the file, so that a later
//! finding can still point at it.

use crate::error::Place;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole file.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    pub state: StatePlan,
    pub http: HttpPlan,
    pub runtime: RuntimePlan,
    pub pipelines: Vec<PipelinePlan>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct StatePlan {
    /// One RocksDB per pipeline in `<path>/<pipeline>`.
    pub rocksdb_path: PathBuf,
    /// How long a task's state stays on disk after its partition left.
    pub retain_left_ms: i64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct HttpPlan {
    pub listen: String,
    pub token: Option<Secret>,
    pub hosts: Vec<String>,
    pub writes: HttpWrites,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpWrites {
    Loopback,
    Token,
    Anyone,
    Nobody,
}

#[derive(Clone, PartialEq, Debug)]
pub struct RuntimePlan {
    pub workers: usize,
    pub memory_limit_bytes: u64,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct PipelinePlan {
    pub name: String,
    /// Where the pipeline's name stands, for findings that have no better place.
    pub at: Place,
    pub kafka: KafkaPlan,
    /// Every topic the pipeline reads, each once, the subscribed one first. An input is an index into this.
    pub topics: Vec<TopicPlan>,
    pub source: SidePlan,
    pub steps: Vec<StepPlan>,
    pub sink: SinkPlan,
    pub dead_letters: DeadLettersPlan,
    pub delivery: DeliveryGuarantee,
    pub on_gap: HaltOr,
    pub on_offset_reset: FollowOr,
    pub on_partition_growth: HaltOr,
    pub on_unclear: UnclearChoice,
    pub strict: bool,
}

/// A pipeline as far as it can be meant while something in the file is wrong: enough to judge its expressions and
/// names. Never run.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// Its place in the document, such as `pipelines[0]`.
    pub path: String,
    pub source: SidePlan,
    /// Up to the first of which it is not known what names it leaves; a wrong part of a step has a stand-in.
    pub steps: Vec<StepPlan>,
    /// What the file says about columns; nothing, where steps are missing.
    pub columns: Vec<ColumnPlan>,
}

/// How the pipeline reaches Kafka: one connection, security and group for all its inputs.
#[derive(Clone, PartialEq)]
pub struct KafkaPlan {
    pub brokers: Vec<String>,
    pub group: String,
    /// `None`: the state directory's id.
    pub instance_id: Option<String>,
    pub security: KafkaSecurity,
    /// Passed to librdkafka as they are; those that would break the protocol were refused.
    pub librdkafka: BTreeMap<String, String>,
}

/// Options of librdkafka may be passwords: only their names are shown.
impl std::fmt::Debug for KafkaPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaPlan")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("instance_id", &self.instance_id)
            .field("security", &self.security)
            .field("librdkafka", &self.librdkafka.keys())
            .finish()
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct KafkaSecurity {
    pub tls: Option<TlsPlan>,
    pub sasl: Option<SaslPlan>,
}

impl KafkaSecurity {
    /// As the client is told, consumers and producers alike.
    pub fn librdkafka(&self) -> Vec<(&'static str, String)> {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        let mut options = vec![("security.protocol", protocol.to_owned())];
        if let Some(tls) = &self.tls {
            let path = |path: &PathBuf| path.display().to_string();
            // Our OpenSSL is built in and does not know where this system keeps its authorities: look for them.
            options.push(("ssl.ca.location", tls.ca.as_ref().map_or("probe".into(), path)));
            options.extend(tls.cert.as_ref().map(|cert| ("ssl.certificate.location", path(cert))));
            options.extend(tls.key.as_ref().map(|key| ("ssl.key.location", path(key))));
            options.extend(tls.key_password.as_ref().map(|password| ("ssl.key.password", password.0.clone())));
            options.push(("enable.ssl.certificate.verification", (!tls.skip_verification).to_string()));
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            options.push(("sasl.mechanisms", mechanism.to_owned()));
            options.push(("sasl.username", sasl.username.clone()));
            options.push(("sasl.password", sasl.password.0.clone()));
        }
        options
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct SaslPlan {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// TLS to Kafka or ClickHouse. Files are PEM.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TlsPlan {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub key_password: Option<Secret>,
    pub skip_verification: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TopicPlan {
    pub name: String,
    pub at: Place,
    pub start: StartAt,
}

/// Where a group without any offset of the topic begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    Earliest,
    Latest,
    TimeMs(i64),
}

/// One side of the stream: the source, or the right side of a join.
#[derive(Clone, PartialEq, Debug)]
pub struct SidePlan {
    /// Indices into `PipelinePlan::topics`.
    pub inputs: Vec<usize>,
    pub time: TimePlan,
    pub tombstones: Tombstones,
    pub max_payload_bytes: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TimePlan {
    /// `None`: the Kafka record timestamp.
    pub field: Option<FieldPath>,
    pub unit: TimeUnit,
    /// IANA name for times without an offset.
    pub zone: String,
    pub lateness_ms: i64,
    pub idle_ms: i64,
    pub max_future_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeUnit {
    Iso,
    Seconds,
    Millis,
    Micros,
    Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tombstones {
    Skip,
    Keep,
}

/// `a.b.c`; a literal dotted key wins over the path. Virtual fields start with `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FieldPath {
    /// As written.
    pub text: String,
    pub at: Place,
}

/// An expression's text and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExprText {
    pub text: String,
    pub at: Place,
}

/// One step, in the written order; its place in the list is its name in metrics.
#[derive(Clone, PartialEq, Debug)]
pub enum StepPlan {
    Filter(ExprText),
    /// Output field and what fills it, in the written order.
    Select(Vec<(String, ExprText)>),
    Dedup(DedupPlan),
    Join(Box<JoinPlan>),
}

/// A join: its right side, whom a row meets, and what happens to those who meet nobody.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinPlan {
    pub at: Place,
    /// The field under which the right row appears.
    pub name: String,
    pub with: SidePlan,
    /// What happens to the right rows before they join: filter, select, dedup.
    pub steps: Vec<StepPlan>,
    /// As many as of the right.
    pub left_key: Vec<KeyPlan>,
    pub right_key: Vec<KeyPlan>,
    pub matching: Matching,
    /// A left row that meets nobody is sent alone.
    pub keeps_left: bool,
    pub keeps_right: bool,
    pub late: JoinLate,
    pub max_skew_ms: i64,
    /// Waiting rows of one key and side.
    pub rows_per_key_max: u64,
}

/// Which rows of a join meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matching {
    /// −before ≤ t_right − t_left ≤ after; one of both may be negative, their sum is not.
    Interval { before_ms: i64, after_ms: i64 },
    /// Each left row once.
    Temporal { within_ms: i64, exact: bool },
    /// Each left row once, with the version of its key that is valid at its time (`retain: forever`).
    Table { within_ms: i64, exact: bool, bootstrap: bool },
}

impl Matching {
    /// How far back in time what a join remembers may lie, and how long its rows wait.
    pub fn reach_ms(self) -> i64 {
        match self {
            Matching::Interval { before_ms, after_ms } => before_ms.saturating_abs().max(after_ms.saturating_abs()),
            Matching::Temporal { within_ms, .. } | Matching::Table { within_ms, .. } => within_ms,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinLate {
    Join,
    Drop,
    DeadLetter,
}

#[derive(Clone, PartialEq, Debug)]
pub struct DedupPlan {
    pub at: Place,
    pub key: Vec<KeyPlan>,
    /// `None`: forever.
    pub window_ms: Option<i64>,
    pub keep: Keep,
    pub renew: bool,
    pub missing_key: MissingKey,
    pub late: Late,
}

/// One field of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPlan {
    pub path: FieldPath,
    pub cast: Option<KeyCast>,
}

/// `as:` of a key: the value is read as this before it is compared; one that does not fit is a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyCast {
    Decimal { precision: u8, scale: u8 },
    Int,
    Text,
    Bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keep {
    First,
    Latest,
    /// A record passes when one of these fields differs from the last that passed.
    Changes(Vec<FieldPath>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingKey {
    DeadLetter,
    Pass,
    Drop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Late {
    Pass,
    Drop,
    DeadLetter,
}

#[derive(Clone, PartialEq, Debug)]
pub enum SinkPlan {
    ClickHouse(ClickHouseSinkPlan),
}

#[derive(Clone, PartialEq, Debug)]
pub struct ClickHouseSinkPlan {
    pub connection: ClickHousePlan,
    pub table: String,
    pub table_at: Place,
    pub batch: BatchPlan,
    /// Column → what fills it, where the name alone does not say it.
    pub columns: Vec<ColumnPlan>,
    pub missing: MissingField,
    pub create_table: Option<CreateTablePlan>,
    /// `evolve: add_columns`.
    pub evolve_add_columns: bool,
    pub compression: BlockCompression,
    /// Further settings of the INSERT; those that the protocol pins were refused.
    pub settings: BTreeMap<String, String>,
}

/// How a pipeline reaches ClickHouse.
#[derive(Clone, PartialEq, Debug)]
pub struct ClickHousePlan {
    /// At least one.
    pub urls: Vec<String>,
    pub at: Place,
    pub database: String,
    pub user: String,
    pub password: Secret,
    pub auth: HttpAuth,
    pub tls: TlsPlan,
}

/// How user and password travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpAuth {
    Basic,
    /// `X-ClickHouse-User` and `X-ClickHouse-Key`.
    Headers,
}

/// An epoch is sealed at whichever comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchPlan {
    pub rows: u64,
    pub bytes: u64,
    pub interval_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPlan {
    pub column: String,
    pub path: FieldPath,
    pub unit: Option<ColumnUnit>,
    pub zone: Option<String>,
}

/// What a number means in a date or time column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnUnit {
    Days,
    Seconds,
    Millis,
    Micros,
    Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingField {
    /// DEFAULT, null, or the type's default.
    Default,
    DeadLetter,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTablePlan {
    pub order_by: Vec<String>,
    pub at: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockCompression {
    None,
    Lz4,
    Zstd,
}

#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful exist, and none is moved about")]
pub enum DeadLettersPlan {
    /// The local store, bounded.
    Local {
        bytes_max: u64,
    },
    Kafka {
        topic: String,
        at: Place,
    },
    ClickHouse {
        connection: ClickHousePlan,
        table: String,
        at: Place,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryGuarantee {
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HaltOr {
    Halt,
    Continue,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowOr {
    Follow,
    Halt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnclearChoice {
    Halt,
    Resend,
}
