//! The functions of expressions: their names, what they take, what they give.
//!
//! Owns the table. An unknown name, a wrong number of arguments and an argument of a kind that never fits are
//! errors before there is a row.

use crate::codec::expr::eval::Refusal;
use crate::codec::expr::node::Type;
use crate::codec::expr::value::{Value, duration_text};
use crate::codec::number::{Decimal, to_f64};
use crate::codec::time::{Moment, Zone, civil, parse_iso};
use std::borrow::Cow;

/// A function; the receiver of a call counts as its first argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    Size,
    Int,
    Uint,
    Double,
    String,
    Bool,
    Bytes,
    Dyn,
    Timestamp,
    Duration,
    Matches,
    StartsWith,
    EndsWith,
    Contains,
    LowerAscii,
    UpperAscii,
    Trim,
    Replace,
    Split,
    Join,
    Substring,
    IndexOf,
    Abs,
    Floor,
    Ceil,
    Round,
    Greatest,
    Least,
    Get(Part),
}

/// A part of a timestamp (or duration).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// How a function is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Global,
    Receiver,
    Both,
    /// `math.name(…)`
    Math,
}

type Entry = (&'static str, Function, Style, std::ops::RangeInclusive<usize>, &'static [Type], Type);

const TEXT: &[Type] = &[Type::Text];
const TIME: &[Type] = &[Type::Time];
const TIME_OR_DURATION: &[Type] = &[Type::Time, Type::Duration];
const NUMBER: &[Type] = &[Type::Number];

