//! Dead letters bound for a ClickHouse table: a block builder over letters.
//!
//! Owns the table's shape. Promises: a letter's key, value and headers arrive as they were, byte for byte; the block
//! is delivered like any other, exactly once.

use super::clickhouse::encode::column::ColumnRule;
use super::clickhouse::encode::instant::HELD_MS;
use super::clickhouse::encode::{Binding, Filler, NativeBuilder};
use super::clickhouse::schema::{ServerInfo, TableSchema, full_name};
use super::clickhouse::table::Problem;
use super::clickhouse::types::Type;
use super::{Block, BlockBuilder, BuilderMark, ColumnHeader};
use crate::codec::rows::{Field, Kind, RowMeta, Rows, Slot};
use crate::config::plan::{BlockCompression, ColumnUnit};

/// A record that could not be processed, and why.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The epoch's noted wall clock.
    pub time_ms: i64,
    pub pipeline: &'a str,
    /// The step's place, `source` or `sink`.
    pub step: &'a str,
    /// The short stable name of the cause.
    pub reason: &'a str,
    pub message: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// -1 where the record has none.
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// As in [`crate::codec::record::Record::headers`].
    pub headers: &'a [u8],
}

/// The columns, their types in a table that weir creates, and the types that a table of the user's may have.
const COLUMNS: [(&str, &str, Takes); 12] = [
    ("time", "DateTime64(3, 'UTC')", Takes::Time),
    ("pipeline", "LowCardinality(String)", Takes::Text),
    ("step", "LowCardinality(String)", Takes::Text),
    ("reason", "LowCardinality(String)", Takes::Text),
    ("message", "String", Takes::Text),
    ("topic", "LowCardinality(String)", Takes::Text),
    ("partition", "Int32", Takes::Number),
    ("offset", "Int64", Takes::Number),
    ("timestamp", "Nullable(DateTime64(3, 'UTC'))", Takes::Time),
    ("key", "Nullable(String)", Takes::Text),
    ("value", "Nullable(String)", Takes::Text),
    ("headers", "Array(Tuple(name String, value Nullable(String)))", Takes::Headers),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Takes {
    Text,
    Number,
    Time,
    Headers,
}

/// The statement that creates the table of dead letters, fit for exactly once on one server; `window` is how many
/// parts it remembers.
pub fn create_statement(database: &str, table: &str, window: u64) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|(name, of, _)| format!("    `{name}` {of}")).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {}\n(\n{}\n)\nENGINE = MergeTree\nORDER BY (pipeline, time)\n\
         SETTINGS non_replicated_deduplication_window = {window}",
        full_name(database, table),
        columns.join(",\n")
    )
}

