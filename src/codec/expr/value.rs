//! Values of expressions: what they are, how they compare, how they are written as JSON.
//!
//! Owns the meaning of "by value": int, uint and double compare exactly with each other. A value borrows from the
//! arena as long as it can; arrays and objects of the payload stay raw text until something looks inside.

use crate::codec::number::{self, to_f64, to_i64, to_u64};
use crate::codec::rows::{Field, Kind};
use crate::codec::scan::escape;
use crate::codec::time::Moment;
use crate::codec::walk::{Raw, elements, meant, members};
use std::borrow::Cow;
use std::cmp::Ordering;

/// What an expression can give.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    /// The text of a number with more digits than those hold: compares by its exact value (with a double as one),
    /// computes as a double.
    Long(&'a [u8]),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Time(Moment),
    /// Nanoseconds.
    Duration(i128),
    List(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// The raw text of a payload's array.
    Array(&'a [u8]),
    /// The raw text of a payload's object.
    Object(&'a [u8]),
}

/// A number with a point of no more characters than this, and below 2^53, is told apart from all others as a double.
const DOUBLE_CHARS: usize = 16;
const DOUBLE_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The field of an object that was given twice where somebody looked for it: the payload is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Twice(Box<str>);

impl Twice {
    #[cold]
    fn of(name: &[u8]) -> Twice {
        Twice(String::from_utf8_lossy(name).into())
    }
}

impl std::fmt::Display for Twice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the field `{}` is given twice", self.0)
    }
}

/// One row, as an expression sees it.
#[derive(Clone, Copy)]
pub struct RowView<'a> {
    pub bytes: &'a [u8],
    pub fields: &'a [Field],
}

impl<'a> Value<'a> {
    #[inline]
    pub fn of_field(field: Field, bytes: &'a [u8]) -> Value<'a> {
        match field.kind {
            Kind::Absent | Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Int => Value::Int(field.as_int()),
            kind => Value::of_raw(Raw { kind, text: &bytes[field.span().range()] }),
        }
    }

    #[inline]
    pub fn of_raw(raw: Raw<'a>) -> Value<'a> {
        match raw.kind {
            Kind::Absent | Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Number | Kind::Int => Value::of_number(raw.text),
            // Checked again rather than trusted: it costs a few nanoseconds and needs no unsafe.
            Kind::Text => match std::str::from_utf8(raw.text) {
                Ok(text) => Value::Text(Cow::Borrowed(text)),
                Err(_) => Value::Bytes(Cow::Borrowed(raw.text)),
            },
            Kind::Escaped => {
                let text = String::from_utf8(meant(raw).into_owned()).expect("escaped texts are valid UTF-8");
                Value::Text(Cow::Owned(text))
            }
            Kind::Bytes => Value::Bytes(Cow::Borrowed(raw.text)),
            Kind::Array => Value::Array(raw.text),
            Kind::Object => Value::Object(raw.text),
        }
    }

    /// A number with a point or an exponent is a double, any other an int, or a uint where it is too large.
    #[inline]
    fn of_number(text: &'a [u8]) -> Value<'a> {
        if text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
            if let Ok(value) = to_i64(text) {
                return Value::Int(value);
            }
            return to_u64(text).map_or(Value::Long(text), Value::Uint);
        }
        match to_f64(text) {
            Ok(value) if value.abs() < DOUBLE_WHOLE_MAX && text.len() <= DOUBLE_CHARS => Value::Double(value),
            _ => Value::Long(text),
        }
    }

    /// The kind's name, for messages.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Long(_) => "a number",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Time(_) => "a timestamp",
            Value::Duration(_) => "a duration",
            Value::List(_) | Value::Array(_) => "a list",
            Value::Map(_) | Value::Object(_) => "an object",
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Long(_))
    }

