//! A column's buffers in the layout of ClickHouse's Native format, containers included.
//!
//! ```text
//! Nullable(T)   null bytes, then T with a placeholder per null
//! Array(T)      u64 end of each array, then T flat
//! Map(K, V)     u64 end of each map, all keys, all values
//! Tuple(T…)     one column after the other
//! ```
//! Promises: after a value that did not fit, the buffers can be cut back to what they were before.

use super::Misfit;
use super::instant::TimeRule;
use super::json::{Elements, Pairs, Value};
use super::leaf::{Leaf, Names};
use super::object::JsonRule;
use crate::codec::time::Zone;
use crate::config::plan::ColumnUnit;
use crate::sink::clickhouse::types::{Element, Type};

/// The values collected for one column, or for the inside of a container.
#[derive(Clone, Debug)]
pub struct Column {
    /// One byte per value, 1 for null; `None`: cannot hold one.
    pub(super) nulls: Option<Vec<u8>>,
    pub(super) shape: Shape,
}

#[derive(Clone, Debug)]
pub(super) enum Shape {
    Leaf {
        leaf: Leaf,
        bytes: Vec<u8>,
    },
    Array {
        ends: Vec<u64>,
        of: Box<Column>,
        takes: ArrayForm,
    },
    Map {
        ends: Vec<u64>,
        key: Box<Column>,
        value: Box<Column>,
    },
    /// Names are empty where the elements have none.
    Tuple {
        names: Vec<Box<[u8]>>,
        of: Vec<Column>,
    },
}

/// What an array column takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ArrayForm {
    Arrays,
    /// Unflattened Nested: arrays of objects, or an object of arrays of equal length.
    ArraysOrColumns,
}

impl Column {
    /// An empty column for values of a type. `rule` says how times in it are read; a column's own zone wins over
    /// `server_zone` and loses against the rule's.
    pub fn of(of: &Type, rule: &ColumnRule) -> Result<Column, String> {
        if let Type::Nullable(inner) = of {
            let mut column = Column::of(inner, rule)?;
            column.nulls = Some(Vec::new());
            return Ok(column);
        }
        let shape = match of {
            Type::Nullable(_) => unreachable!("handled above"),
            Type::LowCardinality(inner) | Type::SimpleAggregate(_, inner) => return Column::of(inner, rule),
            Type::Array(inner) => Shape::array(Column::of(inner, rule)?, ArrayForm::Arrays),
            Type::Nested(elements) => {
                let tuple = Column { nulls: None, shape: Shape::tuple(elements, rule)? };
                Shape::array(tuple, ArrayForm::ArraysOrColumns)
            }
            Type::Map(key, value) => Shape::Map {
                ends: Vec::new(),
                key: Box::new(Column::of(key, rule)?),
                value: Box::new(Column::of(value, rule)?),
            },
            Type::Tuple(elements) => Shape::tuple(elements, rule)?,
            scalar => Shape::Leaf { leaf: leaf(scalar, rule)?, bytes: Vec::new() },
        };
        Ok(Column { nulls: None, shape })
    }

    /// A column that holds one row: a value as the server writes it, by its own rules alone.
    pub fn of_constant(of: &Type, rule: &ColumnRule, text: &[u8]) -> Result<Column, String> {
        let shown = String::from_utf8_lossy(text);
        let unfit = || format!("its DEFAULT {shown} is none of its values");
        let rule = ColumnRule { unit: None, zone: None, takes_nan: true, ..rule.clone() };
        let mut column = Column::of(of, &rule)?;
        let value = Value::parse(text).map_err(|_| unfit())?;
        column.put(value).map_err(|_| unfit())?;
        Ok(column)
    }

