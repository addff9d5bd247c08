//! Single values: what goes into one cell of a column that is no container, byte for byte.
//!
//! Promises: a value is written whole or not at all, by value, never clamped, wrapped or rounded (but floats to the
//! nearest, and times cut to the precision).

use super::Misfit;
use super::instant::{self, TimeRule};
use super::json::Value;
use super::number;
use super::object::{JsonRule, Shown};
use crate::codec::number as exact;
use crate::codec::time::Moment;
use ethnum::{I256, U256};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The kind of a cell, with all that is needed to write one.
#[derive(Clone, Debug)]
pub enum Leaf {
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    F32,
    F64,
    F32OrNan,
    F64OrNan,
    Decimal { precision: u8, scale: u8 },
    Bool,
    String,
    FixedString(usize),
    Uuid,
    Date(TimeRule),
    Date32(TimeRule),
    DateTime(TimeRule),
    DateTime64(TimeRule, u8),
    Enum8(Names),
    Enum16(Names),
    Ipv4,
    Ipv6,
    Json(JsonRule),
}

/// The names of an enum, sorted, with their values.
#[derive(Clone, Debug)]
pub struct Names(Vec<(Box<[u8]>, i16)>);

impl Names {
    pub fn of(values: &[(String, i16)]) -> Names {
        let mut names: Vec<_> = values.iter().map(|(name, value)| (name.as_bytes().into(), *value)).collect();
        names.sort();
        Names(names)
    }

    #[inline]
    fn value(&self, name: &[u8]) -> Result<i16, Misfit> {
        let found = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name));
        found.map(|at| self.0[at].1).map_err(|_| Misfit::UnknownName)
    }

    fn name(&self, value: i16) -> String {
        let named = self.0.iter().find(|(_, known)| *known == value).expect("only values with a name are written");
        String::from_utf8_lossy(&named.0).into_owned()
    }

    /// The type's default: the lowest value, as the server has it.
    fn lowest(&self) -> i16 {
        self.0.iter().map(|(_, value)| *value).min().unwrap_or_default()
    }
}

/// Runs `$body` with `$put` being the leaf's own writer, so that a loop over a column branches on its type once.
macro_rules! with_writer {
    ($leaf:expr, $put:ident => $body:expr) => {{
        use $crate::sink::clickhouse::encode::leaf as l;
        use $crate::sink::clickhouse::encode::leaf::Leaf;
        match $leaf {
            Leaf::U8 => {
                let $put = l::put_int::<u8>;
                $body
            }
            Leaf::U16 => {
                let $put = l::put_int::<u16>;
                $body
            }
            Leaf::U32 => {
                let $put = l::put_int::<u32>;
                $body
            }
            Leaf::U64 => {
                let $put = l::put_int::<u64>;
                $body
            }
            Leaf::U128 => {
                let $put = l::put_int::<u128>;
                $body
            }
            Leaf::U256 => {
                let $put = l::put_int::<ethnum::U256>;
                $body
            }
            Leaf::I8 => {
                let $put = l::put_int::<i8>;
                $body
            }
            Leaf::I16 => {
                let $put = l::put_int::<i16>;
                $body
            }
            Leaf::I32 => {
                let $put = l::put_int::<i32>;
                $body
            }
            Leaf::I64 => {
                let $put = l::put_int::<i64>;
                $body
            }
            Leaf::I128 => {
                let $put = l::put_int::<i128>;
                $body
            }
            Leaf::I256 => {
                let $put = l::put_int::<ethnum::I256>;
                $body
            }
            Leaf::F32 => {
                let $put = l::put_f32;
                $body
            }
            Leaf::F64 => {
                let $put = l::put_f64;
                $body
            }
            Leaf::F32OrNan => {
                let $put = l::put_f32_or_nan;
                $body
            }
            Leaf::F64OrNan => {
                let $put = l::put_f64_or_nan;
                $body
            }
            Leaf::Decimal { precision, scale } => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_decimal(v, *precision, *scale, out);
                $body
            }
            Leaf::Bool => {
                let $put = l::put_bool;
                $body
            }
            Leaf::String => {
                let $put = l::put_string;
                $body
            }
            Leaf::FixedString(len) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_fixed(v, *len, out);
                $body
            }
            Leaf::Uuid => {
                let $put = l::put_uuid;
                $body
            }
            Leaf::Date(rule) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_time(v, out, |v| l::date(v, rule));
                $body
            }
            Leaf::Date32(rule) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_time(v, out, |v| l::date_32(v, rule));
                $body
            }
            Leaf::DateTime(rule) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_time(v, out, |v| l::date_time(v, rule));
                $body
            }
            Leaf::DateTime64(rule, precision) => {
                let $put =
                    |v: Value<'_>, out: &mut Vec<u8>| l::put_time(v, out, |v| l::date_time_64(v, rule, *precision));
                $body
            }
            Leaf::Enum8(names) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_enum8(v, names, out);
                $body
            }
            Leaf::Enum16(names) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_enum16(v, names, out);
                $body
            }
            Leaf::Ipv4 => {
                let $put = l::put_ipv4;
                $body
            }
            Leaf::Ipv6 => {
                let $put = l::put_ipv6;
                $body
            }
            Leaf::Json(rule) => {
                let $put = |v: Value<'_>, out: &mut Vec<u8>| l::put_json(v, rule, out);
                $body
            }
        }
    }};
}
pub(super) use with_writer;