    /// The elements of a list, out of the raw text where it still is one.
    pub fn as_list(&self) -> Option<Cow<'_, [Value<'a>]>> {
        match self {
            Value::List(list) => Some(Cow::Borrowed(list)),
            Value::Array(raw) => Some(Cow::Owned(elements(raw).map(Value::of_raw).collect())),
            _ => None,
        }
    }

    /// The members of an object but those that are null, which is the same as not there.
    pub fn as_map(&self) -> Result<Option<Members<'_, 'a>>, Twice> {
        let raw = match self {
            Value::Map(map) if map.iter().all(|(_, value)| *value != Value::Null) => {
                return Ok(Some(Cow::Borrowed(map)));
            }
            Value::Map(map) => {
                let there = map.iter().filter(|(_, value)| *value != Value::Null);
                return Ok(Some(Cow::Owned(there.cloned().collect())));
            }
            Value::Object(raw) => raw,
            _ => return Ok(None),
        };
        let all: Vec<_> = members(raw).collect();
        each_once(&all)?;
        let there = all.into_iter().map(|(name, value)| (Value::Text(utf8(name)), Value::of_raw(value)));
        Ok(Some(Cow::Owned(there.filter(|(_, value)| *value != Value::Null).collect())))
    }

    /// The member of that name; null where there is none, or where this is no object.
    pub fn member(&self, name: &str) -> Result<Value<'a>, Twice> {
        match self {
            Value::Object(raw) => {
                let mut found = members(raw).filter(|(known, _)| known.as_ref() == name.as_bytes());
                let value = found.next().map_or(Value::Null, |(_, value)| Value::of_raw(value));
                if found.next().is_some() { Err(Twice::of(name.as_bytes())) } else { Ok(value) }
            }
            Value::Map(map) => {
                let is_it = |known: &Value<'_>| matches!(known, Value::Text(known) if known == name);
                Ok(map.iter().find(|(known, _)| is_it(known)).map_or(Value::Null, |(_, value)| value.clone()))
            }
            _ => Ok(Value::Null),
        }
    }

    /// A value that owns what it holds.
    pub fn into_static(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Uint(value) => Value::Uint(value),
            Value::Double(value) => Value::Double(value),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Value::Time(moment) => Value::Time(moment),
            Value::Duration(nanos) => Value::Duration(nanos),
            Value::List(list) => Value::List(list.into_iter().map(Value::into_static).collect()),
            Value::Map(map) => {
                Value::Map(map.into_iter().map(|(name, value)| (name.into_static(), value.into_static())).collect())
            }
            Value::Long(_) | Value::Array(_) | Value::Object(_) => {
                unreachable!("constants of expressions hold no payload")
            }
        }
    }

    /// The same value without a copy of its text.
    #[inline]
    pub fn borrowed(&'a self) -> Value<'a> {
        match self {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            Value::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            value => value.clone(),
        }
    }
}

fn utf8(text: Cow<'_, [u8]>) -> Cow<'_, str> {
    const VALID: &str = "names were validated";
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(std::str::from_utf8(text).expect(VALID)),
        Cow::Owned(text) => Cow::Owned(String::from_utf8(text).expect(VALID)),
    }
}

/// Names and values of an object.
pub type Members<'v, 'a> = Cow<'v, [Member<'a>]>;
type Member<'a> = (Value<'a>, Value<'a>);

/// `==`: by value; values of different kinds are never equal.
#[inline]
pub fn equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool, Twice> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::Time(left), Value::Time(right)) => left == right,
        (Value::Duration(left), Value::Duration(right)) => left == right,
        (left, right) if left.is_number() && right.is_number() => order_numbers(left, right) == Some(Ordering::Equal),
        _ => return equal_containers(left, right),
    })
}

fn equal_containers(left: &Value<'_>, right: &Value<'_>) -> Result<bool, Twice> {
    if let (Some(left), Some(right)) = (left.as_list(), right.as_list()) {
        if left.len() != right.len() {
            return Ok(false);
        }
        for (left, right) in left.iter().zip(right.iter()) {
            if !equal(left, right)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let (Some(left), Some(right)) = (left.as_map()?, right.as_map()?) else { return Ok(false) };
    if left.len() != right.len() {
        return Ok(false);
    }
    for ((left_name, left), (right_name, right)) in by_name(&left).into_iter().zip(by_name(&right)) {
        if !equal(left_name, right_name)? || !equal(left, right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sorted by name. Names of different kinds are different names.
fn by_name<'m, 'a>(map: &'m [Member<'a>]) -> Vec<&'m Member<'a>> {
    let mut sorted: Vec<&Member<'a>> = map.iter().collect();
    sorted.sort_by(|(left, _), (right, _)| {
        let same_kind = || order(left, right).flatten().unwrap_or(Ordering::Equal);
        left.kind_name().cmp(right.kind_name()).then_with(same_kind)
    });
    sorted
}

/// Fails where a name is given twice.
fn each_once(members: &[(Cow<'_, [u8]>, Raw<'_>)]) -> Result<(), Twice> {
    let mut names: Vec<&[u8]> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Twice::of(pair[0])),
        None => Ok(()),
    }
}

/// The order of two values of one kind; `None` where they have none (`Some(None)` where one is no number at all).
#[inline]
pub fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(Some(left.cmp(right))),
        (Value::Text(left), Value::Text(right)) => Some(Some(left.as_bytes().cmp(right.as_bytes()))),
        (Value::Bool(left), Value::Bool(right)) => Some(Some(left.cmp(right))),
        (Value::Bytes(left), Value::Bytes(right)) => Some(Some(left.cmp(right))),
        (Value::Time(left), Value::Time(right)) => Some(Some(left.cmp(right))),
        (Value::Duration(left), Value::Duration(right)) => Some(Some(left.cmp(right))),
        (left, right) if left.is_number() && right.is_number() => Some(order_numbers(left, right)),
        _ => None,
    }
}

