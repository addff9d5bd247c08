//! Walks JSON text without building anything: the elements of an array, the pairs of an object.
//!
//! Promises: never panics on broken text, never copies but to undo escapes.

use super::Misfit;
use crate::codec::rows::{Field, Kind, Rows};
use crate::codec::scan::unescape;
use std::borrow::Cow;

/// One JSON value: a piece of text that knows what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    Absent,
    Null,
    Bool(bool),
    /// The text of a number.
    Number(&'a [u8]),
    /// A whole number of our own.
    Int(i64),
    /// The text between the quotes, without an escape.
    Text(&'a [u8]),
    /// The text between the quotes, with escapes.
    Escaped(&'a [u8]),
    /// Bytes that are no text (a record's key or header).
    Bytes(&'a [u8]),
    /// Brackets included.
    Array(&'a [u8]),
    /// Braces included.
    Object(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The value of a row's field.
    #[inline(always)]
    pub fn of(rows: &'a Rows, field: Field) -> Value<'a> {
        match field.kind {
            Kind::Absent => Value::Absent,
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Number => Value::Number(rows.text(field)),
            Kind::Int => Value::Int(field.as_int()),
            Kind::Text => Value::Text(rows.text(field)),
            Kind::Escaped => Value::Escaped(rows.text(field)),
            Kind::Bytes => Value::Bytes(rows.text(field)),
            Kind::Array => Value::Array(rows.text(field)),
            Kind::Object => Value::Object(rows.text(field)),
        }
    }

    /// The value that a whole JSON text holds.
    pub fn parse(text: &'a [u8]) -> Result<Value<'a>, Misfit> {
        let mut cursor = Cursor { text, at: 0 };
        let value = cursor.value()?;
        cursor.skip_blanks();
        if cursor.at == text.len() { Ok(value) } else { Err(Misfit::Broken) }
    }

    /// The text that a `Text` or `Escaped` means; `None` for other kinds.
    pub fn meant(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Escaped(text) => {
                let mut plain = Vec::with_capacity(text.len());
                unescape(text, &mut plain);
                Some(Cow::Owned(plain))
            }
            _ => None,
        }
    }

    #[inline(always)]
    pub fn is_null(self) -> bool {
        matches!(self, Value::Absent | Value::Null)
    }

    /// The value as a person would read it in the record.
    pub fn shown(self) -> String {
        match self {
            Value::Absent => "nothing".to_owned(),
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Text(text) | Value::Escaped(text) => format!("\"{}\"", shortened(text)),
            Value::Bytes(bytes) => format!("{} bytes that are no text", bytes.len()),
            Value::Number(text) | Value::Array(text) | Value::Object(text) => shortened(text),
        }
    }
}

/// Values longer than this are cut in messages.
const SHOWN_CHARS_MAX: usize = 64;

fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// The elements of an array's text, brackets included.
pub struct Elements<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Elements<'a> {
    pub fn of(array: &'a [u8]) -> Elements<'a> {
        Elements { cursor: Cursor { text: array, at: 0 } }
    }

    /// The next element, `None` behind the last.
    #[allow(clippy::should_implement_trait)] // an error ends the walk, which an iterator would hide
    pub fn next(&mut self) -> Result<Option<Value<'a>>, Misfit> {
        if !self.cursor.steps_on(b'[', b']')? {
            return Ok(None);
        }
        self.cursor.value().map(Some)
    }
}

/// The pairs of an object's text, braces included.
pub struct Pairs<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Pairs<'a> {
    pub fn of(object: &'a [u8]) -> Pairs<'a> {
        Pairs { cursor: Cursor { text: object, at: 0 } }
    }

    /// The next name (`Text` or `Escaped`) and its value, `None` behind the last.
    #[allow(clippy::should_implement_trait)] // an error ends the walk, which an iterator would hide
    pub fn next(&mut self) -> Result<Option<(Value<'a>, Value<'a>)>, Misfit> {
        if !self.cursor.steps_on(b'{', b'}')? {
            return Ok(None);
        }
        let name = self.cursor.value()?;
        if !matches!(name, Value::Text(_) | Value::Escaped(_)) {
            return Err(Misfit::Broken);
        }
        self.cursor.expect(b':')?;
        let value = self.cursor.value()?;
        Ok(Some((name, value)))
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Misfit> {
        self.skip_blanks();
        if self.text.get(self.at) != Some(&byte) {
            return Err(Misfit::Broken);
        }
        self.at += 1;
        Ok(())
    }

    /// Moves over `open` (at the start) or a comma to the next item; false at `close`.
    fn steps_on(&mut self, open: u8, close: u8) -> Result<bool, Misfit> {
        let first = self.at == 0;
        self.skip_blanks();
        match self.text.get(self.at) {
            Some(&byte) if first && byte == open => {
                self.at += 1;
                self.skip_blanks();
                Ok(self.text.get(self.at) != Some(&close))
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(&byte) if !first && byte == close => Ok(false),
            _ => Err(Misfit::Broken),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, Misfit> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let (value, len) = match rest.first() {
            Some(b'"') => {
                let (inner, escaped) = text_len(rest)?;
                let inner_text = &rest[1..1 + inner];
                let value = if escaped { Value::Escaped(inner_text) } else { Value::Text(inner_text) };
                (value, inner + 2)
            }
            Some(b'[') => {
                let len = container_len(rest)?;
                (Value::Array(&rest[..len]), len)
            }
            Some(b'{') => {
                let len = container_len(rest)?;
                (Value::Object(&rest[..len]), len)
            }
            Some(b'-' | b'0'..=b'9') => {
                let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let len = rest.iter().take_while(|byte| is_number(byte)).count();
                (Value::Number(&rest[..len]), len)
            }
            _ if rest.starts_with(b"null") => (Value::Null, 4),
            _ if rest.starts_with(b"true") => (Value::Bool(true), 4),
            _ if rest.starts_with(b"false") => (Value::Bool(false), 5),
            _ => return Err(Misfit::Broken),
        };
        self.at += len;
        Ok(value)
    }
}

/// The bytes between the quotes of the text at the start of `rest`, and whether there is an escape among them.
fn text_len(rest: &[u8]) -> Result<(usize, bool), Misfit> {
    let mut escaped = false;
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', rest.get(at..).unwrap_or_default()) {
        at += found;
        if rest[at] == b'"' {
            return Ok((at - 1, escaped));
        }
        escaped = true;
        at += 2;
    }
    Err(Misfit::Broken)
}

/// The bytes of the array or object at the start of `rest`, brackets included.
fn container_len(rest: &[u8]) -> Result<usize, Misfit> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'"' => at += text_len(&rest[at..])?.0 + 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(Misfit::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_pairs_come_in_order() {
        let mut elements = Elements::of(br#"[ 1, "a]\"b", [2,[3]], {"x":"}"}, null , true]"#);
        let mut seen = Vec::new();
        while let Some(value) = elements.next().unwrap() {
            seen.push(value);
        }
        assert_eq!(
            seen,
            [
                Value::Number(b"1"),
                Value::Escaped(br#"a]\"b"#),
                Value::Array(b"[2,[3]]"),
                Value::Object(br#"{"x":"}"}"#),
                Value::Null,
                Value::Bool(true),
            ]
        );
        let mut pairs = Pairs::of(br#"{"a" : 1 , "b":{}}"#);
        assert_eq!(pairs.next(), Ok(Some((Value::Text(b"a"), Value::Number(b"1")))));
        assert_eq!(pairs.next(), Ok(Some((Value::Text(b"b"), Value::Object(b"{}")))));
        assert_eq!(pairs.next(), Ok(None));
        assert_eq!(Elements::of(b"[ ]").next(), Ok(None));
    }

    #[test]
    fn broken_text_is_an_error_and_never_a_panic() {
        for text in ["[", "[1", "[1 2]", "[,]", "[\"a]", "[nul]", "[}", "[\"\\"] {
            let mut elements = Elements::of(text.as_bytes());
            let broken = loop {
                match elements.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            assert!(broken, "{text}");
        }
    }
}
