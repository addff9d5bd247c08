//! What a joined row is made of.
//!
//! Owns which fields of each side a join keeps and where they go. Promises: a row that is sent has every field that a
//! later step or the sink reads; the texts of a row of this pass are not copied.

use crate::codec::packed::{Origin, Packing};
use crate::codec::rows::{Field, Kind, RowMeta, Rows, Slot};

/// The fields of a join.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assembly {
    /// Slots of the left rows that are read behind the join.
    pub left: Packing,
    /// Slots of the right rows (in their own layout) that are.
    pub right: Packing,
    /// Which of `right` becomes which field of the joined row: the object that the join adds.
    pub joined: Vec<(usize, Slot)>,
    /// Key fields: which of `right` stands for which field of a left row that is not there.
    pub keys: Vec<(usize, Slot)>,
    /// Names of columns alone: the left's field, or where it has none, the right's.
    pub either: Vec<Either>,
}

/// A field that comes from the left row, if it has one of that name, else from the right one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Either {
    pub left: Slot,
    /// Which of `right`.
    pub right: usize,
    pub into: Slot,
}

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
            let is_there = of_left.kind != Kind::Absent && !matches!(left, LeftPart::Nothing);
            let of_right = right.map_or(Field::ABSENT, |right| right[either.right]);
            into[either.into.0 as usize] = match is_there || of_right.kind == Kind::Absent {
                true => of_left,
                false => of_right,
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