    /// Appends the rows of another column of the same type.
    pub(super) fn append(&mut self, other: &Column) {
        if let (Some(nulls), Some(its_nulls)) = (&mut self.nulls, &other.nulls) {
            nulls.extend_from_slice(its_nulls);
        }
        match (&mut self.shape, &other.shape) {
            (Shape::Leaf { bytes, .. }, Shape::Leaf { bytes: its_bytes, .. }) => bytes.extend_from_slice(its_bytes),
            (Shape::Array { ends, of, .. }, Shape::Array { ends: its_ends, of: its_of, .. }) => {
                append_ends(ends, its_ends);
                of.append(its_of);
            }
            (Shape::Map { ends, key, value }, Shape::Map { ends: its_ends, key: its_key, value: its_value }) => {
                append_ends(ends, its_ends);
                key.append(its_key);
                value.append(its_value);
            }
            (Shape::Tuple { of, .. }, Shape::Tuple { of: its_of, .. }) => {
                of.iter_mut().zip(its_of).for_each(|(column, its_column)| column.append(its_column));
            }
            _ => unreachable!("both are of one type"),
        }
    }

    /// Writes one value. After an error the column is to be cut back.
    pub fn put(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        if value.is_null() {
            if self.nulls.is_none() {
                return Err(Misfit::Null);
            }
            self.put_default();
            return Ok(());
        }
        if let Some(nulls) = &mut self.nulls {
            nulls.push(0);
        }
        match &mut self.shape {
            Shape::Leaf { leaf, bytes } => leaf.put(value, bytes),
            Shape::Array { ends, of, takes } => put_array(ends, of, *takes, value),
            Shape::Map { ends, key, value: of } => put_map(ends, key, of, value),
            Shape::Tuple { names, of } => put_tuple(names, of, value),
        }
    }

