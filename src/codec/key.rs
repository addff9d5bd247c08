//! Keys: what a row is compared by, as 128 bits.
//!
//! Owns the canonical form of values. Two values have one form exactly when they are the same by type and value:
//! ```text
//! null z │ false f │ true y │ number n (exact value, see Decimal::canonical) │ text t bytes 0xff
//! bytes b length bytes │ array [ forms ] │ object { t name 0xff form … } by name
//! ```
//! 0xff never occurs in UTF-8, so that no form begins another one, and parts of a composite key cannot run into
//! each other. Members of an object are compared by name, whatever their order; one that is null is the same as none, and
//! one that is given twice makes no key. The hash is SipHash-1-3-128 under the state directory's random seed. Never reads a clock.

use crate::codec::number::Decimal;
use crate::codec::rows::{BadRow, Field, Kind, Rows, Slot};
use crate::codec::time::excerpt;
use crate::codec::walk::{Raw, elements, meant, members};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Hashes the key of a row.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    empty: SipHasher13,
    seed: [u8; 16],
    parts: Vec<KeyPart>,
}

/// One field of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPart {
    pub slot: Slot,
    pub cast: Option<Cast>,
    /// As written, for messages.
    pub path: String,
}

/// `as:`: the value is read as this before it is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// At most 76 digits.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Int,
    Text,
    Bool,
}

/// What a row is compared by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    Hash(u128),
    /// A single null, or a composite of nothing but nulls.
    Missing,
}

/// Why a value is no key.
struct NoKey {
    reason: &'static str,
    message: String,
}

const DOES_NOT_FIT: &str = "key_does_not_fit";

const FITS_STACK: usize = 96;

impl KeyHasher {
    pub fn new(seed: [u8; 16], parts: Vec<KeyPart>) -> KeyHasher {
        assert!(!parts.is_empty(), "a key has at least one field");
        KeyHasher { empty: SipHasher13::new_with_key(&seed), seed, parts }
    }

    /// The key of a row. A value that does not fit its cast (or is no number that can be compared) makes it bad.
    pub fn hash(&self, rows: &Rows, row: u32) -> Result<Key, BadRow> {
        if self.parts.iter().all(|part| rows.field(row, part.slot).is_null()) {
            return Ok(Key::Missing);
        }
        self.hash_values(rows, row).map(Key::Hash)
    }

    /// The same where null is a value like any other: to see whether fields have changed.
    pub fn hash_values(&self, rows: &Rows, row: u32) -> Result<u128, BadRow> {
        if let [part] = self.parts.as_slice() {
            let field = rows.field(row, part.slot);
            if field.kind == Kind::Text && matches!(part.cast, None | Some(Cast::Text)) {
                return Ok(self.hash_text(rows.text(field)));
            }
        }
        let mut hasher = self.empty;
        for part in &self.parts {
            let field = rows.field(row, part.slot);
            write_part(part, field, rows, &mut hasher).map_err(|NoKey { reason, message }| BadRow {
                row,
                reason,
                message,
            })?;
        }
        Ok(hasher.finish128().as_u128())
    }

    /// A single plain text, in one go.
    #[inline]
    fn hash_text(&self, text: &[u8]) -> u128 {
        if text.len() > FITS_STACK - 2 {
            let mut hasher = self.empty;
            write_text(text, &mut hasher);
            return hasher.finish128().as_u128();
        }
        let mut form = [0u8; FITS_STACK];
        form[0] = b't';
        form[1..=text.len()].copy_from_slice(text);
        form[text.len() + 1] = 0xff;
        SipHasher13::new_with_key(&self.seed).hash(&form[..text.len() + 2]).as_u128()
    }
}

fn write_part(part: &KeyPart, field: Field, rows: &Rows, hasher: &mut SipHasher13) -> Result<(), NoKey> {
    let mut digits = itoa_buffer();
    let value = match field.kind {
        Kind::Absent | Kind::Null | Kind::False | Kind::True => Raw { kind: field.kind, text: &[] },
        Kind::Int => Raw { kind: Kind::Number, text: write_int(field.as_int(), &mut digits) },
        kind => Raw { kind, text: rows.text(field) },
    };
    let Some(cast) = part.cast.filter(|_| !field.is_null()) else {
        return write_value(value, hasher).map_err(|why| why.of(&part.path, value));
    };
    let fits = match cast {
        Cast::Decimal { precision, scale } => write_decimal(value, precision, scale, hasher),
        Cast::Int => write_integer(value, hasher),
        Cast::Text => write_as_text(value, hasher),
        Cast::Bool => write_bool(value, hasher),
    };
    fits.ok_or_else(|| does_not_fit(&part.path, cast, value))
}

