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
        for either in &self.either {
            let of_left = into[either.left.0 as usize];
            let of_right = right.map_or(Field::ABSENT, |right| right[either.right]);
            into[either.into.0 as usize] = match left {
                // A left row that is not there has no fields but its key.
                LeftPart::Nothing if of_left.is_null() && of_right.is_null() => Field::NULL,
                LeftPart::Nothing if of_left.is_null() => of_right,
                _ if of_left.kind == Kind::Absent && of_right.kind != Kind::Absent => of_right,
                _ => of_left,
            };
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