pub(super) fn date(value: Value<'_>, rule: &TimeRule) -> Result<[u8; 2], Misfit> {
    instant::date(value, rule).map(u16::to_le_bytes)
}

pub(super) fn date_32(value: Value<'_>, rule: &TimeRule) -> Result<[u8; 4], Misfit> {
    instant::date_32(value, rule).map(i32::to_le_bytes)
}

#[inline]
pub(super) fn date_time(value: Value<'_>, rule: &TimeRule) -> Result<[u8; 4], Misfit> {
    instant::date_time(value, rule).map(u32::to_le_bytes)
}

#[inline]
pub(super) fn date_time_64(value: Value<'_>, rule: &TimeRule, precision: u8) -> Result<[u8; 8], Misfit> {
    instant::date_time_64(value, rule, precision).map(i64::to_le_bytes)
}

impl Leaf {
    /// Writes a value that is not null.
    pub fn put(&self, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        with_writer!(self, put => put(value, out))
    }

    /// Writes the type's default: also the placeholder of a null.
    #[inline]
    pub fn put_default(&self, out: &mut Vec<u8>) {
        match self {
            Leaf::String => out.push(0),
            Leaf::Json(_) => out.extend_from_slice(b"\x02{}"),
            Leaf::Enum8(names) => out.push(names.lowest() as u8),
            Leaf::Enum16(names) => out.extend_from_slice(&names.lowest().to_le_bytes()),
            fixed => out.resize(out.len() + fixed.width(), 0),
        }
    }