/// Why a value cannot be compared.
enum Incomparable {
    /// A number whose exponent is beyond reading.
    Number,
    /// A member of an object that is given twice.
    Twice(Vec<u8>),
}

fn write_value(value: Raw<'_>, hasher: &mut SipHasher13) -> Result<(), Incomparable> {
    match value.kind {
        Kind::Absent | Kind::Null => hasher.write(b"z"),
        Kind::False => hasher.write(b"f"),
        Kind::True => hasher.write(b"y"),
        Kind::Number | Kind::Int => write_number(&Decimal::parse(value.text).ok_or(Incomparable::Number)?, hasher),
        Kind::Text => write_text(value.text, hasher),
        Kind::Escaped => write_text(&meant(value), hasher),
        Kind::Bytes => {
            hasher.write(b"b");
            hasher.write(&(value.text.len() as u64).to_le_bytes());
            hasher.write(value.text);
        }
        Kind::Array => {
            hasher.write(b"[");
            for element in elements(value.text) {
                write_value(element, hasher)?;
            }
            hasher.write(b"]");
        }
        Kind::Object => {
            let mut sorted: Vec<_> = members(value.text).collect();
            sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(Incomparable::Twice(pair[0].0.to_vec()));
            }
            hasher.write(b"{");
            for (name, member) in sorted.into_iter().filter(|(_, member)| member.kind != Kind::Null) {
                write_text(&name, hasher);
                write_value(member, hasher)?;
            }
            hasher.write(b"}");
        }
    }
    Ok(())
}

fn write_text(text: &[u8], hasher: &mut SipHasher13) {
    hasher.write(b"t");
    hasher.write(text);
    hasher.write(&[0xff]);
}

fn write_number(number: &Decimal<'_>, hasher: &mut SipHasher13) {
    hasher.write(b"n");
    number.canonical(|bytes| hasher.write(bytes));
}

/// The number a value holds or spells.
fn with_number<T>(value: Raw<'_>, use_it: impl FnOnce(&Decimal<'_>) -> Option<T>) -> Option<T> {
    match value.kind {
        Kind::Number | Kind::Int | Kind::Text => use_it(&Decimal::parse(value.text)?),
        Kind::Escaped => use_it(&Decimal::parse(&meant(value))?),
        _ => None,
    }
}

fn write_decimal(value: Raw<'_>, precision: u8, scale: u8, hasher: &mut SipHasher13) -> Option<()> {
    with_number(value, |number| {
        number.decimal_i256(precision as u32, scale as u32).ok()?;
        write_number(number, hasher);
        Some(())
    })
}

fn write_integer(value: Raw<'_>, hasher: &mut SipHasher13) -> Option<()> {
    with_number(value, |number| {
        if !number.is_whole() {
            return None;
        }
        write_number(number, hasher);
        Some(())
    })
}

/// Text as it is, everything else as its raw JSON text.
fn write_as_text(value: Raw<'_>, hasher: &mut SipHasher13) -> Option<()> {
    match value.kind {
        Kind::True => write_text(b"true", hasher),
        Kind::False => write_text(b"false", hasher),
        Kind::Bytes => return None,
        _ => write_text(&meant(value), hasher),
    }
    Some(())
}

fn write_bool(value: Raw<'_>, hasher: &mut SipHasher13) -> Option<()> {
    let truth = match value.kind {
        Kind::True => true,
        Kind::False => false,
        Kind::Text | Kind::Escaped => match meant(value).as_ref() {
            b"true" => true,
            b"false" => false,
            _ => return None,
        },
        Kind::Number | Kind::Int => match crate::codec::number::to_i64(value.text) {
            Ok(1) => true,
            Ok(0) => false,
            _ => return None,
        },
        _ => return None,
    };
    hasher.write(if truth { b"y" } else { b"f" });
    Some(())
}

fn itoa_buffer() -> [u8; 20] {
    [0; 20]
}

