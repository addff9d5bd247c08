//! ClickHouse types: the text of `system.columns` as a value.
//!
//! Owns the grammar of type text. Promises: what parses can be encoded and prints as text that the server reads
//! back as the same type; what cannot be encoded is an error that names the type. Never talks to a server.

mod parse;

use std::fmt;

/// A column type that the encoder can write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    /// `bits` is 8, 16, 32, 64, 128 or 256.
    Int {
        bits: u16,
        signed: bool,
    },
    /// `bits` is 32 or 64.
    Float {
        bits: u16,
    },
    /// `precision` is 1 to 76, `scale` at most `precision`.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bool,
    String,
    FixedString(usize),
    Uuid,
    Date,
    Date32,
    DateTime {
        zone: Option<String>,
    },
    /// Ticks of 10^-`precision` seconds.
    DateTime64 {
        precision: u8,
        zone: Option<String>,
    },
    /// `bits` is 8 or 16; names and values in the declared order, at least one.
    Enum {
        bits: u16,
        values: Vec<(String, i16)>,
    },
    Ipv4,
    Ipv6,
    Array(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// At least one element; either every one has a name or none.
    Tuple(Vec<Element>),
    /// `Nested(...)` of a table made with `flatten_nested = 0`.
    Nested(Vec<Element>),
    Nullable(Box<Type>),
    LowCardinality(Box<Type>),
    /// The text between the parentheses, as it stands; types of declared paths.
    Json {
        args: String,
        typed_paths: Vec<(String, Type)>,
    },
    /// `SimpleAggregateFunction(f, T)`: the function's text and T.
    SimpleAggregate(String, Box<Type>),
}

/// One element of a tuple or of an unflattened Nested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    pub name: Option<String>,
    pub of: Type,
}

impl Type {
    /// Reads the type text of `system.columns`. The error is a piece of a sentence: "type `Variant(…)` is not …".
    pub fn parse(text: &str) -> Result<Type, String> {
        parse::parse(text)
    }

    /// The type whose values a column of this type holds: without LowCardinality and SimpleAggregateFunction.
    pub fn value_type(&self) -> &Type {
        match self {
            Type::LowCardinality(inner) | Type::SimpleAggregate(_, inner) => inner.value_type(),
            other => other,
        }
    }

    /// The type whose values it holds, null apart.
    pub fn without_null(&self) -> &Type {
        match self.value_type() {
            Type::Nullable(inner) => inner.value_type(),
            plain => plain,
        }
    }

