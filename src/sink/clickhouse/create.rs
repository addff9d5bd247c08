//! Tables made by weir: DDL from a sample of records, and columns for new fields.
//!
//! Owns the inference. Promises: it only ever creates a table or adds columns; what it runs it also returns, to be
//! printed; a type is only guessed when every sampled value fits it.

use super::client::Client;
use super::encode::instant::{self, TimeRule};
use super::encode::json::{Elements, Pairs, Value};
use super::errors::Failure;
use super::schema::{self, TableSchema, full_name};
use super::types::identifier;
use crate::codec::number;
use crate::codec::time::{Zone, parse_iso};
use crate::config::plan::CreateTablePlan;
use std::time::Duration;

/// Objects within objects deeper than this become one text column.
const DEPTH_MAX: usize = 4;
/// No table gets more columns than this from a sample.
const COLUMNS_MAX: usize = 1_000;

/// Digits of the fraction in columns of times; as their type below.
const TIME_PRECISION: u8 = 6;
const UTC: TimeRule = TimeRule { unit: None, zone: Zone::UTC };

/// A field of the sampled records and the type that holds all its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InferredField {
    /// `a.b` for a field inside an object; also the column's name.
    pub path: String,
    of: Guess,
}

/// What has been seen of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guess {
    /// Nothing but nulls.
    Nothing,
    Bool,
    /// Whole numbers; whether one was negative, and whether one needs UInt64.
    Whole {
        negative: bool,
        large: bool,
    },
    Float,
    Date,
    Time,
    Text,
    /// An array of plain values of one kind.
    Array(Element),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    Nothing,
    Bool,
    Whole,
    Float,
    Text,
}

/// Infers the fields of JSON objects, in the order in which they come. Records that are no objects are passed over.
pub fn infer(records: &[&[u8]]) -> Vec<InferredField> {
    let mut fields = Vec::new();
    for record in records {
        if let Ok(Value::Object(text)) = Value::parse(record) {
            infer_object(text, "", 0, &mut fields);
        }
    }
    let inside = |outer: &InferredField, inner: &InferredField| {
        inner.path.strip_prefix(outer.path.as_str()).is_some_and(|rest| rest.starts_with('.'))
    };
    let mut kept = Vec::new();
    for field in &fields {
        let is_value_too = |outer: &&InferredField| outer.of != Guess::Nothing && inside(outer, field);
        let has_fields = fields.iter().any(|inner| inside(field, inner));
        match field.of {
            _ if fields.iter().any(|outer| is_value_too(&outer)) => {}
            Guess::Nothing if has_fields => {}
            // An object in some records and a value in others: text holds both.
            _ if has_fields => kept.push(InferredField { path: field.path.clone(), of: Guess::Text }),
            _ => kept.push(field.clone()),
        }
    }
    kept.truncate(COLUMNS_MAX);
    kept
}

fn infer_object(text: &[u8], parent: &str, depth: usize, fields: &mut Vec<InferredField>) {
    let mut pairs = Pairs::of(text);
    while let Ok(Some((name, value))) = pairs.next() {
        let Some(name) = name.meant() else { continue };
        let name = String::from_utf8_lossy(&name);
        let path = if parent.is_empty() { name.into_owned() } else { format!("{parent}.{name}") };
        match value {
            Value::Object(b"{}") => note(fields, path, Guess::Nothing),
            Value::Object(inner) if depth + 1 < DEPTH_MAX => infer_object(inner, &path, depth + 1, fields),
            value => note(fields, path, guess(value, depth)),
        }
    }
}

fn note(fields: &mut Vec<InferredField>, path: String, seen: Guess) {
    match fields.iter_mut().find(|field| field.path == path) {
        Some(field) => field.of = field.of.and(seen),
        None => fields.push(InferredField { path, of: seen }),
    }
}