    /// Writes null where the column holds it, else the type's default.
    pub fn put_default(&mut self) {
        if let Some(nulls) = &mut self.nulls {
            nulls.push(1);
        }
        match &mut self.shape {
            Shape::Leaf { leaf, bytes } => leaf.put_default(bytes),
            Shape::Array { ends, .. } | Shape::Map { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
            Shape::Tuple { of, .. } => of.iter_mut().for_each(Column::put_default),
        }
    }

    /// Writes an array of `len` defaults. Only for array columns.
    pub fn put_defaults_array(&mut self, len: u64) {
        let Shape::Array { ends, of, .. } = &mut self.shape else {
            panic!("a member of a Nested is an array");
        };
        (0..len).for_each(|_| of.put_default());
        ends.push(ends.last().copied().unwrap_or(0) + len);
    }

    /// Writes an array with what `name` is in each of an array of objects. Only for array columns.
    pub fn put_transposed(&mut self, objects: &[u8], name: &[u8]) -> Result<(), Misfit> {
        let Shape::Array { ends, of, .. } = &mut self.shape else {
            panic!("a member of a Nested is an array");
        };
        let mut elements = Elements::of(objects);
        let mut len = 0;
        while let Some(element) = elements.next()? {
            put_element(of, element, name)?;
            len += 1;
        }
        ends.push(ends.last().copied().unwrap_or(0) + len);
        Ok(())
    }

    /// The length of the array that was written last. Only for array columns.
    pub fn last_len(&self) -> u64 {
        match &self.shape {
            Shape::Array { ends, .. } => match ends[..] {
                [.., before, last] => last - before,
                [only] => only,
                [] => 0,
            },
            _ => 0,
        }
    }

    /// Bytes collected.
    pub fn size_bytes(&self) -> usize {
        let nulls = self.nulls.as_ref().map_or(0, Vec::len);
        nulls
            + match &self.shape {
                Shape::Leaf { bytes, .. } => bytes.len(),
                Shape::Array { ends, of, .. } => ends.len() * 8 + of.size_bytes(),
                Shape::Map { ends, key, value } => ends.len() * 8 + key.size_bytes() + value.size_bytes(),
                Shape::Tuple { of, .. } => of.iter().map(Column::size_bytes).sum(),
            }
    }

    /// Notes the sizes of all buffers, for [`Column::cut`].
    pub fn note(&self, sizes: &mut Vec<usize>) {
        if let Some(nulls) = &self.nulls {
            sizes.push(nulls.len());
        }
        match &self.shape {
            Shape::Leaf { bytes, .. } => sizes.push(bytes.len()),
            Shape::Array { ends, of, .. } => {
                sizes.push(ends.len());
                of.note(sizes);
            }
            Shape::Map { ends, key, value } => {
                sizes.push(ends.len());
                key.note(sizes);
                value.note(sizes);
            }
            Shape::Tuple { of, .. } => of.iter().for_each(|column| column.note(sizes)),
        }
    }

    /// Cuts all buffers back to the sizes noted, in the same order.
    pub fn cut(&mut self, sizes: &mut dyn Iterator<Item = usize>) {
        if let Some(nulls) = &mut self.nulls {
            nulls.truncate(noted(sizes));
        }
        match &mut self.shape {
            Shape::Leaf { bytes, .. } => bytes.truncate(noted(sizes)),
            Shape::Array { ends, of, .. } => {
                ends.truncate(noted(sizes));
                of.cut(sizes);
            }
            Shape::Map { ends, key, value } => {
                ends.truncate(noted(sizes));
                key.cut(sizes);
                value.cut(sizes);
            }
            Shape::Tuple { of, .. } => of.iter_mut().for_each(|column| column.cut(sizes)),
        }
    }

    /// Empties the buffers and keeps their memory.
    pub fn clear(&mut self) {
        self.cut(&mut std::iter::repeat(0));
    }

    /// Hands out the column's data in the Native layout.
    pub fn write(&self, out: &mut impl FnMut(&[u8])) {
        if let Some(nulls) = &self.nulls {
            out(nulls);
        }
        match &self.shape {
            Shape::Leaf { bytes, .. } => out(bytes),
            Shape::Array { ends, of, .. } => {
                write_ends(ends, out);
                of.write(out);
            }
            Shape::Map { ends, key, value } => {
                write_ends(ends, out);
                key.write(out);
                value.write(out);
            }
            Shape::Tuple { of, .. } => of.iter().for_each(|column| column.write(out)),
        }
    }
}

fn append_ends(ends: &mut Vec<u64>, its_ends: &[u64]) {
    let before = ends.last().copied().unwrap_or(0);
    ends.extend(its_ends.iter().map(|end| before + end));
}

fn noted(sizes: &mut dyn Iterator<Item = usize>) -> usize {
    sizes.next().expect("every buffer was noted")
}

/// How values of a column are read, beyond its type.
#[derive(Clone, Debug)]
pub struct ColumnRule {
    pub unit: Option<ColumnUnit>,
    /// For text without an offset: wins over the column's own zone.
    pub zone: Option<String>,
    /// The server's zone, for columns without one.
    pub server_zone: String,
    /// Floats take `nan` and `inf`, as the server writes them; records have none.
    pub takes_nan: bool,
}

impl ColumnRule {
    fn time(&self, column_zone: &Option<String>, default_unit: Option<ColumnUnit>) -> Result<TimeRule, String> {
        let name = self.zone.as_ref().or(column_zone.as_ref()).unwrap_or(&self.server_zone);
        Ok(TimeRule { unit: self.unit.or(default_unit), zone: Zone::named(name)? })
    }
}

impl Shape {
    fn array(of: Column, takes: ArrayForm) -> Shape {
        Shape::Array { ends: Vec::new(), of: Box::new(of), takes }
    }

