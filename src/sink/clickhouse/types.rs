//! ClickHouse types: the text of `system.columns` as a value.
//!
//! Owns the grammar of type text. Promises: what parses can be encoded and prints as text that the server reads
//! back as the same type; what cannot be encoded is an error that names the type. Never talks to a server.

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
        let mut parser = Parser { text, at: 0 };
        let parsed = parser.parse_type()?;
        parser.skip_blanks();
        match parser.rest() {
            "" => Ok(parsed),
            rest => Err(format!("type `{text}` goes on with `{rest}`, which weir does not understand")),
        }
    }

    /// The type whose values a column of this type holds: without LowCardinality and SimpleAggregateFunction.
    pub fn value_type(&self) -> &Type {
        match self {
            Type::LowCardinality(inner) | Type::SimpleAggregate(_, inner) => inner.value_type(),
            other => other,
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

/// What weir cannot write, by the first word of the type text.
const REFUSED: [&str; 16] = [
    "Variant",
    "Dynamic",
    "Time",
    "Time64",
    "AggregateFunction",
    "Object",
    "BFloat16",
    "QBit",
    "Nothing",
    "Point",
    "Ring",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "Geometry",
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_blanks();
        let there = self.rest().starts_with(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.eat(c) {
            return Ok(());
        }
        Err(format!("type `{}` lacks a `{c}` at `{}`", self.text, self.rest()))
    }

    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        self.skip_blanks();
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let len = sign + rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        self.at += len;
        rest[..len].parse().map_err(|_| format!("type `{}` lacks a number at `{rest}`", self.text))
    }

    /// A quoted text, with ClickHouse's escapes and doubled quotes.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.expect(quote)?;
        let mut out = Vec::new();
        let bytes = self.text.as_bytes();
        loop {
            let Some(&byte) = bytes.get(self.at) else {
                return Err(format!("type `{}` has a quote that does not close", self.text));
            };
            self.at += 1;
            if byte == quote as u8 {
                if bytes.get(self.at) != Some(&byte) {
                    break;
                }
                self.at += 1;
                out.push(byte);
            } else if byte == b'\\' {
                let escaped = bytes.get(self.at).copied().unwrap_or(b'\\');
                self.at += 1;
                match escaped {
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'0' => out.push(0),
                    b'b' => out.push(8),
                    b'f' => out.push(12),
                    b'a' => out.push(7),
                    b'v' => out.push(11),
                    b'x' => out.push(self.hex_byte()?),
                    other => out.push(other),
                }
            } else {
                out.push(byte);
            }
        }
        String::from_utf8(out).map_err(|_| format!("type `{}` has a name that is not UTF-8", self.text))
    }

    fn hex_byte(&mut self) -> Result<u8, String> {
        let digits = self.text.get(self.at..self.at + 2).unwrap_or_default();
        self.at += 2;
        u8::from_str_radix(digits, 16).map_err(|_| format!("type `{}` has a broken \\x escape", self.text))
    }

    fn parse_type(&mut self) -> Result<Type, String> {
        let name = self.word();
        if REFUSED.contains(&name) || name.starts_with("Interval") {
            return Err(format!(
                "type `{}` is not supported: weir does not write {name}; fill it with a DEFAULT from a column of \
                 another type",
                self.text
            ));
        }
        let parsed = match name {
            "Bool" | "Boolean" => Type::Bool,
            "String" => Type::String,
            "UUID" => Type::Uuid,
            "Date" => Type::Date,
            "Date32" => Type::Date32,
            "IPv4" => Type::Ipv4,
            "IPv6" => Type::Ipv6,
            "Float32" => Type::Float { bits: 32 },
            "Float64" => Type::Float { bits: 64 },
            "FixedString" => self.within(|parser| Ok(Type::FixedString(parser.number()?)))?,
            "DateTime" => Type::DateTime { zone: self.optional_zone()? },
            "DateTime64" => self.within(Parser::date_time_64)?,
            "Decimal" => self.within(Parser::decimal)?,
            "Decimal32" => self.decimal_of(9)?,
            "Decimal64" => self.decimal_of(18)?,
            "Decimal128" => self.decimal_of(38)?,
            "Decimal256" => self.decimal_of(76)?,
            "Enum8" => self.within(|parser| parser.enumeration(8))?,
            "Enum16" => self.within(|parser| parser.enumeration(16))?,
            "Array" => Type::Array(Box::new(self.within(Parser::parse_type)?)),
            "Nullable" => Type::Nullable(Box::new(self.within(Parser::parse_type)?)),
            "LowCardinality" => Type::LowCardinality(Box::new(self.within(Parser::parse_type)?)),
            "Map" => self.within(|parser| {
                let key = parser.parse_type()?;
                parser.expect(',')?;
                Ok(Type::Map(Box::new(key), Box::new(parser.parse_type()?)))
            })?,
            "Tuple" => Type::Tuple(self.within(Parser::elements)?),
            "Nested" => Type::Nested(self.within(Parser::elements)?),
            "JSON" => self.json()?,
            "SimpleAggregateFunction" => self.within(Parser::simple_aggregate)?,
            _ => match int_type(name) {
                Some(int) => int,
                None => return Err(format!("type `{}` is not one that weir knows", self.text)),
            },
        };
        Ok(parsed)
    }

    /// What stands between parentheses.
    fn within<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.expect('(')?;
        let inner = parse(self)?;
        self.expect(')')?;
        Ok(inner)
    }

    fn optional_zone(&mut self) -> Result<Option<String>, String> {
        if !self.eat('(') {
            return Ok(None);
        }
        let zone = self.quoted('\'')?;
        self.expect(')')?;
        Ok(Some(zone))
    }

    fn date_time_64(&mut self) -> Result<Type, String> {
        let precision: u8 = self.number()?;
        if precision > 9 {
            return Err(format!("type `{}` has a precision above 9", self.text));
        }
        let zone = if self.eat(',') { Some(self.quoted('\'')?) } else { None };
        Ok(Type::DateTime64 { precision, zone })
    }

    fn decimal(&mut self) -> Result<Type, String> {
        let precision: u8 = self.number()?;
        let scale: u8 = if self.eat(',') { self.number()? } else { 0 };
        self.checked_decimal(precision, scale)
    }

    fn decimal_of(&mut self, precision: u8) -> Result<Type, String> {
        let scale = self.within(|parser| parser.number())?;
        self.checked_decimal(precision, scale)
    }

    fn checked_decimal(&self, precision: u8, scale: u8) -> Result<Type, String> {
        if precision == 0 || precision > 76 || scale > precision {
            return Err(format!("type `{}` is not a valid Decimal", self.text));
        }
        Ok(Type::Decimal { precision, scale })
    }

    fn enumeration(&mut self, bits: u16) -> Result<Type, String> {
        let mut values = Vec::new();
        loop {
            let name = self.quoted('\'')?;
            self.expect('=')?;
            values.push((name, self.number()?));
            if !self.eat(',') {
                return Ok(Type::Enum { bits, values });
            }
        }
    }

    fn elements(&mut self) -> Result<Vec<Element>, String> {
        let mut elements = Vec::new();
        loop {
            let name = self.element_name()?;
            elements.push(Element { name, of: self.parse_type()? });
            if !self.eat(',') {
                return Ok(elements);
            }
        }
    }

    /// The name in front of an element's type, where there is one: a word that another type follows.
    fn element_name(&mut self) -> Result<Option<String>, String> {
        self.skip_blanks();
        if self.rest().starts_with('`') {
            return Ok(Some(self.quoted('`')?));
        }
        let start = self.at;
        let word = self.word();
        self.skip_blanks();
        if self.rest().starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Some(word.to_owned()));
        }
        self.at = start;
        Ok(None)
    }

    fn json(&mut self) -> Result<Type, String> {
        if !self.eat('(') {
            return Ok(Type::Json { args: String::new(), typed_paths: Vec::new() });
        }
        let start = self.at;
        let mut typed_paths = Vec::new();
        loop {
            self.json_argument(&mut typed_paths)?;
            if !self.eat(',') {
                break;
            }
        }
        let args = self.text[start..self.at].trim().to_owned();
        self.expect(')')?;
        Ok(Type::Json { args, typed_paths })
    }

    /// One of `max_dynamic_paths=N`, `SKIP path`, `SKIP REGEXP '…'`, `path Type`.
    fn json_argument(&mut self, typed_paths: &mut Vec<(String, Type)>) -> Result<(), String> {
        self.skip_blanks();
        let path = self.json_path()?;
        if self.eat('=') {
            self.number::<u64>()?;
            return Ok(());
        }
        if path != "SKIP" {
            typed_paths.push((path, self.parse_type()?));
            return Ok(());
        }
        self.skip_blanks();
        if self.rest().starts_with("REGEXP") {
            self.word();
            self.quoted('\'')?;
            return Ok(());
        }
        self.json_path().map(|_| ())
    }

    fn json_path(&mut self) -> Result<String, String> {
        let mut path = String::new();
        loop {
            self.skip_blanks();
            if self.rest().starts_with('`') {
                path.push_str(&self.quoted('`')?);
            } else {
                path.push_str(self.word());
            }
            if !self.rest().starts_with('.') {
                break;
            }
            self.at += 1;
            path.push('.');
        }
        if path.is_empty() {
            return Err(format!("type `{}` has something unknown at `{}`", self.text, self.rest()));
        }
        Ok(path)
    }

    fn simple_aggregate(&mut self) -> Result<Type, String> {
        let start = self.at;
        self.word();
        if self.rest().starts_with('(') {
            self.skip_parentheses()?;
        }
        let function = self.text[start..self.at].trim().to_owned();
        self.expect(',')?;
        Ok(Type::SimpleAggregate(function, Box::new(self.parse_type()?)))
    }

    /// Parameters of an aggregate function, as in `groupArrayLastArray(10)`.
    fn skip_parentheses(&mut self) -> Result<(), String> {
        let Some(len) = self.rest().find(')') else {
            return Err(format!("type `{}` has a parenthesis that does not close", self.text));
        };
        self.at += len + 1;
        Ok(())
    }
}

fn int_type(name: &str) -> Option<Type> {
    let (signed, bits) = match name.strip_prefix("Int") {
        Some(bits) => (true, bits),
        None => (false, name.strip_prefix("UInt")?),
    };
    let bits = bits.parse().ok()?;
    [8, 16, 32, 64, 128, 256].contains(&bits).then_some(Type::Int { bits, signed })
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
