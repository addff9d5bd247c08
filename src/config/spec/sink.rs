//! Where rows and dead letters go, as typed.

use super::connection::{CLICKHOUSE_FIELDS, ClickHouseSpec, read_options};
use super::path::read_path;
use super::pipeline::read_zone;
use crate::config::grammar::{Field, Object, Shape, Words, names};
use crate::config::plan::{BlockCompression, ColumnPlan, ColumnUnit, MissingField};
use crate::config::read::{At, Value};
use std::collections::BTreeMap;

/// `sink`.
#[derive(Clone, PartialEq, Debug)]
pub enum SinkSpec {
    ClickHouse(Box<ClickHouseSinkSpec>),
}

pub static SINK: Object = Object {
    name: "`sink`",
    doc: "Where the rows go.",
    choice: true,
    fields: &[&[
        Field::new("clickhouse", Shape::Object(&CLICKHOUSE_SINK), "A table in ClickHouse."),
        Field::new("kafka", Shape::Unread, "A topic.").later("the Kafka sink"),
    ]],
};

impl SinkSpec {
    pub fn read(value: &Value<'_>) -> Option<SinkSpec> {
        match value.choice(&SINK)? {
            ("clickhouse", value) => ClickHouseSinkSpec::read(&value).map(|sink| SinkSpec::ClickHouse(Box::new(sink))),
            _ => None,
        }
    }
}

/// `sink.clickhouse`.
#[derive(Clone, PartialEq, Debug)]
pub struct ClickHouseSinkSpec {
    pub at: At<()>,
    pub connection: ClickHouseSpec,
    pub table: Option<At<String>>,
    pub batch: BatchSpec,
    pub columns: Vec<ColumnPlan>,
    pub missing: Option<At<MissingField>>,
    pub create_table: Option<CreateTableSpec>,
    pub evolve: Option<At<Evolve>>,
    pub compression: Option<At<BlockCompression>>,
    pub settings: BTreeMap<String, At<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evolve {
    AddColumns,
}

const MISSING: Words<MissingField> = &[("default", MissingField::Default), ("dead_letter", MissingField::DeadLetter)];
const EVOLVE: Words<Evolve> = &[("add_columns", Evolve::AddColumns)];
const COMPRESSION: Words<BlockCompression> =
    &[("none", BlockCompression::None), ("lz4", BlockCompression::Lz4), ("zstd", BlockCompression::Zstd)];

static CLICKHOUSE_SINK: Object = Object {
    name: "`clickhouse`",
    doc: "A table in ClickHouse. What is not said about the connection is taken from the top of the document.",
    choice: false,
    fields: &[
        &[Field::new("table", Shape::Text, "The table.").required()],
        CLICKHOUSE_FIELDS,
        &[
            Field::new("batch", Shape::Object(&BATCH), "When a block is sent: whichever comes first."),
            Field::new(
                "columns",
                Shape::Map(&COLUMN_SHAPE),
                "What fills a column, where the name alone does not say it.",
            ),
            Field::new("missing", Shape::Word(|| names(MISSING)), "What an absent field becomes.").default("default"),
            Field::new(
                "create_table",
                Shape::Object(&CREATE_TABLE),
                "Creates the table from a sample, if it is missing.",
            ),
            Field::new("evolve", Shape::Word(|| names(EVOLVE)), "Adds columns for new fields."),
            Field::new("compression", Shape::Word(|| names(COMPRESSION)), "Of blocks, on disk and on the wire.")
                .default("lz4"),
            Field::new(
                "settings",
                Shape::Map(&Shape::Scalar),
                "Further settings of the INSERT, except those that exactly once depends on.",
            ),
        ],
    ],
};

impl ClickHouseSinkSpec {
    fn read(value: &Value<'_>) -> Option<ClickHouseSinkSpec> {
        let fields = value.fields(&CLICKHOUSE_SINK)?;
        let columns = fields.get("columns").and_then(|value| value.entries()).unwrap_or_default();
        Some(ClickHouseSinkSpec {
            at: fields.named().map(|_| ()),
            connection: ClickHouseSpec::from_fields(&fields),
            table: fields.text("table"),
            batch: fields.get("batch").and_then(|value| BatchSpec::read(&value)).unwrap_or_default(),
            columns: columns.into_iter().filter_map(|(name, value)| read_column(name, &value)).collect(),
            missing: fields.word("missing", MISSING),
            create_table: fields.get("create_table").and_then(|value| CreateTableSpec::read(&value)),
            evolve: fields.word("evolve", EVOLVE),
            compression: fields.word("compression", COMPRESSION),
            settings: read_options(&fields, "settings"),
        })
    }
}

/// `batch`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BatchSpec {
    pub rows: Option<At<u64>>,
    pub bytes: Option<At<u64>>,
    pub interval_ms: Option<At<i64>>,
}

/// A block may wait an hour at most: until it is stored, its records are read again after a crash.
pub const INTERVAL_MS_MAX: i64 = 3_600_000;

static BATCH: Object = Object {
    name: "`batch`",
    doc: "When a task's block is sealed and sent: whichever comes first.",
    choice: false,
    fields: &[&[
        Field::new("rows", Shape::Int { min: 1, max: 10_000_000 }, "That many rows.").default("100000"),
        Field::new("bytes", Shape::Size { min: 1 << 10, max: 1 << 30 }, "That many bytes, not compressed.")
            .default("32MiB"),
        Field::new("interval", Shape::Duration { min_ms: 10 }, "That long after its first row.").default("10s"),
    ]],
};