    fn tuple(elements: &[Element], rule: &ColumnRule) -> Result<Shape, String> {
        let names = elements.iter().filter_map(|element| Some(element.name.as_ref()?.as_bytes().into())).collect();
        let of = elements.iter().map(|element| Column::of(&element.of, rule)).collect::<Result<_, _>>()?;
        Ok(Shape::Tuple { names, of })
    }
}

fn leaf(of: &Type, rule: &ColumnRule) -> Result<Leaf, String> {
    Ok(match of {
        Type::Int { bits, signed } => int_leaf(*bits, *signed),
        Type::Float { bits } => float_leaf(*bits, rule.takes_nan),
        Type::Decimal { precision, scale } => Leaf::Decimal { precision: *precision, scale: *scale },
        Type::Bool => Leaf::Bool,
        Type::String => Leaf::String,
        Type::FixedString(len) => Leaf::FixedString(*len),
        Type::Uuid => Leaf::Uuid,
        Type::Date => Leaf::Date(rule.time(&None, None)?),
        Type::Date32 => Leaf::Date32(rule.time(&None, None)?),
        Type::DateTime { zone } => Leaf::DateTime(rule.time(zone, Some(ColumnUnit::Seconds))?),
        Type::DateTime64 { precision, zone } => Leaf::DateTime64(rule.time(zone, None)?, *precision),
        Type::Enum { bits: 8, values } => Leaf::Enum8(Names::of(values)),
        Type::Enum { values, .. } => Leaf::Enum16(Names::of(values)),
        Type::Ipv4 => Leaf::Ipv4,
        Type::Ipv6 => Leaf::Ipv6,
        Type::Json { typed_paths, .. } => Leaf::Json(json_rule(typed_paths, rule)?),
        container => unreachable!("{container} is no single value"),
    })
}

fn float_leaf(bits: u16, takes_nan: bool) -> Leaf {
    match (bits, takes_nan) {
        (32, false) => Leaf::F32,
        (32, true) => Leaf::F32OrNan,
        (_, false) => Leaf::F64,
        (_, true) => Leaf::F64OrNan,
    }
}

fn int_leaf(bits: u16, signed: bool) -> Leaf {
    match (bits, signed) {
        (8, false) => Leaf::U8,
        (16, false) => Leaf::U16,
        (32, false) => Leaf::U32,
        (64, false) => Leaf::U64,
        (128, false) => Leaf::U128,
        (_, false) => Leaf::U256,
        (8, true) => Leaf::I8,
        (16, true) => Leaf::I16,
        (32, true) => Leaf::I32,
        (64, true) => Leaf::I64,
        (128, true) => Leaf::I128,
        (_, true) => Leaf::I256,
    }
}

fn json_rule(typed_paths: &[(String, Type)], rule: &ColumnRule) -> Result<JsonRule, String> {
    let column = |(path, of): &(String, Type)| Ok((path.clone(), Column::of(of, rule)?));
    Ok(JsonRule { typed_paths: typed_paths.iter().map(column).collect::<Result<_, String>>()? })
}

fn write_ends(ends: &[u64], out: &mut impl FnMut(&[u8])) {
    let mut bytes = [0u8; 8 * 512];
    for chunk in ends.chunks(512) {
        for (at, end) in chunk.iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&end.to_le_bytes());
        }
        out(&bytes[..chunk.len() * 8]);
    }
}

fn put_array(ends: &mut Vec<u64>, of: &mut Column, takes: ArrayForm, value: Value<'_>) -> Result<(), Misfit> {
    let text = match value {
        Value::Array(text) => text,
        Value::Object(text) if takes == ArrayForm::ArraysOrColumns => return put_columns(ends, of, text),
        _ => return Err(Misfit::Kind),
    };
    let mut elements = Elements::of(text);
    let mut len = 0;
    while let Some(element) = elements.next()? {
        of.put(element)?;
        len += 1;
    }
    ends.push(ends.last().copied().unwrap_or(0) + len);
    Ok(())
}

/// An object of arrays into an unflattened Nested.
fn put_columns(ends: &mut Vec<u64>, of: &mut Column, text: &[u8]) -> Result<(), Misfit> {
    let Shape::Tuple { names, of: members } = &mut of.shape else {
        panic!("a Nested holds tuples");
    };
    let mut len = None;
    let mut absent = Vec::new();
    for (name, member) in names.iter().zip(members.iter_mut()) {
        match find(text, name)? {
            Value::Array(array) => {
                let mut elements = Elements::of(array);
                let mut count = 0u64;
                while let Some(element) = elements.next()? {
                    member.put(element)?;
                    count += 1;
                }
                if len.is_some_and(|len| len != count) {
                    return Err(Misfit::Lengths);
                }
                len = Some(count);
            }
            value if value.is_null() => absent.push(member),
            _ => return Err(Misfit::Kind),
        }
    }
    let len = len.unwrap_or(0);
    for member in absent {
        (0..len).for_each(|_| member.put_default());
    }
    ends.push(ends.last().copied().unwrap_or(0) + len);
    Ok(())
}

