//! A pipeline as typed: source, time, and the choices about what happens when something is wrong.

use super::connection::{KAFKA, KafkaSpec};
use super::path::read_path;
use super::sink::{DEAD_LETTERS, DeadLettersSpec, SINK, SinkSpec};
use super::step::{STEP, StepSpec};
use crate::config::grammar::{Field, Object, Shape, Words, names};
use crate::config::plan::{
    DeliveryGuarantee, FieldPath, FollowOr, HaltOr, StartAt, TimeUnit, Tombstones, UnclearChoice,
};
use crate::config::read::{At, Value};

/// One pipeline.
#[derive(Clone, PartialEq, Debug)]
pub struct PipelineSpec {
    /// Its place in the document, such as `pipelines[0]`.
    pub path: String,
    pub name: Option<At<String>>,
    pub source: Option<SourceSpec>,
    pub steps: Vec<StepSpec>,
    pub sink: Option<SinkSpec>,
    pub dead_letters: Option<DeadLettersSpec>,
    pub delivery: Option<At<DeliveryGuarantee>>,
    pub on_gap: Option<At<HaltOr>>,
    pub on_offset_reset: Option<At<FollowOr>>,
    pub on_partition_growth: Option<At<HaltOr>>,
    pub on_unclear: Option<At<UnclearChoice>>,
    pub strict: Option<At<bool>>,
}

const DELIVERY: Words<DeliveryGuarantee> =
    &[("exactly_once", DeliveryGuarantee::ExactlyOnce), ("at_least_once", DeliveryGuarantee::AtLeastOnce)];
const HALT_OR_CONTINUE: Words<HaltOr> = &[("halt", HaltOr::Halt), ("continue", HaltOr::Continue)];
const FOLLOW_OR_HALT: Words<FollowOr> = &[("follow", FollowOr::Follow), ("halt", FollowOr::Halt)];
const HALT_OR_RESEND: Words<UnclearChoice> = &[("halt", UnclearChoice::Halt), ("resend", UnclearChoice::Resend)];

pub static PIPELINE: Object = Object {
    name: "a pipeline",
    doc: "From one source through steps to one sink.",
    choice: false,
    fields: &[&[
        Field::new("name", Shape::Text, "Letters, digits, `-`, `_` and `.`; it names folder, group and metrics.")
            .required(),
        Field::new("source", Shape::Object(&SOURCE), "What is read.").required(),
        Field::new("steps", Shape::List(&Shape::Object(&STEP)), "What happens to the rows, in this order."),
        Field::new("sink", Shape::Object(&SINK), "Where the rows go.").required(),
        Field::new("dead_letters", Shape::Object(&DEAD_LETTERS), "Where records go that cannot be processed.")
            .default("the local store"),
        Field::new(
            "delivery",
            Shape::Word(|| names(DELIVERY)),
            "What is promised; the way out for tables that cannot deduplicate inserts is `at_least_once`.",
        )
        .default("exactly_once"),
        Field::new(
            "on_gap",
            Shape::Word(|| names(HALT_OR_CONTINUE)),
            "When Kafka has deleted records that were not read yet.",
        )
        .default("halt"),
        Field::new(
            "on_offset_reset",
            Shape::Word(|| names(FOLLOW_OR_HALT)),
            "When somebody moved the group's offsets.",
        )
        .default("follow"),
        Field::new(
            "on_partition_growth",
            Shape::Word(|| names(HALT_OR_CONTINUE)),
            "When a topic of a pipeline with state gets more partitions.",
        )
        .default("halt"),
        Field::new(
            "on_unclear",
            Shape::Word(|| names(HALT_OR_RESEND)),
            "When nobody can know any more whether a block arrived.",
        )
        .default("halt"),
        Field::new("strict", Shape::Bool, "Stops where weir would otherwise go on and say so loudly.").default("false"),
    ]],
};

impl PipelineSpec {
    pub fn read(value: &Value<'_>) -> Option<PipelineSpec> {
        let fields = value.fields(&PIPELINE)?;
        Some(PipelineSpec {
            path: fields.named().path,
            name: fields.text("name"),
            source: fields.get("source").and_then(|value| SourceSpec::read(&value)),
            steps: StepSpec::read_list(&fields, "steps"),
            sink: fields.get("sink").and_then(|value| SinkSpec::read(&value)),
            dead_letters: fields.get("dead_letters").and_then(|value| DeadLettersSpec::read(&value)),
            delivery: fields.word("delivery", DELIVERY),
            on_gap: fields.word("on_gap", HALT_OR_CONTINUE),
            on_offset_reset: fields.word("on_offset_reset", FOLLOW_OR_HALT),
            on_partition_growth: fields.word("on_partition_growth", HALT_OR_CONTINUE),
            on_unclear: fields.word("on_unclear", HALT_OR_RESEND),
            strict: fields.bool("strict"),
        })
    }
}

/// `source`; the right side of a join has the same fields and more.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceSpec {
    pub at: At<()>,
    pub kafka: Option<KafkaSpec>,
    pub start: Option<At<StartAt>>,
    pub time: Option<TimeSpec>,
    pub tombstones: Option<At<Tombstones>>,
    pub max_payload_bytes: Option<At<u64>>,
}

