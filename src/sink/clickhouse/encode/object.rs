//! Objects for JSON columns: sent as text and parsed by the server, so what the server would refuse is found here.
//!
//! Measured: ClickHouse refuses a path that is given twice (also `{"a":{"b":1},"a.b":2}`), a whole number that neither
//! Int64 nor UInt64 holds, and a number beyond the range of a double, wherever they stand. One such row would hold up
//! its whole block for ever. Values under the paths that a column declares are read by the rules of columns, and
//! written again as the server reads them whatever its settings and zone: it takes 9007199254740993.0 through a double,
//! cuts 1.005 for a Decimal, and knows no ISO times.

use super::Misfit;
use super::column::{Column, Shape};
use super::json::{Elements, Pairs, Value};
use super::leaf::Leaf;
use crate::codec::number;
use crate::codec::scan::escape;
use std::collections::HashSet;

/// What an object must hold to be taken by a JSON column.
#[derive(Clone, Debug, Default)]
pub struct JsonRule {
    /// Paths whose type the column declares. Their columns stay empty: they only say how a value is read.
    pub typed_paths: Vec<(String, Column)>,
}

impl JsonRule {
    /// Appends the object as the server is to read it.
    pub fn write(&self, object: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
        let mut walk = Walk { rule: self, path: String::new(), seen: HashSet::new(), out };
        walk.object(object)
    }

    fn declared(&self, path: &str) -> Option<&Column> {
        self.typed_paths.iter().find(|(declared, _)| declared == path).map(|(_, column)| column)
    }
}

struct Walk<'r> {
    rule: &'r JsonRule,
    /// The path of the object that is walked, dots between the names.
    path: String,
    seen: HashSet<String>,
    out: &'r mut Vec<u8>,
}

impl Walk<'_> {
    fn object(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let mut pairs = Pairs::of(text);
        let mut names = HashSet::new();
        self.out.push(b'{');
        while let Some((name, value)) = pairs.next()? {
            if !names.is_empty() {
                self.out.push(b',');
            }
            write_as_it_is(name, self.out);
            self.out.push(b':');
            let name = plain(name)?;
            let parent_len = self.path.len();
            if parent_len > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            if !names.insert(name) {
                return Err(Misfit::GivenTwice);
            }
            self.value(value)?;
            self.path.truncate(parent_len);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        let declared = self.rule.declared(&self.path);
        if let (None, Value::Object(text)) = (declared, value) {
            return self.object(text);
        }
        if !self.seen.insert(self.path.clone()) {
            return Err(Misfit::GivenTwice);
        }
        match declared {
            Some(column) if !value.is_null() => write_declared(column, value, self.out),
            _ => {
                in_array(value)?;
                write_as_it_is(value, self.out);
                Ok(())
            }
        }
    }
}

/// Checks what stands in arrays: objects there are JSON values of their own.
fn in_array(value: Value<'_>) -> Result<(), Misfit> {
    match value {
        Value::Array(text) => {
            let mut elements = Elements::of(text);
            while let Some(element) = elements.next()? {
                in_array(element)?;
            }
            Ok(())
        }
        Value::Object(text) => JsonRule::default().write(text, &mut Vec::new()),
        Value::Number(text) => is_readable(text),
        _ => Ok(()),
    }
}

/// Whether the server's parser takes a number.
fn is_readable(text: &[u8]) -> Result<(), Misfit> {
    let is_whole = !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    match is_whole && number::to_u64(text).is_err() {
        true => number::to_i64(text).map(|_| ()),
        false => number::to_f64(text).map(|_| ()),
    }
    .map_err(Misfit::from)
}

fn write_as_it_is(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) | Value::Escaped(text) => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Value::Number(text) | Value::Array(text) | Value::Object(text) => out.extend_from_slice(text),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Absent | Value::Null => out.extend_from_slice(b"null"),
        Value::Int(_) | Value::Bytes(_) => unreachable!("of our own, never inside of an object"),
    }
}

