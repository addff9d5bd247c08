//! The parser of type text. Each function reads what its name says and leaves the place behind it.

use super::{Element, Type};

/// Reads a whole type text.
pub(super) fn parse(text: &str) -> Result<Type, String> {
    let mut parser = Parser { text, at: 0 };
    let parsed = parser.parse_type()?;
    parser.skip_blanks();
    match parser.rest() {
        "" => Ok(parsed),
        rest => Err(format!("type `{text}` goes on with `{rest}`, which weir does not understand")),
    }
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