/// Name, function, style, number of arguments, what the first may be, what it gives.
const TABLE: &[Entry] = &[
    ("size", Function::Size, Style::Both, 1..=1, &[Type::Text, Type::Bytes, Type::List, Type::Map], Type::Number),
    ("int", Function::Int, Style::Global, 1..=1, &[Type::Number, Type::Text, Type::Time], Type::Number),
    ("uint", Function::Uint, Style::Global, 1..=1, &[Type::Number, Type::Text], Type::Number),
    ("double", Function::Double, Style::Global, 1..=1, &[Type::Number, Type::Text], Type::Number),
    (
        "string",
        Function::String,
        Style::Global,
        1..=1,
        &[Type::Number, Type::Text, Type::Bool, Type::Bytes, Type::Time, Type::Duration],
        Type::Text,
    ),
    ("bool", Function::Bool, Style::Global, 1..=1, &[Type::Bool, Type::Text], Type::Bool),
    ("bytes", Function::Bytes, Style::Global, 1..=1, &[Type::Bytes, Type::Text], Type::Bytes),
    ("dyn", Function::Dyn, Style::Global, 1..=1, &[], Type::Any),
    ("timestamp", Function::Timestamp, Style::Global, 1..=1, &[Type::Text, Type::Number, Type::Time], Type::Time),
    ("duration", Function::Duration, Style::Global, 1..=1, &[Type::Text, Type::Duration], Type::Duration),
    ("matches", Function::Matches, Style::Both, 2..=2, TEXT, Type::Bool),
    ("startsWith", Function::StartsWith, Style::Receiver, 2..=2, TEXT, Type::Bool),
    ("endsWith", Function::EndsWith, Style::Receiver, 2..=2, TEXT, Type::Bool),
    ("contains", Function::Contains, Style::Receiver, 2..=2, TEXT, Type::Bool),
    ("lowerAscii", Function::LowerAscii, Style::Receiver, 1..=1, TEXT, Type::Text),
    ("upperAscii", Function::UpperAscii, Style::Receiver, 1..=1, TEXT, Type::Text),
    ("trim", Function::Trim, Style::Receiver, 1..=1, TEXT, Type::Text),
    ("replace", Function::Replace, Style::Receiver, 3..=3, TEXT, Type::Text),
    ("split", Function::Split, Style::Receiver, 2..=2, TEXT, Type::List),
    ("join", Function::Join, Style::Receiver, 1..=2, &[Type::List], Type::Text),
    ("substring", Function::Substring, Style::Receiver, 2..=3, TEXT, Type::Text),
    ("indexOf", Function::IndexOf, Style::Receiver, 2..=2, TEXT, Type::Number),
    ("abs", Function::Abs, Style::Math, 1..=1, NUMBER, Type::Number),
    ("floor", Function::Floor, Style::Math, 1..=1, NUMBER, Type::Number),
    ("ceil", Function::Ceil, Style::Math, 1..=1, NUMBER, Type::Number),
    ("round", Function::Round, Style::Math, 1..=1, NUMBER, Type::Number),
    ("greatest", Function::Greatest, Style::Math, 1..=16, NUMBER, Type::Number),
    ("least", Function::Least, Style::Math, 1..=16, NUMBER, Type::Number),
    ("getFullYear", Function::Get(Part::FullYear), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getMonth", Function::Get(Part::Month), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getDate", Function::Get(Part::Date), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getDayOfMonth", Function::Get(Part::DayOfMonth), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getDayOfWeek", Function::Get(Part::DayOfWeek), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getDayOfYear", Function::Get(Part::DayOfYear), Style::Receiver, 1..=2, TIME, Type::Number),
    ("getHours", Function::Get(Part::Hours), Style::Receiver, 1..=2, TIME_OR_DURATION, Type::Number),
    ("getMinutes", Function::Get(Part::Minutes), Style::Receiver, 1..=2, TIME_OR_DURATION, Type::Number),
    ("getSeconds", Function::Get(Part::Seconds), Style::Receiver, 1..=2, TIME_OR_DURATION, Type::Number),
    ("getMilliseconds", Function::Get(Part::Milliseconds), Style::Receiver, 1..=2, TIME_OR_DURATION, Type::Number),
];

impl Function {
    /// The function of a call, or why there is none. `first` is the type of the first argument.
    pub fn find(name: &str, receiver: bool, math: bool, args: usize, first: Type) -> Result<Function, String> {
        let full = if math { format!("math.{name}") } else { name.to_owned() };
        let found = TABLE.iter().find(|entry| entry.0 == name && (entry.2 == Style::Math) == math);
        let Some((_, function, style, count, takes, _)) = found else {
            return Err(format!("there is no function `{full}`"));
        };
        match style {
            Style::Global if receiver => return Err(format!("`{name}` is called as {name}(…), not as a method")),
            Style::Receiver if !receiver => return Err(format!("`{name}` is called on a value: value.{name}(…)")),
            _ => {}
        }
        if !count.contains(&args) {
            let hidden = receiver as usize;
            let (least, most) = (count.start() - hidden, count.end() - hidden);
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(format!("`{full}` takes {wanted} arguments, not {}", args - hidden));
        }
        if first != Type::Any && !takes.is_empty() && !takes.contains(&first) {
            return Err(format!("`{full}` does not take {}", first.name()));
        }
        Ok(*function)
    }

    /// The type of every result.
    pub fn gives(self) -> Type {
        TABLE.iter().find(|entry| entry.1 == self).map_or(Type::Any, |entry| entry.5)
    }

    fn name(self) -> &'static str {
        TABLE.iter().find(|entry| entry.1 == self).map_or("", |entry| entry.0)
    }

    /// The result, or why there is none.
    pub fn call<'a>(self, args: &[Value<'a>]) -> Result<Value<'a>, Refusal> {
        match (self, args) {
            (Function::Size, [value]) => self.size(value),
            (_, args) => Ok(self.converted(args)?),
        }
    }

    fn converted<'a>(self, args: &[Value<'a>]) -> Result<Value<'a>, String> {
        match (self, args) {
            (Function::Dyn, [value]) => Ok(value.clone()),
            (Function::Int, [value]) => self.int(value),
            (Function::Uint, [value]) => self.uint(value),
            (Function::Double, [value]) => self.double(value),
            (Function::String, [value]) => self.string(value),
            (Function::Bool, [value]) => self.bool(value),
            (Function::Bytes, [Value::Bytes(bytes)]) => Ok(Value::Bytes(bytes.clone())),
            (Function::Bytes, [Value::Text(text)]) => Ok(Value::Bytes(Cow::Owned(text.as_bytes().to_vec()))),
            (Function::Timestamp, [value]) => self.timestamp(value),
            (Function::Duration, [Value::Duration(nanos)]) => Ok(Value::Duration(*nanos)),
            (Function::Duration, [Value::Text(text)]) => parse_duration(text)
                .map(Value::Duration)
                .ok_or_else(|| format!("\"{text}\" is no duration, such as \"90s\" or \"1h30m\"")),
            (Function::Abs | Function::Floor | Function::Ceil | Function::Round, [value]) => self.rounded(value),
            (Function::Greatest | Function::Least, args) => self.extreme(args),
            (Function::Get(part), [Value::Time(moment), zone @ ..]) => self.part(part, *moment, zone.first()),
            (Function::Get(part), [Value::Duration(nanos)]) => self.duration_part(part, *nanos),
            (Function::Join, [list, separator @ ..]) => self.join(list, separator.first()),
            (_, [Value::Text(text), rest @ ..]) => self.of_text(text, rest),
            (_, args) => self.does_not_take(args),
        }
    }

    fn does_not_take<T>(self, args: &[Value<'_>]) -> Result<T, String> {
        let kinds: Vec<&str> = args.iter().map(Value::kind_name).collect();
        Err(format!("`{}` does not take {}", self.name(), kinds.join(", ")))
    }

    fn of_text<'a>(self, text: &Cow<'a, str>, rest: &[Value<'a>]) -> Result<Value<'a>, String> {
        let owned = |text: String| Ok(Value::Text(Cow::Owned(text)));
        match (self, rest) {
            (Function::StartsWith, [Value::Text(other)]) => Ok(Value::Bool(text.starts_with(other.as_ref()))),
            (Function::EndsWith, [Value::Text(other)]) => Ok(Value::Bool(text.ends_with(other.as_ref()))),
            (Function::Contains, [Value::Text(other)]) => Ok(Value::Bool(text.contains(other.as_ref()))),
            (Function::Matches, [Value::Text(pattern)]) => {
                let regex = regex::Regex::new(pattern).map_err(|error| error.to_string())?;
                Ok(Value::Bool(regex.is_match(text)))
            }
            (Function::LowerAscii, []) => owned(text.to_ascii_lowercase()),
            (Function::UpperAscii, []) => owned(text.to_ascii_uppercase()),
            (Function::Trim, []) => owned(text.trim().to_owned()),
            (Function::Replace, [Value::Text(from), Value::Text(to)]) => owned(text.replace(from.as_ref(), to)),
            (Function::Split, [Value::Text(separator)]) => {
                let parts = text.split(separator.as_ref());
                Ok(Value::List(parts.map(|part| Value::Text(Cow::Owned(part.to_owned()))).collect()))
            }
            (Function::IndexOf, [Value::Text(other)]) => {
                let at = text.find(other.as_ref()).map_or(-1, |at| text[..at].chars().count() as i64);
                Ok(Value::Int(at))
            }
            (Function::Substring, [Value::Int(from)]) => substring(text, *from, None),
            (Function::Substring, [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
            (_, rest) => {
                let mut args = vec![Value::Text(text.clone())];
                args.extend_from_slice(rest);
                self.does_not_take(&args)
            }
        }
    }

    fn size<'a>(self, value: &Value<'a>) -> Result<Value<'a>, Refusal> {
        let size = match value {
            Value::Text(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            value => match (value.as_list(), value.as_map()?) {
                (Some(list), _) => list.len(),
                (_, Some(map)) => map.len(),
                _ => return Ok(self.does_not_take(std::slice::from_ref(value))?),
            },
        };
        Ok(Value::Int(size as i64))
    }

    fn int<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        let found = match value {
            Value::Int(value) => Some(*value),
            Value::Uint(value) => i64::try_from(*value).ok(),
            Value::Double(value) => truncated(*value, i64::MIN as i128, i64::MAX as i128).map(|value| value as i64),
            Value::Text(text) => text.parse().ok(),
            Value::Time(moment) => Some(moment.seconds),
            Value::Long(text) => whole_part(text).and_then(|value| i64::try_from(value).ok()),
            other => return self.does_not_take(std::slice::from_ref(other)),
        };
        found.map(Value::Int).ok_or_else(|| no_conversion(value, "a 64-bit int"))
    }

    fn uint<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        let found = match value {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::Uint(value) => Some(*value),
            Value::Double(value) => truncated(*value, 0, u64::MAX as i128).map(|value| value as u64),
            Value::Text(text) => text.parse().ok(),
            Value::Long(text) => whole_part(text).and_then(|value| u64::try_from(value).ok()),
            other => return self.does_not_take(std::slice::from_ref(other)),
        };
        found.map(Value::Uint).ok_or_else(|| no_conversion(value, "a 64-bit uint"))
    }

    fn double<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        if let Value::Text(text) = value {
            let found = to_f64(text.as_bytes()).ok();
            return found.map(Value::Double).ok_or_else(|| no_conversion(value, "a double"));
        }
        match as_double(value) {
            Some(double) => Ok(Value::Double(double)),
            None if value.is_number() => Err(no_conversion(value, "a double")),
            None => self.does_not_take(std::slice::from_ref(value)),
        }
    }

    fn string<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        let text = match value {
            Value::Text(_) => return Ok(value.clone()),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Uint(value) => value.to_string(),
            Value::Double(value) => value.to_string(),
            Value::Long(text) => String::from_utf8_lossy(text).into_owned(),
            Value::Time(moment) => moment.to_rfc3339(),
            Value::Duration(nanos) => duration_text(*nanos),
            Value::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| "the bytes are no UTF-8 text".to_owned())?;
                text.to_owned()
            }
            other => return self.does_not_take(std::slice::from_ref(other)),
        };
        Ok(Value::Text(Cow::Owned(text)))
    }

    fn bool<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        match value {
            Value::Bool(value) => Ok(Value::Bool(*value)),
            Value::Text(text) if text == "true" => Ok(Value::Bool(true)),
            Value::Text(text) if text == "false" => Ok(Value::Bool(false)),
            Value::Text(_) => Err(no_conversion(value, "a boolean")),
            other => self.does_not_take(std::slice::from_ref(other)),
        }
    }

    /// Text (ISO 8601, UTC without an offset) or seconds since 1970.
    fn timestamp<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        let found = match value {
            Value::Time(moment) => Some(*moment),
            Value::Text(text) => parse_iso(text.as_bytes()).and_then(|written| written.moment(&Zone::UTC)),
            Value::Int(seconds) => Moment::from_nanos(*seconds as i128 * 1_000_000_000),
            Value::Double(seconds) => {
                let text = seconds.to_string();
                Decimal::parse(text.as_bytes()).and_then(|number| Moment::from_nanos(number.floor_scaled(9)?))
            }
            Value::Long(seconds) => {
                Decimal::parse(seconds).and_then(|number| Moment::from_nanos(number.floor_scaled(9)?))
            }
            Value::Uint(_) => None,
            other => return self.does_not_take(std::slice::from_ref(other)),
        };
        found.map(Value::Time).ok_or_else(|| no_conversion(value, "a time of the years 0 to 9999"))
    }

    fn rounded<'a>(self, value: &Value<'a>) -> Result<Value<'a>, String> {
        match (self, value) {
            (Function::Abs, Value::Int(value)) => {
                value.checked_abs().map(Value::Int).ok_or_else(|| "the result is no 64-bit int".to_owned())
            }
            (_, Value::Int(_) | Value::Uint(_)) => Ok(value.clone()),
            (_, value) => match as_double(value) {
                Some(double) => Ok(Value::Double(match self {
                    Function::Abs => double.abs(),
                    Function::Floor => double.floor(),
                    Function::Ceil => double.ceil(),
                    _ => double.round(),
                })),
                None => self.does_not_take(std::slice::from_ref(value)),
            },
        }
    }

    fn extreme<'a>(self, args: &[Value<'a>]) -> Result<Value<'a>, String> {
        let wanted = if self == Function::Greatest { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
        let mut best = args.first().expect("the table asks for one argument").clone();
        if !best.is_number() {
            return self.does_not_take(args);
        }
        for value in &args[1..] {
            match crate::codec::expr::value::order(value, &best) {
                Some(order) if value.is_number() => {
                    if order == Some(wanted) {
                        best = value.clone();
                    }
                }
                _ => return self.does_not_take(args),
            }
        }
        Ok(best)
    }

    fn part<'a>(self, part: Part, moment: Moment, zone: Option<&Value<'a>>) -> Result<Value<'a>, String> {
        let offset = match zone {
            None => 0,
            Some(Value::Text(name)) => zone_offset(name, moment)?,
            Some(other) => return self.does_not_take(std::slice::from_ref(other)),
        };
        let local = moment.seconds + offset;
        let (days, of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let found = match part {
            Part::FullYear => year,
            Part::Month => month as i64 - 1,
            Part::Date => day as i64,
            Part::DayOfMonth => day as i64 - 1,
            Part::DayOfWeek => (days + 4).rem_euclid(7),
            Part::DayOfYear => {
                let first = (1..=366).find(|back| civil(days - back).0 != year);
                first.expect("a year has at most 366 days") - 1
            }
            Part::Hours => of_day / 3600,
            Part::Minutes => of_day / 60 % 60,
            Part::Seconds => of_day % 60,
            Part::Milliseconds => (moment.nanos / 1_000_000) as i64,
        };
        Ok(Value::Int(found))
    }

    /// The whole duration in hours, minutes or seconds; the milliseconds of its last second.
    fn duration_part<'a>(self, part: Part, nanos: i128) -> Result<Value<'a>, String> {
        let found = match part {
            Part::Hours => nanos / 3_600_000_000_000,
            Part::Minutes => nanos / 60_000_000_000,
            Part::Seconds => nanos / 1_000_000_000,
            Part::Milliseconds => nanos / 1_000_000 % 1000,
            _ => return self.does_not_take(&[Value::Duration(nanos)]),
        };
        Ok(Value::Int(found as i64))
    }

    fn join<'a>(self, list: &Value<'a>, separator: Option<&Value<'a>>) -> Result<Value<'a>, String> {
        let separator = match separator {
            None => "",
            Some(Value::Text(text)) => text.as_ref(),
            Some(other) => return self.does_not_take(std::slice::from_ref(other)),
        };
        let Some(elements) = list.as_list() else {
            return self.does_not_take(std::slice::from_ref(list));
        };
        let mut text = String::new();
        for (index, element) in elements.iter().enumerate() {
            let Value::Text(part) = element else {
                return self.does_not_take(std::slice::from_ref(element));
            };
            if index > 0 {
                text.push_str(separator);
            }
            text.push_str(part);
        }
        Ok(Value::Text(Cow::Owned(text)))
    }
}