    /// The types that a container, or a wrapper, is made of.
    pub fn parts(&self) -> Vec<&Type> {
        match self {
            Type::Array(inner)
            | Type::Nullable(inner)
            | Type::LowCardinality(inner)
            | Type::SimpleAggregate(_, inner) => vec![inner],
            Type::Map(key, value) => vec![key, value],
            Type::Tuple(elements) | Type::Nested(elements) => elements.iter().map(|element| &element.of).collect(),
            Type::Json { typed_paths, .. } => typed_paths.iter().map(|(_, of)| of).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a null can be stored.
    pub fn is_nullable(&self) -> bool {
        matches!(self.value_type(), Type::Nullable(_))
    }

    /// Whether `Nullable(T)` exists for this type on every server.
    pub fn can_be_nullable(&self) -> bool {
        !matches!(
            self.value_type(),
            Type::Array(_) | Type::Map(..) | Type::Tuple(_) | Type::Nested(_) | Type::Nullable(_) | Type::Json { .. }
        )
    }

    /// The type as it goes over the wire: the same values in the plainest column, which the server casts without
    /// loss. LowCardinality is sent as its inner type, JSON as text.
    pub fn wire(&self) -> Type {
        let elements = |elements: &[Element]| {
            elements.iter().map(|element| Element { name: element.name.clone(), of: element.of.wire() }).collect()
        };
        match self {
            Type::LowCardinality(inner) | Type::SimpleAggregate(_, inner) => inner.wire(),
            Type::Json { .. } => Type::String,
            Type::Array(inner) => Type::Array(Box::new(inner.wire())),
            Type::Nullable(inner) => Type::Nullable(Box::new(inner.wire())),
            Type::Map(key, value) => Type::Map(Box::new(key.wire()), Box::new(value.wire())),
            Type::Tuple(inner) => Type::Tuple(elements(inner)),
            Type::Nested(inner) => Type::Array(Box::new(Type::Tuple(elements(inner)))),
            scalar => scalar.clone(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Int { bits, signed } => write!(f, "{}Int{bits}", if *signed { "" } else { "U" }),
            Type::Float { bits } => write!(f, "Float{bits}"),
            Type::Decimal { precision, scale } => write!(f, "Decimal({precision}, {scale})"),
            Type::Bool => f.write_str("Bool"),
            Type::String => f.write_str("String"),
            Type::FixedString(len) => write!(f, "FixedString({len})"),
            Type::Uuid => f.write_str("UUID"),
            Type::Date => f.write_str("Date"),
            Type::Date32 => f.write_str("Date32"),
            Type::DateTime { zone: None } => f.write_str("DateTime"),
            Type::DateTime { zone: Some(zone) } => write!(f, "DateTime({})", quoted(zone)),
            Type::DateTime64 { precision, zone: None } => write!(f, "DateTime64({precision})"),
            Type::DateTime64 { precision, zone: Some(zone) } => write!(f, "DateTime64({precision}, {})", quoted(zone)),
            Type::Enum { bits, values } => {
                write!(f, "Enum{bits}(")?;
                separated(f, values, |f, (name, value)| write!(f, "{} = {value}", quoted(name)))
            }
            Type::Ipv4 => f.write_str("IPv4"),
            Type::Ipv6 => f.write_str("IPv6"),
            Type::Array(inner) => write!(f, "Array({inner})"),
            Type::Map(key, value) => write!(f, "Map({key}, {value})"),
            Type::Tuple(elements) => {
                f.write_str("Tuple(")?;
                separated(f, elements, write_element)
            }
            Type::Nested(elements) => {
                f.write_str("Nested(")?;
                separated(f, elements, write_element)
            }
            Type::Nullable(inner) => write!(f, "Nullable({inner})"),
            Type::LowCardinality(inner) => write!(f, "LowCardinality({inner})"),
            Type::Json { args, .. } if args.is_empty() => f.write_str("JSON"),
            Type::Json { args, .. } => write!(f, "JSON({args})"),
            Type::SimpleAggregate(function, inner) => write!(f, "SimpleAggregateFunction({function}, {inner})"),
        }
    }
}

fn write_element(f: &mut fmt::Formatter<'_>, element: &Element) -> fmt::Result {
    match &element.name {
        Some(name) => write!(f, "{} {}", identifier(name), element.of),
        None => write!(f, "{}", element.of),
    }
}

/// Writes the items with commas between them, and the closing parenthesis.
fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    f.write_str(")")
}

/// A text as a ClickHouse string literal.
pub fn quoted(text: &str) -> String {
    enclose(text, '\'')
}

/// A name as a ClickHouse identifier, in backquotes.
pub fn identifier(name: &str) -> String {
    enclose(name, '`')
}

fn enclose(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_type_prints_as_it_was_read() {
        for text in [
            "UInt8",
            "Int256",
            "Float32",
            "Decimal(10, 2)",
            "Bool",
            "String",
            "FixedString(16)",
            "UUID",
            "Date",
            "Date32",
            "DateTime",
            "DateTime('Europe/Berlin')",
            "DateTime64(3)",
            "DateTime64(9, 'UTC')",
            "Enum8('a' = 1, 'it\\'s' = -2)",
            "Enum16('x, y' = 300)",
            "IPv4",
            "IPv6",
            "Array(Array(Nullable(String)))",
            "Map(LowCardinality(String), Array(UInt64))",
            "Tuple(UInt8, String)",
            "Tuple(`a` UInt8, `b c` Nullable(Decimal(38, 9)))",
            "Nested(`k` String, `v` UInt32)",
            "LowCardinality(Nullable(String))",
            "JSON",
            "JSON(max_dynamic_paths=16, a.b UInt32, SKIP c.d, SKIP REGEXP 'x.*')",
            "SimpleAggregateFunction(sum, UInt64)",
            "SimpleAggregateFunction(groupArrayLastArray(3), Array(String))",
        ] {
            assert_eq!(Type::parse(text).map(|parsed| parsed.to_string()).as_deref(), Ok(text), "{text}");
        }
    }

    #[test]
    fn plain_names_and_sized_decimals_are_read() {
        let tuple = Type::parse("Tuple(a UInt8, b String)").unwrap();
        assert_eq!(tuple.to_string(), "Tuple(`a` UInt8, `b` String)");
        assert_eq!(Type::parse("Decimal64(4)"), Ok(Type::Decimal { precision: 18, scale: 4 }));
        let json = Type::parse("JSON(a.b UInt32, c LowCardinality(String))").unwrap();
        let Type::Json { typed_paths, .. } = json else { panic!("not JSON") };
        assert_eq!(typed_paths[0], ("a.b".to_owned(), Type::Int { bits: 32, signed: false }));
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        for (text, named) in [
            ("Variant(String, UInt8)", "Variant"),
            ("Array(Dynamic)", "Dynamic"),
            ("IntervalDay", "IntervalDay"),
            ("Time64(3)", "Time64"),
            ("AggregateFunction(sum, UInt64)", "AggregateFunction"),
            ("Int24", "Int24"),
            ("Decimal(80, 2)", "Decimal(80, 2)"),
            ("Array(String", "Array(String"),
        ] {
            let error = Type::parse(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_wire_carries_plain_columns() {
        let wire = |text: &str| Type::parse(text).unwrap().wire().to_string();
        assert_eq!(
            wire("Map(LowCardinality(String), LowCardinality(Nullable(String)))"),
            "Map(String, Nullable(String))"
        );
        assert_eq!(wire("JSON(max_dynamic_paths=16)"), "String");
        assert_eq!(wire("Nested(a UInt8)"), "Array(Tuple(`a` UInt8))");
        assert_eq!(wire("SimpleAggregateFunction(max, LowCardinality(String))"), "String");
    }
}
