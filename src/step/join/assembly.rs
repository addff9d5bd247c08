//! What a joined row is made of.
//!
//! Which fields of each side a join keeps and where they go, the scope says. Promises: a row that is sent has every
//! field that a later step or the sink reads; the texts of a row of this pass are not copied.

use crate::codec::packed::{Origin, Packing};
use crate::codec::rows::{Field, Kind, RowMeta, Rows};
pub use crate::codec::scope::{Either, JoinFields as Assembly};

/// The left part of a joined row.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeftPart<'a> {
    /// A row of this pass.
    Row(u32),
    /// The fields of `Assembly::left`.
    Stored(&'a [Field]),
    /// A right row alone.
    Nothing,
}

impl Assembly {
    /// Adds the joined row; answers which it is.
    pub(super) fn add(&self, rows: &mut Rows, left: LeftPart<'_>, right: Option<&[Field]>, meta: RowMeta) -> u32 {
        let row = rows.len() as u32;
        let start = rows.fields.len();
        match left {
            LeftPart::Row(row) => {
                let from = row as usize * rows.width;
                rows.fields.extend_from_within(from..from + rows.width);
            }
            LeftPart::Stored(_) | LeftPart::Nothing => rows.fields.resize(start + rows.width, Field::ABSENT),
        }
        rows.meta.push(meta);
        let into = &mut rows.fields[start..];
        if let LeftPart::Stored(fields) = left {
            self.left.slots.iter().zip(fields).for_each(|(slot, field)| into[slot.0 as usize] = *field);
        }
        if let LeftPart::Nothing = left {
            self.left.slots.iter().for_each(|slot| into[slot.0 as usize] = Field::NULL);
            let of_right = |place: usize| right.map_or(Field::NULL, |right| right[place]);
            self.keys.iter().for_each(|(place, slot)| into[slot.0 as usize] = of_right(*place));
        }
        for (place, slot) in &self.joined {
            into[slot.0 as usize] = right.map_or(Field::NULL, |right| right[*place]);
        }
        let is_alone = matches!(left, LeftPart::Nothing);
        let had_no_left = is_alone || self.alone.is_some_and(|slot| into[slot.0 as usize].kind == Kind::True);
        for Either { left, right: of_right, into: column, is_last } in &self.either {
            let of_left = into[left.0 as usize];
            // A left row that was not there has no field of this name, though its fields are null (but its key).
            let is_of_nobody = of_left.kind == Kind::Null && had_no_left && (is_alone || left != column);
            let found = match is_of_nobody || of_left.kind == Kind::Absent {
                true => right.map_or(Field::ABSENT, |right| right[*of_right]),
                false => of_left,
            };
            let is_null = found.kind == Kind::Absent && had_no_left && *is_last;
            into[column.0 as usize] = if is_null { Field::NULL } else { found };
        }
        if let Some(slot) = self.alone.filter(|_| is_alone) {
            into[slot.0 as usize] = Field::bool(true);
        }
        row
    }

    /// The fields of a right row of this pass.
    pub(super) fn right_of(&self, rows: &Rows, row: u32, fields: &mut Vec<Field>) {
        fields.clear();
        fields.extend(self.right.slots.iter().map(|slot| rows.field(row, *slot)));
    }

    /// The fields of a stored row, its texts in the arena; `None` where it is none.
    pub(super) fn unpack(packing: &Packing, bytes: &[u8], rows: &mut Rows, fields: &mut Vec<Field>) -> Option<Origin> {
        fields.clear();
        packing.unpack(bytes, &mut rows.bytes, fields)
    }
}
