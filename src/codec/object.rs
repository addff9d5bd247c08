//! Fields of a row written as one JSON object.
//!
//! Promises: a value keeps its text, digit by digit; a field that is absent is left out; bytes that are not UTF-8 are
//! written as text with their broken parts replaced.

use crate::codec::rows::{Field, Kind, Rows, Slot};
use crate::codec::scan::escape;

/// Appends the object of these fields to `into`.
pub fn write_object(rows: &Rows, row: u32, fields: &[(String, Slot)], into: &mut Vec<u8>) {
    into.push(b'{');
    let mut is_first = true;
    for (name, slot) in fields {
        let field = rows.field(row, *slot);
        if field.kind == Kind::Absent {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            into.push(b',');
        }
        into.push(b'"');
        escape(name, into);
        into.extend_from_slice(b"\":");
        write_value(rows, field, into);
    }
    into.push(b'}');
}

fn write_value(rows: &Rows, field: Field, into: &mut Vec<u8>) {
    match field.kind {
        Kind::Absent | Kind::Null => into.extend_from_slice(b"null"),
        Kind::False => into.extend_from_slice(b"false"),
        Kind::True => into.extend_from_slice(b"true"),
        Kind::Int => into.extend_from_slice(field.as_int().to_string().as_bytes()),
        Kind::Number | Kind::Array | Kind::Object => into.extend_from_slice(rows.text(field)),
        Kind::Text | Kind::Escaped => {
            into.push(b'"');
            into.extend_from_slice(rows.text(field));
            into.push(b'"');
        }
        Kind::Bytes => {
            into.push(b'"');
            escape(&String::from_utf8_lossy(rows.text(field)), into);
            into.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::rows::RowMeta;

    #[test]
    fn fields_become_members_with_their_own_text() {
        let mut rows = Rows::default();
        rows.clear(6);
        let fields = [
            rows.append(Kind::Number, b"1.50"),
            rows.append(Kind::Escaped, br"a\nb"),
            Field::NULL,
            Field::ABSENT,
            rows.append(Kind::Bytes, b"\xff\""),
            Field::int(-7),
        ];
        rows.fields.extend(fields);
        rows.meta.push(RowMeta::default());
        let named: Vec<(String, Slot)> = ["n", "t\"", "nil", "gone", "b", "i"]
            .into_iter()
            .enumerate()
            .map(|(slot, name)| (name.to_owned(), Slot(slot as u16)))
            .collect();
        let mut text = Vec::new();
        write_object(&rows, 0, &named, &mut text);
        let expected = concat!(r#"{"n":1.50,"t\"":"a\nb","nil":null,"b":""#, "\u{fffd}", r#"\"","i":-7}"#);
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