/// Writes a whole number into the buffer's end.
fn write_int(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

#[cold]
fn does_not_fit(path: &str, cast: Cast, value: Raw<'_>) -> NoKey {
    let wanted = match cast {
        Cast::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        Cast::Int => "int".to_owned(),
        Cast::Text => "text".to_owned(),
        Cast::Bool => "bool".to_owned(),
    };
    let message = format!("the key `{path}` is compared as {wanted}, the record has {}", shown(value));
    NoKey { reason: DOES_NOT_FIT, message }
}

impl Incomparable {
    #[cold]
    fn of(self, path: &str, value: Raw<'_>) -> NoKey {
        match self {
            Incomparable::Number => {
                let value = shown(value);
                let message = format!("the key `{path}` holds a number whose exponent cannot be compared: {value}");
                NoKey { reason: DOES_NOT_FIT, message }
            }
            Incomparable::Twice(name) => {
                let name = String::from_utf8_lossy(&name);
                let message = format!("in `{path}`, which is compared whole, the field `{name}` is given twice");
                NoKey { reason: "duplicate_field", message }
            }
        }
    }
}

fn shown(value: Raw<'_>) -> String {
    match value.kind {
        Kind::True => "true".to_owned(),
        Kind::False => "false".to_owned(),
        Kind::Absent | Kind::Null => "null".to_owned(),
        Kind::Text | Kind::Escaped => format!("\"{}\"", excerpt(value.text)),
        Kind::Bytes => "bytes that are no text".to_owned(),
        _ => excerpt(value.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extract::Extractor;
    use crate::codec::scope::Scope;
    use crate::types::Span;
    use proptest::prelude::*;

    fn key(paths: &[(&str, Option<Cast>)], payload: &str) -> Result<Key, BadRow> {
        let mut scope = Scope::new();
        let part = |&(path, cast): &(&str, Option<Cast>)| KeyPart {
            slot: scope.resolve(path).unwrap(),
            cast,
            path: path.to_owned(),
        };
        let hasher = KeyHasher::new([7; 16], paths.iter().map(part).collect());
        let layout = scope.finish();
        let mut rows = Rows::default();
        rows.clear(layout.width);
        rows.bytes.extend_from_slice(payload.as_bytes());
        rows.fields.resize(layout.width, Field::ABSENT);
        let span = Span { start: 0, len: payload.len() as u32 };
        Extractor::new(&layout.paths).extract(&rows.bytes, span, &mut rows.fields).unwrap();
        hasher.hash(&rows, 0)
    }

    fn plain(value: &str) -> Key {
        key(&[("k", None)], &format!(r#"{{"k":{value}}}"#)).unwrap()
    }

    fn cast(cast: Cast, value: &str) -> Result<Key, BadRow> {
        key(&[("k", Some(cast))], &format!(r#"{{"k":{value}}}"#))
    }

    #[test]
    fn equal_values_have_equal_keys() {
        for class in [
            vec!["1", "1.0", "1e0", "10e-1"],
            vec!["0", "-0", "0.0", "-0e5"],
            vec!["\"ab\"", r#""\u0061b""#],
            vec![r#"{"a":1,"b":[2]}"#, r#"{ "b" : [2.0], "\u0061":1e0 }"#],
            vec!["[1,\"x\"]", "[ 1.0 , \"\\u0078\" ]"],
            vec!["{}", r#"{"a":null}"#, r#"{ "b":null, "a":null }"#],
            vec![r#"{"a":1}"#, r#"{"a":1,"b":null}"#],
            vec![r#"[{"a":[{}]}]"#, r#"[{"b":null,"a":[{"c":null}]}]"#],
        ] {
            for value in &class {
                assert_eq!(plain(value), plain(class[0]), "{value}");
            }
        }
    }

    #[test]
    fn different_values_have_different_keys() {
        let values = [
            "1",
            "\"1\"",
            "true",
            "\"true\"",
            "false",
            "\"\"",
            "[]",
            "{}",
            "[null]",
            "[null,null]",
            "[1,null]",
            "[null,1]",
            "[[]]",
            "[1,2]",
            "[12]",
            "\"[]\"",
            r#"{"a":1}"#,
            r#"{"a":[null]}"#,
            r#"{"a":[]}"#,
            r#"{"a":"1"}"#,
            "9007199254740993",
            "9007199254740992",
            "0.1",
            "-1",
            "0",
            "[\"a\",\"b\"]",
            "[\"ab\"]",
            "1e999999999",
            "1e999999998",
        ];
        let keys: std::collections::HashSet<Key> = values.iter().map(|value| plain(value)).collect();
        assert_eq!(keys.len(), values.len());
        let long = format!("\"{}\"", "x".repeat(200));
        assert_ne!(plain(&long), plain("\"x\""));
    }

    #[test]
    fn a_single_null_or_a_composite_of_nulls_is_missing_and_an_empty_text_is_a_key() {
        assert_eq!(plain("null"), Key::Missing);
        assert_eq!(key(&[("k", None)], "{}"), Ok(Key::Missing));
        assert_eq!(key(&[("a", None), ("b", None)], r#"{"a":null}"#), Ok(Key::Missing));
        assert!(matches!(plain("\"\""), Key::Hash(_)));
        let both = [("a", None), ("b", None)];
        assert_eq!(key(&both, r#"{"a":1}"#), key(&both, r#"{"a":1,"b":null}"#));
        assert_ne!(key(&both, r#"{"a":1}"#), key(&both, r#"{"b":1}"#));
        assert_ne!(key(&both, r#"{"a":"x","b":"y"}"#), key(&both, r#"{"a":"xy","b":""}"#));
    }

    #[test]
    fn a_cast_compares_by_its_type_and_refuses_what_does_not_fit() {
        let decimal = Cast::Decimal { precision: 10, scale: 2 };
        assert_eq!(cast(decimal, "1.50"), cast(decimal, "\"1.5\""));
        for value in ["1.005", "\"abc\"", "123456789", "true", "[1]", "\" 1\""] {
            let bad = cast(decimal, value).unwrap_err();
            assert_eq!(bad.reason, "key_does_not_fit", "{value}");
        }
        assert_eq!(
            cast(decimal, "1.005").unwrap_err().message,
            "the key `k` is compared as decimal(10,2), the record has 1.005"
        );
        assert_eq!(cast(decimal, "null"), Ok(Key::Missing));
        assert_eq!(cast(Cast::Int, "1.0"), cast(Cast::Int, "\"1\""));
        assert!(cast(Cast::Int, "1.5").is_err());
        assert_eq!(cast(Cast::Text, "1"), cast(Cast::Text, "\"1\""));
        assert_ne!(cast(Cast::Text, "1"), cast(Cast::Text, "1.0"));
        assert_eq!(cast(Cast::Bool, "1"), cast(Cast::Bool, "\"true\""));
        assert!(cast(Cast::Bool, "2").is_err());
    }

    #[test]
    fn an_object_with_a_field_given_twice_is_no_key() {
        for value in [r#"{"a":1,"a":2}"#, r#"{"a":1,"b":2,"\u0061":null}"#, r#"[{"b":{"a":1,"a":1}}]"#] {
            let bad = key(&[("k", None)], &format!(r#"{{"k":{value}}}"#)).unwrap_err();
            let message = "in `k`, which is compared whole, the field `a` is given twice";
            assert_eq!((bad.reason, bad.message.as_str()), ("duplicate_field", message));
        }
    }

    #[test]
    fn an_exponent_beyond_reading_is_no_key() {
        let bad = key(&[("k", None)], r#"{"k":1e1000000000000000000000}"#).unwrap_err();
        assert_eq!(bad.reason, "key_does_not_fit");
    }

    #[test]
    fn a_virtual_number_equals_the_same_number_of_the_payload() {
        let mut rows = Rows::default();
        rows.clear(1);
        rows.fields.push(Field::int(-42));
        let part = KeyPart { slot: Slot(0), cast: None, path: "_offset".into() };
        let hashed = KeyHasher::new([7; 16], vec![part]).hash(&rows, 0).unwrap();
        assert_eq!(hashed, plain("-42"));
    }

    proptest! {
        #[test]
        fn texts_have_one_key_however_they_are_escaped(left in "[a-c\\PC]{0,6}", right in "[a-c\\PC]{0,6}") {
            let escaped: String = left.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let left_key = plain(&serde_json::to_string(&left).unwrap());
            prop_assert_eq!(left_key, plain(&format!("\"{escaped}\"")));
            let right_key = plain(&serde_json::to_string(&right).unwrap());
            prop_assert_eq!(left_key == right_key, left == right);
        }
    }
}