/// Any number as a double; `None` where it is none, or lies beyond the range.
pub fn as_double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::Long(text) => to_f64(text).ok(),
        _ => None,
    }
}

/// A number without what is behind its point.
fn whole_part(text: &[u8]) -> Option<i128> {
    match text.strip_prefix(b"-") {
        Some(magnitude) => Some(-Decimal::parse(magnitude)?.floor_scaled(0)?),
        None => Decimal::parse(text)?.floor_scaled(0),
    }
}

fn truncated(value: f64, least: i128, most: i128) -> Option<i128> {
    if !value.is_finite() || value.abs() >= 1e20 {
        return None;
    }
    let whole = value.trunc() as i128;
    (least..=most).contains(&whole).then_some(whole)
}

fn no_conversion(value: &Value<'_>, wanted: &str) -> String {
    let shown = match value {
        Value::Text(text) => format!("\"{}\"", crate::codec::time::excerpt(text.as_bytes())),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Long(text) => crate::codec::time::excerpt(text),
        value => value.kind_name().to_owned(),
    };
    format!("{shown} is not {wanted}")
}

/// A part of a text by characters, half-open.
fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Result<Value<'a>, String> {
    let len = text.chars().count() as i64;
    let to = to.unwrap_or(len);
    if from < 0 || to > len || from > to {
        return Err(format!("characters {from} to {to} of a text of {len}"));
    }
    let part: String = text.chars().skip(from as usize).take((to - from) as usize).collect();
    Ok(Value::Text(Cow::Owned(part)))
}

/// An IANA name or `±hh:mm`.
fn zone_offset(name: &str, moment: Moment) -> Result<i64, String> {
    let fixed = || {
        let (sign, rest) = match name.as_bytes().first()? {
            b'-' => (-1, &name[1..]),
            b'+' => (1, &name[1..]),
            _ => (1, name),
        };
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        ((0..24).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
    };
    match fixed() {
        Some(offset) => Ok(offset),
        None => Ok(Zone::named(name)?.offset_at(moment)),
    }
}

/// `1h30m`, `1.5s`, `-100ms`, `0`: as nanoseconds.
fn parse_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    while !rest.is_empty() || total == 0 {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_nanos = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1000,
            "ns" => 1,
            _ => return None,
        };
        let billionths = Decimal::parse(number.as_bytes())?.floor_scaled(9)?;
        total = total.checked_add(billionths.checked_mul(unit_nanos)? / 1_000_000_000)?;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    Some(if negative { -total } else { total })
}