/// The columns that a block of letters has, whatever the table.
pub fn inserted(_: &ServerInfo, _: &TableSchema) -> Vec<String> {
    COLUMNS.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

/// Collects letters for one table. Owned by a task.
pub struct LetterBuilder {
    block: NativeBuilder,
    /// Whether the column of the Kafka timestamp holds null.
    has_no_timestamp: bool,
    /// One row, made anew for each letter.
    row: Rows,
    headers_json: Vec<u8>,
}

impl LetterBuilder {
    /// An empty builder for the table; problems name the columns that do not fit.
    pub fn new(schema: &TableSchema, compression: BlockCompression) -> Result<LetterBuilder, Vec<Problem>> {
        let mut bindings = Vec::new();
        let mut problems = Vec::new();
        for (slot, (name, of, takes)) in COLUMNS.iter().enumerate() {
            match bind(schema, name, *takes, slot as u16) {
                Ok(binding) => bindings.push(binding),
                Err(why) => {
                    let message = format!(
                        "the table of dead letters {}: column `{name}` {why}; weir would make it {of}",
                        schema.full_name()
                    );
                    problems.push(Problem::error("unfit_dead_letter_table", message));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let has_no_timestamp = bindings.iter().any(|binding| binding.name == "timestamp" && binding.of.is_nullable());
        match NativeBuilder::new(&schema.table, bindings, compression) {
            Ok(block) => Ok(LetterBuilder { block, has_no_timestamp, row: Rows::default(), headers_json: Vec::new() }),
            Err(message) => Err(vec![Problem::error("unfit_dead_letter_table", message)]),
        }
    }

    /// Names and types of the columns that a block carries.
    pub fn header(&self) -> &[ColumnHeader] {
        self.block.header()
    }

    /// Appends a letter.
    pub fn push(&mut self, letter: &Letter<'_>) {
        self.row.clear(COLUMNS.len());
        self.row.meta.push(RowMeta::default());
        write_headers(letter.headers, &mut self.headers_json);
        let (timestamp, beyond) = self.timestamp(letter.timestamp_ms);
        let fields = [
            Field::int(letter.time_ms),
            self.text(letter.pipeline.as_bytes()),
            self.text(letter.step.as_bytes()),
            self.text(letter.reason.as_bytes()),
            self.text(format!("{}{beyond}", letter.message).as_bytes()),
            self.text(letter.topic.as_bytes()),
            Field::int(i64::from(letter.partition)),
            Field::int(letter.offset),
            timestamp,
            letter.key.map_or(Field::NULL, |key| self.text(key)),
            letter.value.map_or(Field::NULL, |value| self.text(value)),
            self.row.append(Kind::Array, &self.headers_json),
        ];
        self.row.fields.extend(fields);
        let mut bad = Vec::new();
        self.block.append(&self.row, &[0], &mut bad);
        assert!(bad.is_empty(), "the table takes every letter, or the builder was refused: {bad:?}");
    }

    /// A producer may give a record any timestamp. One that the column does not hold stands in the message.
    fn timestamp(&self, ms: i64) -> (Field, String) {
        let held = match ms {
            ..0 => return (Field::NULL, String::new()),
            ms if HELD_MS.contains(&ms) => return (Field::int(ms), String::new()),
            _ if self.has_no_timestamp => Field::NULL,
            _ => Field::int(HELD_MS.end - 1),
        };
        (held, format!(" (the record's Kafka timestamp is {ms} ms, which no column of this table holds)"))
    }

    fn text(&mut self, text: &[u8]) -> Field {
        self.row.append(Kind::Text, text)
    }

    pub fn mark(&mut self) -> BuilderMark {
        self.block.mark()
    }

    pub fn rollback(&mut self, mark: BuilderMark) {
        self.block.rollback(mark);
    }

    pub fn rows(&self) -> u64 {
        self.block.rows()
    }

    pub fn bytes(&self) -> usize {
        self.block.bytes()
    }

    pub fn seal(&mut self) -> Option<Block> {
        self.block.seal()
    }
}

/// Binds one column, if every letter fits it. The error goes on from "column `x` …".
fn bind(schema: &TableSchema, name: &str, takes: Takes, slot: u16) -> Result<Binding, String> {
    let column = schema.column(name).ok_or("is missing")?;
    if !column.default_kind.is_written() {
        return Err("is computed by the server".to_owned());
    }
    let of = Type::parse(&column.type_text)?;
    if !fits(&of, takes) {
        return Err(format!("is {of}, which does not hold every letter"));
    }
    Ok(Binding {
        name: name.to_owned(),
        type_text: column.type_text.clone(),
        of,
        path: name.to_owned(),
        slot: Slot(slot),
        nested: None,
        rule: ColumnRule {
            unit: Some(ColumnUnit::Millis),
            zone: None,
            server_zone: "UTC".to_owned(),
            takes_nan: false,
        },
        default_by_server: false,
        absent: Filler::Default,
        null: Filler::Default,
    })
}

fn fits(of: &Type, takes: Takes) -> bool {
    let inner = match of.value_type() {
        Type::Nullable(inner) => inner.value_type(),
        plain => plain,
    };
    match takes {
        Takes::Text => *inner == Type::String,
        Takes::Number => {
            matches!(inner, Type::String | Type::Int { bits: 64, signed: true })
                || matches!(inner, Type::Int { bits: 32, signed: true })
        }
        // Precision 9 ends in 2262.
        Takes::Time => matches!(inner, Type::DateTime64 { precision: 0..=8, .. }),
        Takes::Headers => match inner {
            Type::Array(of) => matches!(of.as_ref(), Type::Tuple(pair) if pair.len() == 2
                && fits(&pair[0].of, Takes::Text) && fits(&pair[1].of, Takes::Text) && pair[1].of.is_nullable()),
            _ => false,
        },
    }
}

/// The headers as a JSON array of [name, value] pairs.
fn write_headers(headers: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(b'[');
    for (name, value) in crate::codec::record::Headers::of(headers) {
        if out.len() > 1 {
            out.push(b',');
        }
        out.push(b'[');
        write_text(name, out);
        out.push(b',');
        match value {
            Some(value) => write_text(value, out),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b']');
    }
    out.push(b']');
}

/// Bytes between quotes. What is not text stays as it is: only the encoder reads this.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record::RecordBatch;
    use crate::sink::clickhouse::schema::{DefaultKind, TableColumn};

    fn table() -> TableSchema {
        let column = |(name, of, _): &(&str, &str, Takes)| TableColumn {
            name: (*name).to_owned(),
            type_text: (*of).to_owned(),
            default_kind: DefaultKind::None,
            default_expression: String::new(),
            constant: None,
        };
        TableSchema {
            database: "d".to_owned(),
            table: "letters".to_owned(),
            engine: "MergeTree".to_owned(),
            engine_full: String::new(),
            partition_key: String::new(),
            partitions_written: 0,
            columns: COLUMNS.iter().map(column).collect(),
        }
    }

    #[test]
    fn bytes_that_are_no_text_arrive_as_they_were() {
        let mut batch = RecordBatch::default();
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a\"\\", Some(b"\xff\x00\"")), (b"b", None)];
        batch.push(7, 1000, Some(b"\xfe"), None, headers);
        let record = batch.records[0];
        let mut builder = LetterBuilder::new(&table(), BlockCompression::None).unwrap();
        builder.push(&Letter {
            time_ms: 5,
            pipeline: "p",
            step: "source",
            reason: "not_json",
            message: "broken",
            topic: "t",
            partition: 1,
            offset: record.offset,
            timestamp_ms: -1,
            key: Some(b"\xfe"),
            value: None,
            headers: batch.slice(record.headers),
        });
        assert_eq!(builder.rows(), 1);
        let block = builder.seal().unwrap();
        let has = |bytes: &[u8]| block.body.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"\x03a\"\\\x01b\x00\x01\x03\xff\x00\"\x00"), "{:?}", block.body);
        assert!(has(b"\x03key\x10Nullable(String)\x00\x01\xfe"));
    }

    #[test]
    fn a_timestamp_beyond_every_column_stands_in_the_message() {
        let letter = |timestamp_ms: i64| Letter {
            time_ms: 5,
            pipeline: "p",
            step: "sink",
            reason: "r",
            message: "too late",
            topic: "t",
            partition: 0,
            offset: 1,
            timestamp_ms,
            key: None,
            value: None,
            headers: &[],
        };
        let written = |of: &str, timestamp_ms: i64| {
            let mut table = table();
            table.columns[8].type_text = of.to_owned();
            let mut builder = LetterBuilder::new(&table, BlockCompression::None).unwrap();
            builder.push(&letter(timestamp_ms));
            let body = builder.seal().unwrap().body;
            move |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes)
        };
        let nullable = "Nullable(DateTime64(3, 'UTC'))";
        let has = written(nullable, i64::MAX);
        assert!(has(format!("too late (the record's Kafka timestamp is {} ms", i64::MAX).as_bytes()));
        assert!(has(b"'UTC'))\x01\0\0\0\0\0\0\0\0"));
        let last_ms = 10_413_791_999_999i64;
        assert!(written("DateTime64(3)", last_ms + 1)(&last_ms.to_le_bytes()));
        let has = written(nullable, last_ms);
        assert!(has(&last_ms.to_le_bytes()) && has(b"\x08too late\x05topic"));
    }

    #[test]
    fn a_table_that_does_not_hold_every_letter_is_refused() {
        let mut narrow = table();
        narrow.columns[6].type_text = "UInt8".to_owned();
        narrow.columns.remove(4);
        let problems = LetterBuilder::new(&narrow, BlockCompression::None).err().unwrap();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].message.contains("`message` is missing"), "{problems:?}");
        assert!(problems[1].message.contains("`partition` is UInt8"), "{problems:?}");
    }

    #[test]
    fn the_created_table_has_a_window_and_every_column() {
        let statement = create_statement("d", "letters", 10_000);
        assert!(statement.contains("non_replicated_deduplication_window"));
        assert!(COLUMNS.iter().all(|(name, ..)| statement.contains(&format!("`{name}`"))));
    }
}
