//! What a tombstone of a table deletes: the fields of its key, out of the record key.
//!
//! Owns that reading. A plain record key is text, and where it is written as a number, that number as well, for it does
//! not tell which of both the payloads hold; JSON text in quotes is text, and an object holds the key's fields by their
//! names. Promises: a key of several fields is never read from half of them.

use crate::codec::decode::raw_field;
use crate::codec::extract::Extractor;
use crate::codec::rows::{Field, Kind, Rows, Slot};
use crate::codec::scan::Text;
use crate::codec::scope::{PayloadPath, in_backticks};
use crate::types::Span;

/// Reads the key of a deletion.
#[derive(Clone, Debug)]
pub struct DeletionKey {
    slots: Vec<Slot>,
    extractor: Extractor,
    /// The key is the record key as it is, which is filled like in any row.
    is_record_key: bool,
    /// It is compared by its type, too: 1 and "1" differ.
    is_typed: bool,
}

/// What a record key says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deleted {
    /// It is none.
    Nothing,
    /// The key that the row's slots hold now.
    Key,
    /// That one, a number, and the same as text.
    NumberAndText { slot: Slot, text: Field },
}

impl DeletionKey {
    /// The key's fields in their order, each with the slot that the join reads.
    pub fn new(fields: impl IntoIterator<Item = (String, Slot)>) -> DeletionKey {
        let fields: Vec<(String, Slot)> = fields.into_iter().collect();
        let is_record_key = matches!(fields.as_slice(), [(path, _)] if path == "_key");
        let plain = |path: &str| in_backticks(path).unwrap_or(path).to_owned();
        let paths: Vec<PayloadPath> =
            fields.iter().map(|(path, slot)| PayloadPath { parts: vec![plain(path)], slot: *slot }).collect();
        let slots = paths.iter().map(|path| path.slot).collect();
        DeletionKey { slots, extractor: Extractor::new(&paths), is_record_key, is_typed: true }
    }

    /// The join reads its key as one type: which one a record key was written as makes no difference.
    pub fn cast(self) -> DeletionKey {
        DeletionKey { is_typed: false, ..self }
    }

    /// Fills the key's slots of the row whose fields begin at `start`.
    pub(super) fn read(&mut self, key: Span, start: usize, rows: &mut Rows) -> Deleted {
        if self.is_record_key {
            return Deleted::Key;
        }
        let text = rows.bytes[key.range()].trim_ascii();
        if text.first() == Some(&b'{') {
            let is_read = self.extractor.extract(&rows.bytes, key, &mut rows.fields[start..]).is_ok()
                && self.slots.iter().all(|slot| rows.fields[start + slot.0 as usize].kind != Kind::Absent);
            return if is_read { Deleted::Key } else { Deleted::Nothing };
        }
        let [slot] = self.slots[..] else { return Deleted::Nothing };
        if text.is_empty() {
            return Deleted::Nothing;
        }
        let field = json_scalar(&rows.bytes, key).unwrap_or_else(|| raw_field(key, rows));
        rows.fields[start + slot.0 as usize] = field;
        match field.kind {
            Kind::Bytes => Deleted::Nothing,
            Kind::Number if self.is_typed => {
                Deleted::NumberAndText { slot, text: Field::text(Kind::Text, field.span()) }
            }
            _ => Deleted::Key,
        }
    }
}

/// A number, or text in quotes, with nothing beside it.
fn json_scalar(bytes: &[u8], key: Span) -> Option<Field> {
    let text = Text::new(bytes, key.range().end);
    let (field, end) = text.value(text.skip_space(key.range().start), 0).ok()?;
    let is_all = text.skip_space(end) == text.end;
    (is_all && matches!(field.kind, Kind::Number | Kind::Text | Kind::Escaped)).then_some(field)
}