    /// One cell's bytes as JSON that the server reads back as the same value, whatever its settings: times as ticks,
    /// which no zone moves; decimals and wide integers between quotes, past its doubles.
    pub(super) fn shown(&self, cell: &[u8]) -> Shown {
        let plain = |number: &dyn std::fmt::Display| Shown::Plain(number.to_string());
        let date = |days: i64| {
            let midnight = Moment { seconds: days * 86_400, nanos: 0 }.to_rfc3339();
            Shown::Text(midnight[..10].to_owned())
        };
        match self {
            Leaf::U8 => plain(&u8::from_le_bytes(cell_of(cell))),
            Leaf::U16 => plain(&u16::from_le_bytes(cell_of(cell))),
            Leaf::U32 | Leaf::DateTime(_) => plain(&u32::from_le_bytes(cell_of(cell))),
            Leaf::U64 => plain(&u64::from_le_bytes(cell_of(cell))),
            Leaf::U128 => Shown::Text(u128::from_le_bytes(cell_of(cell)).to_string()),
            Leaf::U256 => Shown::Text(U256::from_le_bytes(cell_of(cell)).to_string()),
            Leaf::I8 => plain(&i8::from_le_bytes(cell_of(cell))),
            Leaf::I16 => plain(&i16::from_le_bytes(cell_of(cell))),
            Leaf::I32 => plain(&i32::from_le_bytes(cell_of(cell))),
            Leaf::I64 | Leaf::DateTime64(..) => plain(&i64::from_le_bytes(cell_of(cell))),
            Leaf::I128 => Shown::Text(i128::from_le_bytes(cell_of(cell)).to_string()),
            Leaf::I256 => Shown::Text(I256::from_le_bytes(cell_of(cell)).to_string()),
            // The exponent keeps a large one from being read as an integer.
            Leaf::F32 | Leaf::F32OrNan => Shown::Plain(format!("{:e}", f64::from(f32::from_le_bytes(cell_of(cell))))),
            Leaf::F64 | Leaf::F64OrNan => Shown::Plain(format!("{:e}", f64::from_le_bytes(cell_of(cell)))),
            Leaf::Decimal { scale, .. } => Shown::Text(shown_decimal(cell, usize::from(*scale))),
            Leaf::Bool => plain(&(cell[0] != 0)),
            Leaf::String => Shown::Text(String::from_utf8_lossy(behind_len(cell)).into_owned()),
            Leaf::FixedString(_) => {
                let len = cell.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                Shown::Text(String::from_utf8_lossy(&cell[..len]).into_owned())
            }
            Leaf::Uuid => {
                let half = |at: usize| u64::from_le_bytes(cell_of(&cell[at..at + 8]));
                let digits = format!("{:016x}{:016x}", half(0), half(8));
                let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
                Shown::Text(parts.join("-"))
            }
            Leaf::Date(_) => date(i64::from(u16::from_le_bytes(cell_of(cell)))),
            Leaf::Date32(_) => date(i64::from(i32::from_le_bytes(cell_of(cell)))),
            Leaf::Enum8(names) => Shown::Text(names.name(i16::from(cell[0] as i8))),
            Leaf::Enum16(names) => Shown::Text(names.name(i16::from_le_bytes(cell_of(cell)))),
            Leaf::Ipv4 => Shown::Text(Ipv4Addr::from(u32::from_le_bytes(cell_of(cell))).to_string()),
            Leaf::Ipv6 => Shown::Text(Ipv6Addr::from(cell_of::<16>(cell)).to_string()),
            Leaf::Json(_) => Shown::Plain(String::from_utf8_lossy(behind_len(cell)).into_owned()),
        }
    }

    /// Bytes per value; 0 for texts.
    fn width(&self) -> usize {
        match self {
            Leaf::String | Leaf::Json(_) => 0,
            Leaf::U8 | Leaf::I8 | Leaf::Bool | Leaf::Enum8(_) => 1,
            Leaf::U16 | Leaf::I16 | Leaf::Date(_) | Leaf::Enum16(_) => 2,
            Leaf::U32 | Leaf::I32 | Leaf::F32 | Leaf::F32OrNan => 4,
            Leaf::Date32(_) | Leaf::DateTime(_) | Leaf::Ipv4 => 4,
            Leaf::U64 | Leaf::I64 | Leaf::F64 | Leaf::F64OrNan | Leaf::DateTime64(..) => 8,
            Leaf::U128 | Leaf::I128 | Leaf::Uuid | Leaf::Ipv6 => 16,
            Leaf::U256 | Leaf::I256 => 32,
            Leaf::FixedString(len) => *len,
            Leaf::Decimal { precision, .. } => decimal_width(*precision),
        }
    }
}

fn cell_of<const WIDTH: usize>(cell: &[u8]) -> [u8; WIDTH] {
    cell.try_into().expect("a cell has the width of its type")
}

/// The text behind its length.
fn behind_len(cell: &[u8]) -> &[u8] {
    let len_bytes = cell.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    &cell[len_bytes..]
}