impl BatchSpec {
    fn read(value: &Value<'_>) -> Option<BatchSpec> {
        let fields = value.fields(&BATCH)?;
        let mut interval_ms = fields.duration("interval");
        if interval_ms.take_if(|at| at.value > INTERVAL_MS_MAX).is_some() {
            fields.get("interval")?.refuse("out_of_range", "takes 10ms to 1h", None);
        }
        Some(BatchSpec { rows: fields.int("rows"), bytes: fields.size("bytes"), interval_ms })
    }
}

const UNITS: Words<ColumnUnit> = &[
    ("days", ColumnUnit::Days),
    ("s", ColumnUnit::Seconds),
    ("ms", ColumnUnit::Millis),
    ("us", ColumnUnit::Micros),
    ("ns", ColumnUnit::Nanos),
];

const COLUMN_SHAPE: Shape = Shape::Either(&[Shape::Path, Shape::Object(&COLUMN)]);

static COLUMN: Object = Object {
    name: "a column",
    doc: "What fills a column, and what its numbers mean.",
    choice: false,
    fields: &[&[
        Field::new("path", Shape::Path, "The field.").default("the column's name"),
        Field::new("unit", Shape::Word(|| names(UNITS)), "What a number in a date or time column counts since 1970."),
        Field::new("zone", Shape::Text, "The IANA zone of times without an offset.").default("the column's"),
    ]],
};

/// Short (`user_name: user.name`) or long (`ts: { path, unit, zone }`).
fn read_column(name: At<String>, value: &Value<'_>) -> Option<ColumnPlan> {
    let column = name.value;
    if !value.is_map() {
        return Some(ColumnPlan { column, path: read_path(value)?, unit: None, zone: None });
    }
    let fields = value.fields(&COLUMN)?;
    let unit = fields.word("unit", UNITS).map(|unit| unit.value);
    let zone = fields.get("zone").and_then(|value| read_zone(&value)).map(|zone| zone.value);
    let path = match fields.get("path") {
        Some(value) => read_path(&value)?,
        None => crate::config::plan::FieldPath { text: column.clone(), at: name.at },
    };
    Some(ColumnPlan { column, path, unit, zone })
}

/// `create_table`.
#[derive(Clone, PartialEq, Debug)]
pub struct CreateTableSpec {
    pub at: At<()>,
    pub order_by: Vec<At<String>>,
}

static CREATE_TABLE: Object = Object {
    name: "`create_table`",
    doc: "Creates the table from a sample, if it is missing, and prints the DDL.",
    choice: false,
    fields: &[&[Field::new("order_by", Shape::OneOrList(&Shape::Text), "The sorting key of the table.").required()]],
};

impl CreateTableSpec {
    fn read(value: &Value<'_>) -> Option<CreateTableSpec> {
        let fields = value.fields(&CREATE_TABLE)?;
        let columns = fields.get("order_by").map(|value| {
            value.refuse_empty_list();
            value.one_or_list()
        });
        Some(CreateTableSpec {
            at: fields.named().map(|_| ()),
            order_by: columns.unwrap_or_default().iter().filter_map(Value::filled_text).collect(),
        })
    }
}

/// `dead_letters`.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful exist, and none is moved about")]
pub enum DeadLettersSpec {
    Local { bytes_max: Option<At<u64>> },
    Kafka { topic: Option<At<String>> },
    ClickHouse { at: At<()>, connection: ClickHouseSpec, table: Option<At<String>> },
}

pub static DEAD_LETTERS: Object = Object {
    name: "`dead_letters`",
    doc: "Where records go that cannot be processed.",
    choice: true,
    fields: &[&[
        Field::new("local", Shape::Object(&LOCAL), "The local store; each instance has its own."),
        Field::new("kafka", Shape::Object(&LETTER_TOPIC), "A topic of the same Kafka."),
        Field::new("clickhouse", Shape::Object(&LETTER_TABLE), "A table, by default beside that of the sink."),
    ]],
};

static LOCAL: Object = Object {
    name: "`local`",
    doc: "The local store of dead letters.",
    choice: false,
    fields: &[&[Field::new(
        "bytes",
        Shape::Size { min: 1 << 20, max: 1 << 50 },
        "How large it may grow. A full store stops the pipeline; it never drops.",
    )
    .default("1GiB")]],
};

static LETTER_TOPIC: Object = Object {
    name: "`kafka`",
    doc: "A topic for dead letters: key, value and headers as they were, and why in further headers.",
    choice: false,
    fields: &[&[Field::new("topic", Shape::Text, "The topic. It is not created.").required()]],
};

static LETTER_TABLE: Object = Object {
    name: "`clickhouse`",
    doc: "A table for dead letters; `check --connect --fix` creates it.",
    choice: false,
    fields: &[&[Field::new("table", Shape::Text, "The table.").required()], CLICKHOUSE_FIELDS],
};

impl DeadLettersSpec {
    pub fn read(value: &Value<'_>) -> Option<DeadLettersSpec> {
        match value.choice(&DEAD_LETTERS)? {
            ("local", value) => {
                let fields = value.fields(&LOCAL);
                Some(DeadLettersSpec::Local { bytes_max: fields.and_then(|fields| fields.size("bytes")) })
            }
            ("kafka", value) => {
                let fields = value.fields(&LETTER_TOPIC)?;
                Some(DeadLettersSpec::Kafka { topic: fields.text("topic") })
            }
            (_, value) => {
                let fields = value.fields(&LETTER_TABLE)?;
                Some(DeadLettersSpec::ClickHouse {
                    at: fields.named().map(|_| ()),
                    connection: ClickHouseSpec::from_fields(&fields),
                    table: fields.text("table"),
                })
            }
        }
    }
}