fn guess(value: Value<'_>, depth: usize) -> Guess {
    match value {
        Value::Absent | Value::Null => Guess::Nothing,
        Value::Bool(_) => Guess::Bool,
        // Written with a point, whatever comes behind it: a fraction may come with the next record.
        Value::Number(text) if text.contains(&b'.') && number::to_f64(text).is_ok() => Guess::Float,
        Value::Int(_) => Guess::Whole { negative: true, large: false },
        Value::Number(text) if number::to_i64(text).is_ok() => {
            Guess::Whole { negative: text.starts_with(b"-"), large: false }
        }
        Value::Number(text) if number::to_u64(text).is_ok() => Guess::Whole { negative: false, large: true },
        // A whole number that no 64 bits hold would lose digits as a float.
        Value::Number(text) if number::to_i256(text).is_ok() || number::to_f64(text).is_err() => Guess::Text,
        Value::Number(_) => Guess::Float,
        // Beyond what the columns hold a date is a text, too.
        Value::Text(text) => match parse_iso(text) {
            Some(written) if written.has_time && written.offset.is_some() => {
                instant::date_time_64(value, &UTC, TIME_PRECISION).map_or(Guess::Text, |_| Guess::Time)
            }
            Some(written) if !written.has_time => instant::date_32(value, &UTC).map_or(Guess::Text, |_| Guess::Date),
            _ => Guess::Text,
        },
        // ClickHouse takes array columns with a dot in their names for one Nested, of one length.
        Value::Array(text) if depth == 0 => guess_array(text),
        _ => Guess::Text,
    }
}

fn guess_array(text: &[u8]) -> Guess {
    let mut elements = Elements::of(text);
    let mut seen = Element::Nothing;
    while let Ok(Some(value)) = elements.next() {
        let this = match guess(value, 1) {
            Guess::Nothing => Element::Nothing,
            Guess::Bool => Element::Bool,
            Guess::Whole { large: false, .. } => Element::Whole,
            Guess::Float => Element::Float,
            Guess::Date | Guess::Time => Element::Text,
            Guess::Text if matches!(value, Value::Text(_) | Value::Escaped(_)) => Element::Text,
            _ => return Guess::Text,
        };
        seen = match (seen, this) {
            (a, b) if a == b => a,
            (Element::Nothing, other) | (other, Element::Nothing) => other,
            (Element::Whole, Element::Float) | (Element::Float, Element::Whole) => Element::Float,
            _ => return Guess::Text,
        };
    }
    Guess::Array(seen)
}

impl Guess {
    /// What holds both.
    fn and(self, other: Guess) -> Guess {
        use Guess::{Array, Float, Nothing, Text, Whole};
        match (self, other) {
            (a, b) if a == b => a,
            (Nothing, other) | (other, Nothing) => other,
            (Whole { negative: a, large: c }, Whole { negative: b, large: d }) => match (a || b, c || d) {
                (true, true) => Text,
                (negative, large) => Whole { negative, large },
            },
            (Whole { large: false, .. }, Float) | (Float, Whole { large: false, .. }) => Float,
            (Array(Element::Nothing), Array(of)) | (Array(of), Array(Element::Nothing)) => Array(of),
            (Array(Element::Whole), Array(Element::Float)) | (Array(Element::Float), Array(Element::Whole)) => {
                Array(Element::Float)
            }
            _ => Text,
        }
    }
}

impl InferredField {
    /// The column's type; a key column holds no null.
    fn type_text(&self, is_key: bool) -> String {
        let plain = match self.of {
            Guess::Nothing | Guess::Text => "String",
            Guess::Bool => "Bool",
            Guess::Whole { large: true, .. } => "UInt64",
            Guess::Whole { .. } => "Int64",
            Guess::Float => "Float64",
            Guess::Date => "Date32",
            Guess::Time => "DateTime64(6, 'UTC')",
            Guess::Array(element) => {
                let of = match element {
                    Element::Bool => "Bool",
                    Element::Whole => "Int64",
                    Element::Float => "Float64",
                    Element::Nothing | Element::Text => "String",
                };
                return format!("Array(Nullable({of}))");
            }
        };
        if is_key { plain.to_owned() } else { format!("Nullable({plain})") }
    }