fn shown_decimal(cell: &[u8], scale: usize) -> String {
    let sign = if cell.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [sign; 32];
    wide[..cell.len()].copy_from_slice(cell);
    let value = I256::from_le_bytes(wide);
    let digits = format!("{:0>width$}", value.unsigned_abs().to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value.is_negative() { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn decimal_width(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        _ => 32,
    }
}

/// A whole number of some width.
pub(super) trait Int: Sized + Copy {
    fn from_small(value: i64) -> Option<Self>;
    fn from_text(text: &[u8]) -> Result<Self, exact::Misfit>;
    fn append(self, out: &mut Vec<u8>);
}

macro_rules! ints {
    ($($type:ty, $wide:ident;)*) => {$(
        impl Int for $type {
            #[inline(always)]
            fn from_small(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }

            fn from_text(text: &[u8]) -> Result<Self, exact::Misfit> {
                Self::try_from(exact::$wide(text)?).map_err(|_| exact::Misfit::OutOfRange)
            }

            #[inline(always)]
            fn append(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

ints! {
    u8, to_u64; u16, to_u64; u32, to_u64; u64, to_u64; u128, to_u128; U256, to_u256;
    i8, to_i64; i16, to_i64; i32, to_i64; i64, to_i64; i128, to_i128; I256, to_i256;
}

#[inline(always)]
pub(super) fn put_int<T: Int>(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let int = match value {
        Value::Number(text) | Value::Text(text) => match number::small(text) {
            Some((small, 0)) => T::from_small(small).ok_or(Misfit::OutOfRange)?,
            _ => T::from_text(text)?,
        },
        Value::Int(small) => T::from_small(small).ok_or(Misfit::OutOfRange)?,
        Value::Bool(truth) => T::from_small(i64::from(truth)).ok_or(Misfit::OutOfRange)?,
        Value::Escaped(text) => return unescaped(text, out, put_int::<T>),
        _ => return Err(Misfit::Kind),
    };
    int.append(out);
    Ok(())
}

#[inline(always)]
pub(super) fn put_f64(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let float = match value {
        Value::Number(text) | Value::Text(text) => match number::small_float(text) {
            Some(float) => float,
            None => exact::to_f64(text)?,
        },
        Value::Int(int) => int as f64,
        Value::Escaped(text) => return unescaped(text, out, put_f64),
        _ => return Err(Misfit::Kind),
    };
    out.extend_from_slice(&float.to_le_bytes());
    Ok(())
}

#[inline(always)]
pub(super) fn put_f32(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let float = match value {
        Value::Number(text) | Value::Text(text) => exact::to_f32(text)?,
        Value::Int(int) => int as f32,
        Value::Escaped(text) => return unescaped(text, out, put_f32),
        _ => return Err(Misfit::Kind),
    };
    out.extend_from_slice(&float.to_le_bytes());
    Ok(())
}

pub(super) fn put_f32_or_nan(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Some(float) = named_float(value) else { return put_f32(value, out) };
    out.extend_from_slice(&(float as f32).to_le_bytes());
    Ok(())
}

pub(super) fn put_f64_or_nan(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Some(float) = named_float(value) else { return put_f64(value, out) };
    out.extend_from_slice(&float.to_le_bytes());
    Ok(())
}

/// What the server writes in quotes, because JSON has no such numbers.
fn named_float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Text(b"nan" | b"-nan") => Some(f64::NAN),
        Value::Text(b"inf") => Some(f64::INFINITY),
        Value::Text(b"-inf") => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

#[inline(always)]
pub(super) fn put_decimal(value: Value<'_>, precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Number(text) | Value::Text(text) => match number::small(text) {
            Some((digits, fraction)) if precision <= 18 && fraction <= u32::from(scale) => {
                let scaled = digits.checked_mul(number::pow10(u32::from(scale) - fraction));
                put_short_decimal(scaled.ok_or(Misfit::OutOfRange)?, precision, out)
            }
            _ => put_long_decimal(text, precision, scale, out),
        },
        Value::Int(int) => put_long_decimal(int.to_string().as_bytes(), precision, scale, out),
        Value::Escaped(text) => unescaped(text, out, |value, out| put_decimal(value, precision, scale, out)),
        _ => Err(Misfit::Kind),
    }
}

#[inline(always)]
fn put_short_decimal(scaled: i64, precision: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if scaled.unsigned_abs() >= number::pow10(u32::from(precision)).unsigned_abs() {
        return Err(Misfit::OutOfRange);
    }
    if precision <= 9 {
        out.extend_from_slice(&(scaled as i32).to_le_bytes());
    } else {
        out.extend_from_slice(&scaled.to_le_bytes());
    }
    Ok(())
}

fn put_long_decimal(text: &[u8], precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let value = exact::Decimal::parse(text).ok_or(Misfit::Kind)?;
    let (precision, scale) = (u32::from(precision), u32::from(scale));
    let width = decimal_width(precision as u8);
    if width == 32 {
        out.extend_from_slice(&value.decimal_i256(precision, scale)?.to_le_bytes());
    } else {
        // The precision was checked, so the bytes above the width hold only the sign.
        out.extend_from_slice(&value.decimal_i128(precision, scale)?.to_le_bytes()[..width]);
    }
    Ok(())
}

pub(super) fn put_bool(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let truth = match value {
        Value::Bool(truth) => truth,
        Value::Text(b"true") | Value::Int(1) => true,
        Value::Text(b"false") | Value::Int(0) => false,
        Value::Number(text) => match exact::to_i64(text) {
            Ok(0) => false,
            Ok(1) => true,
            _ => return Err(Misfit::OutOfRange),
        },
        Value::Escaped(text) => return unescaped(text, out, put_bool),
        _ => return Err(Misfit::Kind),
    };
    out.push(u8::from(truth));
    Ok(())
}

#[inline(always)]
pub(super) fn put_string(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Text(text) | Value::Number(text) | Value::Array(text) | Value::Object(text) | Value::Bytes(text) => {
            put_text(text, out)
        }
        Value::Escaped(text) => return unescaped(text, out, put_string),
        Value::Bool(true) => put_text(b"true", out),
        Value::Bool(false) => put_text(b"false", out),
        Value::Int(int) => put_text(int.to_string().as_bytes(), out),
        Value::Absent | Value::Null => return Err(Misfit::Null),
    }
    Ok(())
}

/// A text with its length in front (LEB128).
#[inline(always)]
pub fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put_len(text.len(), out);
    out.extend_from_slice(text);
}

/// A length as LEB128: seven bits a byte, the lowest first.
#[inline(always)]
pub fn put_len(mut len: usize, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

pub(super) fn put_fixed(value: Value<'_>, len: usize, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Text(text) | Value::Bytes(text) if text.len() <= len => {
            out.extend_from_slice(text);
            out.resize(out.len() + len - text.len(), 0);
            Ok(())
        }
        Value::Text(_) | Value::Bytes(_) => Err(Misfit::TooLong),
        Value::Escaped(text) => unescaped(text, out, |value, out| put_fixed(value, len, out)),
        _ => Err(Misfit::Kind),
    }
}

#[inline(always)]
pub(super) fn put_uuid(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Value::Text(text) = value else {
        return match value {
            Value::Escaped(text) => unescaped(text, out, put_uuid),
            _ => Err(Misfit::Kind),
        };
    };
    let is_dashed = |text: &[u8; 36]| text[8] == b'-' && text[13] == b'-' && text[18] == b'-' && text[23] == b'-';
    let (high, low, wrong) = if let Ok(text) = <&[u8; 36]>::try_from(text)
        && is_dashed(text)
    {
        hex_128(text, &DASHED_PLACES)
    } else if let Ok(text) = <&[u8; 32]>::try_from(text) {
        hex_128(text, &PLAIN_PLACES)
    } else {
        return Err(Misfit::Kind);
    };
    if wrong & 0x80 != 0 {
        return Err(Misfit::Kind);
    }
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
    Ok(())
}

/// Where the 32 digits of a UUID stand, with dashes and without.
const DASHED_PLACES: [u8; 32] = uuid_places(true);
const PLAIN_PLACES: [u8; 32] = uuid_places(false);

const fn uuid_places(dashed: bool) -> [u8; 32] {
    let mut places = [0; 32];
    let mut at = 0;
    while at < 32 {
        let dashes = if dashed { (at >= 8) as u8 + (at >= 12) as u8 + (at >= 16) as u8 + (at >= 20) as u8 } else { 0 };
        places[at] = at as u8 + dashes;
        at += 1;
    }
    places
}

/// The two halves of a UUID; the third number has its highest bit set where a digit is none.
#[inline(always)]
fn hex_128<const LEN: usize>(text: &[u8; LEN], places: &[u8; 32]) -> (u64, u64, u8) {
    let (mut high, mut low, mut wrong) = (0u64, 0u64, 0u8);
    let mut at = 0;
    while at < 16 {
        let (left, right) = (HEX[text[places[at] as usize] as usize], HEX[text[places[at + 16] as usize] as usize]);
        wrong |= left | right;
        high = high << 4 | (left & 15) as u64;
        low = low << 4 | (right & 15) as u64;
        at += 1;
    }
    (high, low, wrong)
}

/// The value of a hexadecimal digit; 0x80 for what is none.
const HEX: [u8; 256] = {
    let mut table = [0x80; 256];
    let mut at = 0;
    while at < 16 {
        table[b"0123456789abcdef"[at] as usize] = at as u8;
        table[b"0123456789ABCDEF"[at] as usize] = at as u8;
        at += 1;
    }
    table
};

/// A time of any column: `read` gives its bytes.
#[inline(always)]
pub(super) fn put_time<const WIDTH: usize>(
    value: Value<'_>,
    out: &mut Vec<u8>,
    read: impl Fn(Value<'_>) -> Result<[u8; WIDTH], Misfit>,
) -> Result<(), Misfit> {
    let bytes = match value {
        Value::Escaped(_) => read(Value::Text(&value.meant().expect("escaped text is text")))?,
        other => read(other)?,
    };
    out.extend_from_slice(&bytes);
    Ok(())
}

pub(super) fn put_enum8(value: Value<'_>, names: &Names, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Text(name) => out.push(names.value(name)? as u8),
        Value::Escaped(text) => return unescaped(text, out, |value, out| put_enum8(value, names, out)),
        _ => return Err(Misfit::Kind),
    }
    Ok(())
}

pub(super) fn put_enum16(value: Value<'_>, names: &Names, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match value {
        Value::Text(name) => out.extend_from_slice(&names.value(name)?.to_le_bytes()),
        Value::Escaped(text) => return unescaped(text, out, |value, out| put_enum16(value, names, out)),
        _ => return Err(Misfit::Kind),
    }
    Ok(())
}

pub(super) fn put_ipv4(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let address: Ipv4Addr = address(value)?;
    out.extend_from_slice(&u32::from(address).to_le_bytes());
    Ok(())
}

pub(super) fn put_ipv6(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let octets = match address::<Ipv6Addr>(value) {
        Ok(address) => address.octets(),
        Err(_) => address::<Ipv4Addr>(value)?.to_ipv6_mapped().octets(),
    };
    out.extend_from_slice(&octets);
    Ok(())
}

fn address<T: std::str::FromStr>(value: Value<'_>) -> Result<T, Misfit> {
    let text = value.meant().ok_or(Misfit::Kind)?;
    std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or(Misfit::Kind)
}

pub(super) fn put_json(value: Value<'_>, rule: &JsonRule, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Value::Object(text) = value else {
        return Err(Misfit::Kind);
    };
    let mut written = Vec::with_capacity(text.len());
    rule.write(text, &mut written)?;
    put_text(&written, out);
    Ok(())
}

/// Writes a text with escapes as the plain text that it stands for. Rare, so it may allocate.
#[cold]
fn unescaped(
    text: &[u8],
    out: &mut Vec<u8>,
    put: impl Fn(Value<'_>, &mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    let plain = Value::Escaped(text).meant().expect("escaped text is text");
    put(Value::Text(&plain), out)
}
