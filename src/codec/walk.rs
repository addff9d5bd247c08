//! The elements of an array and the members of an object, out of their validated raw text.
//!
//! Owns nothing; borrows. For the rare places that look inside a value that was taken whole: keys that are objects,
//! expressions that index. Spans are relative to the raw text.

use crate::codec::rows::{Field, Kind};
use crate::codec::scan::{Text, unescape};
use std::borrow::Cow;

const VALIDATED: &str = "arrays and objects in a row were validated";

/// One value of a raw text.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub kind: Kind,
    /// The text, as in [`Kind`].
    pub text: &'a [u8],
}

impl<'a> Raw<'a> {
    fn of(raw: &'a [u8], field: Field) -> Raw<'a> {
        let text = match field.kind {
            Kind::Number | Kind::Text | Kind::Escaped | Kind::Array | Kind::Object => &raw[field.span().range()],
            _ => &[],
        };
        Raw { kind: field.kind, text }
    }
}

/// The elements of an array's raw text, in order.
pub fn elements(raw: &[u8]) -> Elements<'_> {
    let text = Text::new(raw, raw.len());
    Elements { text, at: text.skip_space(1) }
}

/// The members of an object's raw text, in order, with their names as meant.
pub fn members(raw: &[u8]) -> Members<'_> {
    let text = Text::new(raw, raw.len());
    Members { text, at: text.skip_space(1) }
}

pub struct Elements<'a> {
    text: Text<'a>,
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        if self.text.byte(self.at) == b']' {
            return None;
        }
        let (field, end) = self.text.value(self.at, 0).expect(VALIDATED);
        self.at = next_item(self.text, end);
        Some(Raw::of(self.text.bytes, field))
    }
}

pub struct Members<'a> {
    text: Text<'a>,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.text.byte(self.at) == b'}' {
            return None;
        }
        let start = self.at + 1;
        let (quote, kind) = self.text.string(start).expect(VALIDATED);
        let name = meant(Raw { kind, text: &self.text.bytes[start..quote] });
        let at = self.text.colon(quote + 1).expect(VALIDATED);
        let (field, end) = self.text.value(at, 0).expect(VALIDATED);
        self.at = next_item(self.text, end);
        Some((name, Raw::of(self.text.bytes, field)))
    }
}

/// The bytes that a `Text`, `Escaped` or `Bytes` means.
pub fn meant(raw: Raw<'_>) -> Cow<'_, [u8]> {
    if raw.kind != Kind::Escaped {
        return Cow::Borrowed(raw.text);
    }
    let mut text = Vec::with_capacity(raw.text.len());
    unescape(raw.text, &mut text);
    Cow::Owned(text)
}

/// The place of the next item, or of the closing bracket.
fn next_item(text: Text<'_>, end: usize) -> usize {
    let at = text.skip_space(end);
    if text.byte(at) == b',' { text.skip_space(at + 1) } else { at }
}