const TOMBSTONES: Words<Tombstones> = &[("skip", Tombstones::Skip), ("keep", Tombstones::Keep)];

pub const SOURCE_FIELDS: &[Field] = &[
    Field::new("kafka", Shape::Object(&KAFKA), "The topic, and how to reach it where that differs.").required(),
    Field::new("start", Shape::Start, "Where a group begins that has no offset yet.").default("earliest"),
    Field::new("time", Shape::Object(&TIME), "When a record happened.").default("the Kafka record timestamp"),
    Field::new("tombstones", Shape::Word(|| names(TOMBSTONES)), "What happens to records without a value.")
        .default("skip"),
    Field::new("max_payload", Shape::Size { min: 1 << 10, max: 1 << 30 }, "A larger record is a dead letter.")
        .default("16MiB"),
];

static SOURCE: Object = Object { name: "`source`", doc: "What is read.", choice: false, fields: &[SOURCE_FIELDS] };

impl SourceSpec {
    fn read(value: &Value<'_>) -> Option<SourceSpec> {
        Some(SourceSpec::from_fields(&value.fields(&SOURCE)?))
    }

    /// From an object that has `SOURCE_FIELDS` among its fields.
    pub fn from_fields(fields: &crate::config::read::Fields<'_>) -> SourceSpec {
        SourceSpec {
            at: fields.named().map(|_| ()),
            kafka: fields.get("kafka").and_then(|value| KafkaSpec::read(&value)),
            start: fields.get("start").and_then(|value| read_start(&value)),
            time: fields.get("time").and_then(|value| TimeSpec::read(&value)),
            tombstones: fields.word("tombstones", TOMBSTONES),
            max_payload_bytes: fields.size("max_payload"),
        }
    }
}

fn read_start(value: &Value<'_>) -> Option<At<StartAt>> {
    let text = value.filled_text()?;
    let start = match text.value.as_str() {
        "earliest" => StartAt::Earliest,
        "latest" => StartAt::Latest,
        time => match time.parse::<jiff::Timestamp>() {
            Ok(time) => StartAt::TimeMs(time.as_millisecond()),
            Err(_) => {
                let help = "a time has an offset or `Z`, such as `2026-01-31T08:00:00Z`".to_string();
                value.refuse("bad_start", "takes `earliest`, `latest` or an RFC 3339 time", Some(help));
                return None;
            }
        },
    };
    Some(value.at(start))
}

/// `time`.
#[derive(Clone, PartialEq, Debug)]
pub struct TimeSpec {
    pub field: Option<FieldPath>,
    pub unit: Option<At<TimeUnit>>,
    pub zone: Option<At<String>>,
    pub lateness_ms: Option<At<i64>>,
    pub idle_ms: Option<At<i64>>,
    pub max_future_ms: Option<At<i64>>,
}

const UNITS: Words<TimeUnit> = &[
    ("iso", TimeUnit::Iso),
    ("s", TimeUnit::Seconds),
    ("ms", TimeUnit::Millis),
    ("us", TimeUnit::Micros),
    ("ns", TimeUnit::Nanos),
];

static TIME: Object = Object {
    name: "`time`",
    doc: "The event time of a record. Without `field` the rest holds for the Kafka timestamp.",
    choice: false,
    fields: &[&[
        Field::new("field", Shape::Path, "The field that holds the time.").default("the Kafka record timestamp"),
        Field::new("unit", Shape::Word(|| names(UNITS)), "ISO 8601 text, or what a number counts since 1970.")
            .default("iso"),
        Field::new("zone", Shape::Text, "The IANA zone of times without an offset.").default("UTC"),
        Field::new("lateness", Shape::Duration { min_ms: 0 }, "How far records may be out of order.").default("0s"),
        Field::new("idle", Shape::Duration { min_ms: 1 }, "How long an input at its end holds the others back.")
            .default("30s"),
        Field::new(
            "max_future",
            Shape::Duration { min_ms: 1 },
            "A record further ahead of the clock is a dead letter.",
        )
        .default("1h"),
    ]],
};

impl TimeSpec {
    fn read(value: &Value<'_>) -> Option<TimeSpec> {
        let fields = value.fields(&TIME)?;
        Some(TimeSpec {
            field: fields.get("field").and_then(|value| read_path(&value)),
            unit: fields.word("unit", UNITS),
            zone: fields.get("zone").and_then(|value| read_zone(&value)),
            lateness_ms: fields.duration("lateness"),
            idle_ms: fields.duration("idle"),
            max_future_ms: fields.duration("max_future"),
        })
    }
}

/// A zone that the tz database has.
pub fn read_zone(value: &Value<'_>) -> Option<At<String>> {
    let text = value.filled_text()?;
    if jiff::tz::TimeZone::get(&text.value).is_ok() {
        return Some(text);
    }
    let known: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_string()).collect();
    let near = crate::config::read::nearest(&text.value, known.iter().map(String::as_str));
    let help = near.map_or("such as `Europe/Berlin` or `UTC`".into(), |zone| format!("did you mean `{zone}`?"));
    value.refuse("unknown_zone", "takes the name of a time zone", Some(help));
    None
}
