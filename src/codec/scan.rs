//! Walks over JSON text, byte by byte and sixteen at a time, and accepts nothing but JSON.
//!
//! Owns the grammar: strings, numbers, words, nesting. Promises: what it passes is strict JSON in valid UTF-8,
//! without lone surrogates, at most [`DEPTH_MAX`] deep. Never allocates but for an error.

use crate::codec::rows::{Field, Kind};
use crate::types::Span;

/// The deepest nesting; the payload's own object is depth 1.
pub const DEPTH_MAX: u32 = 128;

/// What is wrong with a payload, and at which byte of the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub reason: &'static str,
    pub at: usize,
    pub what: String,
}

/// A fault travels boxed, so that a result fits two registers.
pub type Scanned<T> = Result<T, Box<Fault>>;

#[cold]
#[inline(never)]
pub(super) fn fault<T>(reason: &'static str, at: usize, what: impl Into<String>) -> Scanned<T> {
    Err(Box::new(Fault { reason, at, what: what.into() }))
}

/// A text: `bytes[..end]` of an arena. What lies behind `end` may be read, never used.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub bytes: &'a [u8],
    pub end: usize,
}

impl<'a> Text<'a> {
    pub fn new(bytes: &'a [u8], end: usize) -> Text<'a> {
        assert!(end <= bytes.len(), "a text ends inside its arena");
        Text { bytes, end }
    }

    /// The byte at `at`; 0, which no token starts with, behind the end.
    #[inline(always)]
    pub fn byte(self, at: usize) -> u8 {
        if at < self.end { self.bytes[at] } else { 0 }
    }

    /// The first place at or behind `at` that is no white space.
    #[inline(always)]
    pub fn skip_space(self, at: usize) -> usize {
        if self.byte(at) > b' ' { at } else { self.skip_space_slow(at) }
    }

    #[inline(never)]
    fn skip_space_slow(self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    /// The string whose first byte behind the quote is `start`: where its closing quote is, and whether it has
    /// escapes.
    #[inline(always)]
    pub fn string(self, start: usize) -> Scanned<(usize, Kind)> {
        let at = find_special(self.bytes, start, self.end);
        if at < self.end && self.bytes[at] == b'"' {
            return Ok((at, Kind::Text));
        }
        self.string_slow(start, at)
    }

    /// Goes on at `at`, the first byte that is no plain ASCII of a string, or the end.
    #[inline(never)]
    fn string_slow(self, start: usize, mut at: usize) -> Scanned<(usize, Kind)> {
        let mut kind = Kind::Text;
        let mut ascii = true;
        loop {
            if at >= self.end {
                return fault("not_json", self.end, "the text ends inside a string");
            }
            match self.bytes[at] {
                b'"' => break,
                b'\\' => {
                    kind = Kind::Escaped;
                    at = self.escape(at)?;
                }
                byte if byte < 0x20 => return fault("not_json", at, "a control character inside a string"),
                byte => {
                    ascii &= byte < 0x80;
                    at += 1;
                    // Text in other scripts comes in runs; only plain runs are worth the wide search.
                    if byte >= 0x80 {
                        continue;
                    }
                }
            }
            at = find_special(self.bytes, at, self.end);
        }
        if !ascii && let Err(error) = std::str::from_utf8(&self.bytes[start..at]) {
            return fault("invalid_utf8", start + error.valid_up_to(), "a byte sequence that is not UTF-8");
        }
        Ok((at, kind))
    }

    /// The place behind the escape that begins at `at`.
    fn escape(self, at: usize) -> Scanned<usize> {
        match self.byte(at + 1) {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
            b'u' => match self.unit(at)? {
                0xdc00..=0xdfff => fault("lone_surrogate", at, "a lone surrogate in a \\u escape"),
                0xd800..=0xdbff if self.byte(at + 6) != b'\\' || self.byte(at + 7) != b'u' => {
                    fault("lone_surrogate", at, "a lone surrogate in a \\u escape")
                }
                0xd800..=0xdbff => match self.unit(at + 6)? {
                    0xdc00..=0xdfff => Ok(at + 12),
                    _ => fault("lone_surrogate", at, "a lone surrogate in a \\u escape"),
                },
                _ => Ok(at + 6),
            },
            _ if at + 1 >= self.end => fault("not_json", self.end, "the text ends inside a string"),
            _ => fault("not_json", at, "an escape that JSON does not have"),
        }
    }

    /// The four hex digits of the `\u` escape at `at`.
    fn unit(self, at: usize) -> Scanned<u32> {
        let mut unit = 0;
        for i in at + 2..at + 6 {
            let Some(digit) = (self.byte(i) as char).to_digit(16) else {
                return fault("not_json", i.min(self.end), "a \\u escape without four hex digits");
            };
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }

    /// The place behind the number that begins at `start`.
    #[inline(always)]
    pub fn number(self, start: usize) -> Scanned<usize> {
        let mut at = start + (self.byte(start) == b'-') as usize;
        match self.byte(at) {
            b'1'..=b'9' => at = self.digits(at + 1),
            b'0' if self.byte(at + 1).is_ascii_digit() => {
                return fault("not_json", start, "a number with leading zeros");
            }
            b'0' => at += 1,
            _ => return self.no_number(start),
        }
        match self.byte(at) {
            b'.' | b'e' | b'E' => self.number_tail(at),
            _ => Ok(at),
        }
    }

    #[inline(always)]
    fn digits(self, mut at: usize) -> usize {
        while self.byte(at).wrapping_sub(b'0') <= 9 {
            at += 1;
        }
        at
    }

    #[inline(always)]
    fn number_tail(self, mut at: usize) -> Scanned<usize> {
        if self.byte(at) == b'.' {
            let from = at + 1;
            at = self.digits(from);
            if at == from {
                return fault("not_json", at, "a number without a digit behind its point");
            }
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let from = at + 1 + matches!(self.byte(at + 1), b'+' | b'-') as usize;
            at = self.digits(from);
            if at == from {
                return fault("not_json", at.min(self.end), "a number without a digit in its exponent");
            }
        }
        Ok(at)
    }

    #[cold]
    fn no_number(self, start: usize) -> Scanned<usize> {
        match self.bytes[start..self.end].starts_with(b"-Infinity") {
            true => fault("not_json", start, "-Infinity, which JSON does not have"),
            false => fault("not_json", start, "a minus sign without a number"),
        }
    }

    /// The value that begins at `at` (no white space there) as a field, and the place behind it. `depth` is that
    /// of what contains the value.
    #[inline(always)]
    pub fn value(self, at: usize, depth: u32) -> Scanned<(Field, usize)> {
        match self.byte(at) {
            b'"' => {
                let (quote, kind) = self.string(at + 1)?;
                Ok((Field::text(kind, span(at + 1, quote)), quote + 1))
            }
            b'-' | b'0'..=b'9' => {
                let end = self.number(at)?;
                Ok((Field::text(Kind::Number, span(at, end)), end))
            }
            b'{' => {
                let end = self.container(at, depth)?;
                Ok((Field::text(Kind::Object, span(at, end)), end))
            }
            b'[' => {
                let end = self.container(at, depth)?;
                Ok((Field::text(Kind::Array, span(at, end)), end))
            }
            b't' => Ok((Field::bool(true), self.word(at, b"true")?)),
            b'f' => Ok((Field::bool(false), self.word(at, b"false")?)),
            b'n' => Ok((Field::NULL, self.word(at, b"null")?)),
            _ => self.no_value(at),
        }
    }

    #[inline(always)]
    fn word(self, at: usize, word: &[u8]) -> Scanned<usize> {
        let end = at + word.len();
        if end <= self.end && &self.bytes[at..end] == word {
            return Ok(end);
        }
        self.no_value(at)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_value<T>(self, at: usize) -> Scanned<T> {
        let rest = &self.bytes[at.min(self.end)..self.end];
        if rest.is_empty() {
            return fault("not_json", self.end, "the text ends where a value should be");
        }
        for word in ["NaN", "Infinity"] {
            if rest.starts_with(word.as_bytes()) {
                return fault("not_json", at, format!("{word}, which JSON does not have"));
            }
        }
        fault("not_json", at, format!("{} where a value should be", shown(rest[0])))
    }

    /// The place behind the array or object that begins at `start`. One bit per level says which it is.
    #[inline(never)]
    pub fn container(self, start: usize, depth_outside: u32) -> Scanned<usize> {
        let mut objects = 0u128;
        let mut depth = depth_outside;
        let mut at = start;
        loop {
            // At the first byte of a value.
            let opens = self.byte(at);
            if opens == b'{' || opens == b'[' {
                depth += 1;
                if depth > DEPTH_MAX {
                    return fault("too_deep", at, format!("nested deeper than {DEPTH_MAX}"));
                }
                objects = objects << 1 | (opens == b'{') as u128;
                at = self.skip_space(at + 1);
                let closes = opens + 2; // `{` and `}`, `[` and `]` are two apart
                if self.byte(at) != closes {
                    if opens == b'{' {
                        at = self.key(at)?;
                    }
                    continue;
                }
            } else {
                at = self.scalar(at)?;
                at = self.skip_space(at);
                if self.byte(at) == b',' {
                    at = self.skip_space(at + 1);
                    if objects & 1 == 1 {
                        at = self.key(at)?;
                    }
                    continue;
                }
            }
            // Behind a value: close as many levels as end here.
            loop {
                let closes = if objects & 1 == 1 { b'}' } else { b']' };
                match self.byte(at) {
                    byte if byte == closes => {
                        at += 1;
                        objects >>= 1;
                        depth -= 1;
                        if depth == depth_outside {
                            return Ok(at);
                        }
                        at = self.skip_space(at);
                    }
                    b',' => break,
                    _ => return self.no_separator(at, objects & 1 == 1),
                }
            }
            at = self.skip_space(at + 1);
            if objects & 1 == 1 {
                at = self.key(at)?;
            }
        }
    }

    /// A string, number or word; the place behind it.
    #[inline(always)]
    fn scalar(self, at: usize) -> Scanned<usize> {
        match self.byte(at) {
            b'"' => Ok(self.string(at + 1)?.0 + 1),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            _ => self.no_value(at),
        }
    }

    /// A key and its colon; the place of the value.
    #[inline(always)]
    fn key(self, at: usize) -> Scanned<usize> {
        if self.byte(at) != b'"' {
            return self.no_key(at);
        }
        let (quote, _) = self.string(at + 1)?;
        self.colon(quote + 1)
    }

    /// The colon behind a key; the place of the value.
    #[inline(always)]
    pub fn colon(self, at: usize) -> Scanned<usize> {
        let at = self.skip_space(at);
        if self.byte(at) != b':' {
            return self.unexpected(at, "a colon");
        }
        Ok(self.skip_space(at + 1))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_key<T>(self, at: usize) -> Scanned<T> {
        self.unexpected(at, "a field name")
    }

    #[cold]
    #[inline(never)]
    pub(super) fn no_separator<T>(self, at: usize, object: bool) -> Scanned<T> {
        self.unexpected(at, if object { "a comma or }" } else { "a comma or ]" })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn unexpected<T>(self, at: usize, wanted: &str) -> Scanned<T> {
        if at >= self.end {
            return fault("not_json", self.end, format!("the text ends where {wanted} should be"));
        }
        fault("not_json", at, format!("{} where {wanted} should be", shown(self.bytes[at])))
    }
}

#[inline(always)]
pub(super) fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, len: (end - start) as u32 }
}

fn shown(byte: u8) -> String {
    match byte {
        0x21..=0x7e => format!("`{}`", byte as char),
        _ => format!("byte 0x{byte:02x}"),
    }
}

/// The first place in `start..end` that is a quote, a backslash, a control character or no ASCII; `end` without.
#[inline(always)]
fn find_special(bytes: &[u8], start: usize, end: usize) -> usize {
    let mut at = start;
    #[cfg(target_arch = "x86_64")]
    while at + 16 <= bytes.len() {
        if at >= end {
            return end;
        }
        let mask = special_mask(bytes[at..at + 16].try_into().expect("sixteen bytes"));
        if mask != 0 {
            return (at + mask.trailing_zeros() as usize).min(end);
        }
        at += 16;
    }
    while at < end && !is_special(bytes[at]) {
        at += 1;
    }
    at.min(end)
}

#[inline(always)]
fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || (byte as i8) < 0x20
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn special_mask(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64, and the load reads the sixteen bytes of `chunk`.
    unsafe {
        let chunk = _mm_loadu_si128(chunk.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(chunk, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(chunk, _mm_set1_epi8(b'\\' as i8));
        // Signed: control characters and all bytes from 0x80 on are below a blank.
        let low = _mm_cmplt_epi8(chunk, _mm_set1_epi8(0x20));
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), low)) as u32
    }
}

/// Whether a value can be a field of a row: as deep as one inside of a payload at most.
pub fn fits_in_a_row(value: &[u8]) -> bool {
    Text::new(value, value.len()).value(0, 1).is_ok()
}

/// Appends what an escaped text means. `text` has been validated.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (meaning, len) = unescape_one(&rest[at..]);
        out.extend_from_slice(meaning.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

/// The character that a validated text's first escape stands for, and the escape's length.
fn unescape_one(text: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = &text[at + 2..at + 6];
        digits.iter().fold(0, |unit, digit| unit << 4 | (*digit as char).to_digit(16).unwrap_or(0))
    };
    match text[1] {
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => match unit(0) {
            high @ 0xd800..=0xdbff => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (unit(6) - 0xdc00);
                (char::from_u32(code).expect("a surrogate pair was validated"), 12)
            }
            code => (char::from_u32(code).expect("no lone surrogate passed"), 6),
        },
        byte => (byte as char, 2),
    }
}

/// Appends `text` with its quotes, backslashes and control characters escaped, without quotes around it.
/// Answers whether anything had to be escaped.
pub fn escape(text: &str, out: &mut Vec<u8>) -> bool {
    let mut escaped = false;
    for byte in text.bytes() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => {
                escaped = true;
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        escaped = true;
        out.extend_from_slice(&[b'\\', short]);
    }
    escaped
}