/// Exact but between a double and a long number; `None` where one is NaN or has an exponent beyond reading.
fn order_numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Double(left), right) => order_double(right, *left).map(Ordering::reverse),
        (left, Value::Double(right)) => order_double(left, *right),
        (Value::Long(left), Value::Long(right)) => number::compare(left, right),
        (Value::Long(left), right) => number::compare(left, whole(right)?.to_string().as_bytes()),
        (left, Value::Long(right)) => number::compare(whole(left)?.to_string().as_bytes(), right),
        (left, right) => Some(whole(left)?.cmp(&whole(right)?)),
    }
}

/// A number beyond all doubles lies on the side of its sign.
fn sign_of(long: &[u8]) -> Ordering {
    if long.first() == Some(&b'-') { Ordering::Less } else { Ordering::Greater }
}

/// The value of an int or uint.
pub fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(*value as i128),
        Value::Uint(value) => Some(*value as i128),
        _ => None,
    }
}

fn order_double(left: &Value<'_>, right: f64) -> Option<Ordering> {
    let left = match left {
        Value::Long(text) => {
            return to_f64(text).map_or(Some(sign_of(text)), |left| left.partial_cmp(&right));
        }
        left => whole(left)?,
    };
    if right.is_nan() {
        return None;
    }
    // Beyond i64 and u64 the double decides; within, its whole part is exact as i128.
    if right.abs() >= 1e20 {
        return Some(if right > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let fraction = 0.0f64.partial_cmp(&right.fract()).expect("a finite double has a fraction");
    Some(left.cmp(&(right.trunc() as i128)).then(fraction))
}

/// Appends the value as JSON text and answers its kind; text comes without quotes. Fails on what JSON cannot say.
pub fn write_field(value: &Value<'_>, out: &mut Vec<u8>) -> Result<Kind, String> {
    match value {
        Value::Text(text) => Ok(write_text(text, out)),
        Value::Bytes(bytes) => Ok(write_text(&base64(bytes), out)),
        Value::Time(moment) => Ok(write_text(&moment.to_rfc3339(), out)),
        Value::Duration(nanos) => Ok(write_text(&duration_text(*nanos), out)),
        value => write_json(value, out),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) -> Kind {
    if escape(text, out) { Kind::Escaped } else { Kind::Text }
}

fn write_json(value: &Value<'_>, out: &mut Vec<u8>) -> Result<Kind, String> {
    match value {
        Value::Null => Ok(write_word("null", Kind::Null, out)),
        Value::Bool(true) => Ok(write_word("true", Kind::True, out)),
        Value::Bool(false) => Ok(write_word("false", Kind::False, out)),
        Value::Int(value) => Ok(write_word(&value.to_string(), Kind::Number, out)),
        Value::Uint(value) => Ok(write_word(&value.to_string(), Kind::Number, out)),
        // The shortest text that reads back as the same double; whole ones with `.0`.
        Value::Double(value) if value.is_finite() => Ok(write_word(&format!("{value:?}"), Kind::Number, out)),
        Value::Double(value) => Err(format!("{value} is not a JSON number")),
        Value::Long(text) => Ok(write_raw(text, Kind::Number, out)),
        Value::Array(raw) => Ok(write_raw(raw, Kind::Array, out)),
        Value::Object(raw) => Ok(write_raw(raw, Kind::Object, out)),
        Value::List(list) => {
            out.push(b'[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_json(element, out)?;
            }
            out.push(b']');
            Ok(Kind::Array)
        }
        Value::Map(map) => {
            out.push(b'{');
            for (index, (name, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.push(b'"');
                escape(&name_text(name), out);
                out.extend_from_slice(b"\":");
                write_json(value, out)?;
            }
            out.push(b'}');
            Ok(Kind::Object)
        }
        Value::Text(_) | Value::Bytes(_) | Value::Time(_) | Value::Duration(_) => {
            out.push(b'"');
            write_field(value, out)?;
            out.push(b'"');
            Ok(Kind::Text)
        }
    }
}

fn write_word(text: &str, kind: Kind, out: &mut Vec<u8>) -> Kind {
    write_raw(text.as_bytes(), kind, out)
}

fn write_raw(text: &[u8], kind: Kind, out: &mut Vec<u8>) -> Kind {
    out.extend_from_slice(text);
    kind
}

/// The name under which a key of a map stands in JSON.
fn name_text(name: &Value<'_>) -> String {
    match name {
        Value::Text(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        _ => String::new(),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Seconds with an `s`, as CEL writes durations.
pub fn duration_text(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}