/// A value under a declared path, or inside of one.
fn write_declared(column: &Column, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if value.is_null() {
        if column.nulls.is_none() {
            return Err(Misfit::Null);
        }
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match (&column.shape, value) {
        (Shape::Leaf { leaf, .. }, value) => write_leaf(leaf, out, |leaf, bytes| leaf.put(value, bytes)),
        (Shape::Array { of, .. }, Value::Array(text)) => {
            let mut elements = Elements::of(text);
            let mut list = List::begin(b'[', out);
            while let Some(element) = elements.next()? {
                write_declared(of, element, list.item())?;
            }
            list.end(b']');
            Ok(())
        }
        (Shape::Map { key, value: of, .. }, Value::Object(text)) => {
            let mut pairs = Pairs::of(text);
            let mut list = List::begin(b'{', out);
            while let Some((name, value)) = pairs.next()? {
                let out = list.item();
                write_declared(key, name, out)?;
                out.push(b':');
                write_declared(of, value, out)?;
            }
            list.end(b'}');
            Ok(())
        }
        (Shape::Tuple { of, .. }, Value::Array(text)) => {
            let mut elements = Elements::of(text);
            let mut list = List::begin(b'[', out);
            for column in of {
                write_declared(column, elements.next()?.ok_or(Misfit::Lengths)?, list.item())?;
            }
            list.end(b']');
            if elements.next()?.is_some() { Err(Misfit::Lengths) } else { Ok(()) }
        }
        (Shape::Tuple { names, of }, Value::Object(text)) if names.len() == of.len() => {
            // In their order, as an array: the server refuses an object that has none of the names.
            let mut list = List::begin(b'[', out);
            for (name, column) in names.iter().zip(of) {
                match super::column::find(text, name)? {
                    value if value.is_null() => write_default(column, list.item())?,
                    value => write_declared(column, value, list.item())?,
                }
            }
            list.end(b']');
            Ok(())
        }
        _ => Err(Misfit::Kind),
    }
}

/// Null where the column holds it, else the type's default.
fn write_default(column: &Column, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match &column.shape {
        _ if column.nulls.is_some() => out.extend_from_slice(b"null"),
        Shape::Leaf { leaf, .. } => {
            write_leaf(leaf, out, |leaf, bytes| {
                leaf.put_default(bytes);
                Ok(())
            })?;
        }
        Shape::Array { .. } => out.extend_from_slice(b"[]"),
        Shape::Map { .. } => out.extend_from_slice(b"{}"),
        Shape::Tuple { of, .. } => {
            let mut list = List::begin(b'[', out);
            for column in of {
                write_default(column, list.item())?;
            }
            list.end(b']');
        }
    }
    Ok(())
}

fn write_leaf(
    leaf: &Leaf,
    out: &mut Vec<u8>,
    put: impl FnOnce(&Leaf, &mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    let mut bytes = Vec::new();
    put(leaf, &mut bytes)?;
    match leaf.shown(&bytes) {
        Shown::Plain(text) => out.extend_from_slice(text.as_bytes()),
        Shown::Text(text) => {
            out.push(b'"');
            escape(&text, out);
            out.push(b'"');
        }
    }
    Ok(())
}

/// A cell as JSON.
pub(super) enum Shown {
    /// As it stands.
    Plain(String),
    /// Between quotes.
    Text(String),
}

/// Items with commas between them.
struct List<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> List<'o> {
    fn begin(open: u8, out: &'o mut Vec<u8>) -> List<'o> {
        out.push(open);
        List { out, is_first: true }
    }

    fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        self.out
    }

    fn end(self, close: u8) {
        self.out.push(close);
    }
}

fn plain(name: Value<'_>) -> Result<String, Misfit> {
    let bytes = name.meant().ok_or(Misfit::Broken)?.into_owned();
    String::from_utf8(bytes).map_err(|_| Misfit::Broken)
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnRule;
    use super::*;
    use crate::sink::clickhouse::types::Type;

    /// What a JSON column with these arguments is sent.
    fn written(args: &str, object: &str) -> Result<String, Misfit> {
        let Ok(of) = Type::parse(&format!("JSON({args})")) else { panic!("{args}") };
        let rule = ColumnRule { unit: None, zone: None, server_zone: "UTC".to_owned(), takes_nan: false };
        let column = Column::of(&of, &rule).unwrap();
        let Shape::Leaf { leaf: Leaf::Json(rule), .. } = &column.shape else { panic!("{args} is no JSON") };
        let mut out = Vec::new();
        rule.write(object.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_the_server_would_refuse_is_found() {
        let args = "t.u UInt8, b Bool, i Int64, a Array(Int8)";
        for good in [
            r#"{}"#,
            r#"{"a":[1],"c":{"c":[1,{"b":2},null]},"":1}"#,
            r#"{"x":[18446744073709551615,-9223372036854775808,123456789012345678901234567890.5,1e30,-0]}"#,
            r#"{"t":{"u":255}}"#,
            r#"{"t":{"u":null}}"#,
            r#"{"t":5}"#,
            r#"{"i":-9223372036854775808,"b":true}"#,
        ] {
            assert_eq!(written(args, good).as_deref(), Ok(good));
        }
        for (bad, why) in [
            (r#"{"x":1,"x":2}"#, Misfit::GivenTwice),
            (r#"{"x":1,"\u0078":2}"#, Misfit::GivenTwice),
            (r#"{"x":{"b":1},"x.b":2}"#, Misfit::GivenTwice),
            (r#"{"x":{},"x":{}}"#, Misfit::GivenTwice),
            (r#"{"x":{"b":1},"x":5}"#, Misfit::GivenTwice),
            (r#"{"x":[{"b":1,"b":2}]}"#, Misfit::GivenTwice),
            (r#"{"x":1e400}"#, Misfit::OutOfRange),
            (r#"{"x":18446744073709551616}"#, Misfit::OutOfRange),
            (r#"{"x":{"y":[-9223372036854775809]}}"#, Misfit::OutOfRange),
            (r#"{"x":[{"y":123456789012345678901234567890}]}"#, Misfit::OutOfRange),
            (r#"{"t":{"u":256}}"#, Misfit::OutOfRange),
            (r#"{"t":{"u":{}}}"#, Misfit::Kind),
            (r#"{"t.u":"x"}"#, Misfit::Kind),
            (r#"{"b":{"x":true}}"#, Misfit::Kind),
            (r#"{"b":"yes"}"#, Misfit::Kind),
            (r#"{"b":2}"#, Misfit::OutOfRange),
            (r#"{"i":9223372036854775808}"#, Misfit::OutOfRange),
            (r#"{"i":1.5}"#, Misfit::Fraction),
            (r#"{"a":5}"#, Misfit::Kind),
            (r#"{"a":[null]}"#, Misfit::Null),
            (r#"{"a":[128]}"#, Misfit::OutOfRange),
        ] {
            assert_eq!(written(args, bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_declared_value_is_written_as_the_server_reads_it() {
        for (args, object, expected) in [
            ("i Int64", r#"{"i":9007199254740993.0}"#, r#"{"i":9007199254740993}"#),
            ("i Int64", r#"{"i":"9223372036854775807"}"#, r#"{"i":9223372036854775807}"#),
            ("i UInt256", r#"{"i":340282366920938463463374607431768211456}"#, {
                r#"{"i":"340282366920938463463374607431768211456"}"#
            }),
            ("b Bool", r#"{"b":"true"}"#, r#"{"b":true}"#),
            ("s String", r#"{"s":[1, "x"]}"#, r#"{"s":"[1, \"x\"]"}"#),
            ("s String", r#"{"s":1.50}"#, r#"{"s":"1.50"}"#),
            ("f Float64", r#"{"f":18446744073709551616}"#, r#"{"f":1.8446744073709552e19}"#),
            ("d Decimal(10, 2)", r#"{"d":-0.1}"#, r#"{"d":"-0.10"}"#),
            ("d Decimal(4, 0)", r#"{"d":1e3}"#, r#"{"d":"1000"}"#),
            ("d Date", r#"{"d":"2024-01-15T23:59:59-08:00"}"#, r#"{"d":"2024-01-15"}"#),
            ("d Date32", r#"{"d":"1900-01-01"}"#, r#"{"d":"1900-01-01"}"#),
            ("d DateTime('Europe/Berlin')", r#"{"d":"2024-01-01T01:00:00"}"#, r#"{"d":1704067200}"#),
            ("d DateTime64(3)", r#"{"d":"1969-12-31T23:59:58.5Z"}"#, r#"{"d":-1500}"#),
            (
                "u UUID",
                r#"{"u":"000102030405060708090A0b0c0d0e0f"}"#,
                r#"{"u":"00010203-0405-0607-0809-0a0b0c0d0e0f"}"#,
            ),
            ("a IPv4, b IPv6", r#"{"a":"1.2.3.4","b":"1.2.3.4"}"#, r#"{"a":"1.2.3.4","b":"::ffff:1.2.3.4"}"#),
            ("e Enum8('q\"' = -2)", r#"{"e":"q\""}"#, r#"{"e":"q\""}"#),
            ("a Array(Nullable(Date))", r#"{"a": [ "2024-01-15" , null ]}"#, r#"{"a":["2024-01-15",null]}"#),
            ("m Map(String, DateTime)", r#"{"m":{"x":5}}"#, r#"{"m":{"x":5}}"#),
            ("t Tuple(x UInt8, y String)", r#"{"t":{"z":1,"y":"w"}}"#, r#"{"t":[0,"w"]}"#),
            ("j JSON(b UInt8)", r#"{"j":{"b":"7","c":1}}"#, r#"{"j":{"b":7,"c":1}}"#),
            ("a.b UInt8", r#"{"a":{"b":"7"},"a.c":"8"}"#, r#"{"a":{"b":7},"a.c":"8"}"#),
        ] {
            assert_eq!(written(args, object).as_deref(), Ok(expected), "{args}");
        }
    }
}