    fn definition(&self, is_key: bool) -> String {
        format!("{} {}", identifier(&self.path), self.type_text(is_key))
    }
}

/// The statement that creates the table from a sample; `with_offsets` adds the columns by which a block can be found
/// again after its token has left the window, `window` is how many parts the table remembers. The error is a sentence for `check`.
pub fn create_statement(
    plan: &CreateTablePlan,
    database: &str,
    table: &str,
    records: &[&[u8]],
    with_offsets: bool,
    window: u64,
) -> Result<String, String> {
    let mut fields = infer(records);
    if fields.is_empty() {
        return Err(format!("`{table}` cannot be created: none of the {} sampled records is an object", records.len()));
    }
    let offsets = ["_topic", "_partition", "_offset"];
    fields.retain(|field| !offsets.contains(&field.path.as_str()));
    for key in &plan.order_by {
        let known = fields.iter().any(|field| field.path == *key) || (with_offsets && offsets.contains(&key.as_str()));
        if !known {
            return Err(format!(
                "`{table}` cannot be created: `order_by` names `{key}`, which none of the {} sampled records has",
                records.len()
            ));
        }
    }
    let is_key = |field: &InferredField| plan.order_by.contains(&field.path);
    let mut columns: Vec<String> = fields.iter().map(|field| field.definition(is_key(field))).collect();
    if with_offsets {
        columns.extend(["`_topic` LowCardinality(String)", "`_partition` Int32", "`_offset` Int64"].map(str::to_owned));
    }
    let order_by: Vec<String> = plan.order_by.iter().map(|key| identifier(key)).collect();
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {}\n(\n    {}\n)\nENGINE = MergeTree\nORDER BY ({})\n\
         SETTINGS non_replicated_deduplication_window = {window}",
        full_name(database, table),
        columns.join(",\n    "),
        order_by.join(", ")
    ))
}

/// The statement that adds columns for fields that no column takes yet; `None` when there are none. `used` are the
/// paths that columns are filled from under another name.
pub fn add_columns_statement(schema: &TableSchema, used: &[&str], records: &[&[u8]]) -> Option<String> {
    let taken = |field: &InferredField| {
        let prefix = format!("{}.", field.path);
        used.contains(&field.path.as_str())
            || schema.columns.iter().any(|column| column.name == field.path || column.name.starts_with(&prefix))
            || field.path.match_indices('.').any(|(at, _)| schema.column(&field.path[..at]).is_some())
    };
    let fields = infer(records);
    let added: Vec<String> = fields
        .iter()
        // Nothing but nulls so far: the type is not known yet.
        .filter(|field| field.of != Guess::Nothing && !taken(field))
        .map(|field| format!("ADD COLUMN IF NOT EXISTS {}", field.definition(false)))
        .collect();
    (!added.is_empty()).then(|| format!("ALTER TABLE {} {}", schema.full_name(), added.join(", ")))
}