fn put_map(ends: &mut Vec<u64>, key: &mut Column, of: &mut Column, value: Value<'_>) -> Result<(), Misfit> {
    let Value::Object(text) = value else {
        return Err(Misfit::Kind);
    };
    let mut pairs = Pairs::of(text);
    let mut len = 0;
    while let Some((name, value)) = pairs.next()? {
        key.put(key_value(key, name))?;
        of.put(value)?;
        len += 1;
    }
    ends.push(ends.last().copied().unwrap_or(0) + len);
    Ok(())
}

/// A map's keys are texts in JSON; where epoch numbers are meant, the text is one.
fn key_value<'a>(key: &Column, name: Value<'a>) -> Value<'a> {
    match (&key.shape, name) {
        (
            Shape::Leaf { leaf: Leaf::Date(_) | Leaf::Date32(_) | Leaf::DateTime(_) | Leaf::DateTime64(..), .. },
            Value::Text(text),
        ) if super::number::small(text).is_some() => Value::Number(text),
        _ => name,
    }
}

fn put_tuple(names: &[Box<[u8]>], of: &mut [Column], value: Value<'_>) -> Result<(), Misfit> {
    match value {
        Value::Array(text) => {
            let mut elements = Elements::of(text);
            for column in of.iter_mut() {
                column.put(elements.next()?.ok_or(Misfit::Lengths)?)?;
            }
            if elements.next()?.is_some() { Err(Misfit::Lengths) } else { Ok(()) }
        }
        Value::Object(text) if names.len() == of.len() => {
            for (name, column) in names.iter().zip(of.iter_mut()) {
                put_or_default(column, find(text, name)?)?;
            }
            Ok(())
        }
        _ => Err(Misfit::Kind),
    }
}

/// One object of an array, of which a member of a Nested wants one name.
fn put_element(of: &mut Column, element: Value<'_>, name: &[u8]) -> Result<(), Misfit> {
    let Value::Object(text) = element else {
        return Err(Misfit::Kind);
    };
    put_or_default(of, find_member(text, name)?)
}

/// A name that is absent (or null, where null does not fit) takes the type's default.
fn put_or_default(column: &mut Column, value: Value<'_>) -> Result<(), Misfit> {
    if value.is_null() {
        column.put_default();
        return Ok(());
    }
    column.put(value)
}

/// What an object holds under the name of a member of a Nested, whose own dots may be a path.
fn find_member<'a>(object: &'a [u8], wanted: &[u8]) -> Result<Value<'a>, Misfit> {
    let found = find(object, wanted)?;
    let Some(dot) = wanted.iter().position(|byte| *byte == b'.').filter(|_| found == Value::Absent) else {
        return Ok(found);
    };
    match find(object, &wanted[..dot])? {
        Value::Object(inner) => find_member(inner, &wanted[dot + 1..]),
        _ => Ok(Value::Absent),
    }
}

/// What an object holds under a name; a name that is given twice is an error.
pub(super) fn find<'a>(object: &'a [u8], wanted: &[u8]) -> Result<Value<'a>, Misfit> {
    let mut pairs = Pairs::of(object);
    let mut found = None;
    while let Some((name, value)) = pairs.next()? {
        let same = name.meant().is_some_and(|name| *name == *wanted);
        if same && found.replace(value).is_some() {
            return Err(Misfit::GivenTwice);
        }
    }
    Ok(found.unwrap_or(Value::Absent))
}