/// Looks again this often, this long apart, until an ALTER is visible.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Runs `statement` and gives the table's columns when it is visible at the server that is asked.
pub async fn add_columns(client: &Client, schema: &TableSchema, statement: &str) -> Result<TableSchema, Failure> {
    client.execute(statement).await?;
    let mut after = schema.clone();
    for _ in 0..LOOKS_MAX {
        after.columns = schema::read_columns(client, &schema.database, &schema.table).await?;
        if after.columns.len() > schema.columns.len() {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    schema::read_constants(client, &mut after).await?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;

    fn types(records: &[&str]) -> Vec<(String, String)> {
        let records: Vec<&[u8]> = records.iter().map(|record| record.as_bytes()).collect();
        infer(&records).into_iter().map(|field| (field.path.clone(), field.type_text(false))).collect()
    }

    fn one(values: &[&str]) -> String {
        let records: Vec<String> = values.iter().map(|value| format!("{{\"a\":{value}}}")).collect();
        types(&records.iter().map(String::as_str).collect::<Vec<_>>()).remove(0).1
    }

    #[test]
    fn a_type_is_guessed_only_when_every_value_fits_it() {
        assert_eq!(one(&["1", "-2", "1e3"]), "Nullable(Int64)");
        assert_eq!(one(&["1", "18446744073709551615"]), "Nullable(UInt64)");
        assert_eq!(one(&["-1", "18446744073709551615"]), "Nullable(String)");
        assert_eq!(one(&["123456789012345678901234567890"]), "Nullable(String)");
        assert_eq!(one(&["1", "2.5"]), "Nullable(Float64)");
        assert_eq!(one(&["true", "null"]), "Nullable(Bool)");
        assert_eq!(one(&["true", "1"]), "Nullable(String)");
        assert_eq!(one(&["\"2024-01-01T00:00:00Z\""]), "Nullable(DateTime64(6, 'UTC'))");
        assert_eq!(one(&["\"2024-01-01T00:00:00Z\"", "\"soon\""]), "Nullable(String)");
        assert_eq!(one(&["\"2024-01-01\""]), "Nullable(Date32)");
        assert_eq!(one(&["\"2024-01-01 00:00:00\""]), "Nullable(String)");
        assert_eq!(one(&["\"2299-12-31\"", "\"1900-01-01\""]), "Nullable(Date32)");
        assert_eq!(one(&["\"2024-01-01\"", "\"9999-12-31\""]), "Nullable(String)");
        assert_eq!(one(&["\"0001-01-01T00:00:00Z\""]), "Nullable(String)");
        assert_eq!(one(&["\"1900-01-01T00:00:00+05:00\""]), "Nullable(String)");
        assert_eq!(one(&["null"]), "Nullable(String)");
        assert_eq!(one(&["[]", "[1]", "[2.5,null]"]), "Array(Nullable(Float64))");
        assert_eq!(one(&["[1,\"x\"]"]), "Nullable(String)");
        assert_eq!(one(&["[{\"b\":1}]"]), "Nullable(String)");
    }

    #[test]
    fn objects_become_paths_and_their_arrays_text() {
        let found = types(&["{\"u\":{\"n\":\"x\",\"t\":[1]},\"e\":{}}", "{\"z\":1}"]);
        let expected = [
            ("u.n", "Nullable(String)"),
            ("u.t", "Nullable(String)"),
            ("e", "Nullable(String)"),
            ("z", "Nullable(Int64)"),
        ];
        assert_eq!(found, expected.map(|(path, of)| (path.to_owned(), of.to_owned())));
        assert_eq!(types(&["{\"u\":{\"n\":1}}", "{\"u\":5}"]), [("u".to_owned(), "Nullable(String)".to_owned())]);
    }

    #[test]
    fn the_statement_has_keys_without_null_and_a_window() {
        let plan = CreateTablePlan { order_by: vec!["id".to_owned()], at: Place::default() };
        let statement = create_statement(&plan, "d", "t", &[b"{\"id\":1,\"x\":\"y\"}"], true, 10_000).unwrap();
        assert_eq!(
            statement,
            "CREATE TABLE IF NOT EXISTS `d`.`t`\n(\n    `id` Int64,\n    `x` Nullable(String),\n    \
             `_topic` LowCardinality(String),\n    `_partition` Int32,\n    `_offset` Int64\n)\nENGINE = MergeTree\n\
             ORDER BY (`id`)\nSETTINGS non_replicated_deduplication_window = 10000"
        );
        let error = create_statement(&plan, "d", "t", &[b"{\"x\":1}"], false, 10_000).unwrap_err();
        assert!(error.contains("`id`"), "{error}");
    }
}
