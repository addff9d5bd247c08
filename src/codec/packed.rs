//! A row outside of its batch: where it came from and the fields that are needed later, in one piece of bytes.
//!
//! Owns that form. Promises: a row comes back in any arena with the fields that went in, digit by digit; what was
//! not written here is answered with nothing, never with a wrong field.
//!
//! ```text
//! input u16 │ offset i64 │ timestamp i64 │ per slot: kind u8 │ int i64, or length (varint) and text │
//! ```

use crate::codec::rows::{Field, Kind, RowMeta, Rows, Slot};
use crate::types::Span;

/// `RowMeta::record` of a row that is not of this pass.
pub const NOT_OF_THIS_PASS: u32 = u32::MAX;

/// Which slots are packed, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packing {
    pub slots: Vec<Slot>,
}

/// Where a packed row came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pub input: u16,
    pub offset: i64,
    pub timestamp_ms: i64,
}

impl Packing {
    /// Appends a row's origin and the fields of the slots.
    pub fn pack(&self, rows: &Rows, row: u32, into: &mut Vec<u8>) {
        let meta = &rows.meta[row as usize];
        into.extend_from_slice(&meta.input.to_le_bytes());
        into.extend_from_slice(&meta.offset.to_le_bytes());
        into.extend_from_slice(&meta.timestamp_ms.to_le_bytes());
        for &slot in &self.slots {
            let field = rows.field(row, slot);
            into.push(field.kind as u8);
            match field.kind {
                Kind::Absent | Kind::Null | Kind::False | Kind::True => {}
                Kind::Int => into.extend_from_slice(&field.as_int().to_le_bytes()),
                _ => {
                    let text = rows.text(field);
                    put_len(text.len() as u32, into);
                    into.extend_from_slice(text);
                }
            }
        }
    }

    /// Appends the texts to the arena and one field for each slot to `fields`. `None`: not what `pack` wrote.
    pub fn unpack(&self, packed: &[u8], arena: &mut Vec<u8>, fields: &mut Vec<Field>) -> Option<Origin> {
        let mut rest = packed;
        let origin = Origin {
            input: u16::from_le_bytes(take(&mut rest)?),
            offset: i64::from_le_bytes(take(&mut rest)?),
            timestamp_ms: i64::from_le_bytes(take(&mut rest)?),
        };
        for _ in &self.slots {
            let [kind] = take(&mut rest)?;
            fields.push(match kind_of(kind)? {
                Kind::Int => Field::int(i64::from_le_bytes(take(&mut rest)?)),
                kind @ (Kind::Absent | Kind::Null | Kind::False | Kind::True) => Field::text(kind, Span::default()),
                kind => {
                    let len = take_len(&mut rest)?;
                    let (text, behind) = rest.split_at_checked(len as usize)?;
                    rest = behind;
                    let start = arena.len() as u32;
                    arena.extend_from_slice(text);
                    Field::text(kind, Span { start, len })
                }
            });
        }
        rest.is_empty().then_some(origin)
    }
}

impl Origin {
    /// As the row of a later pass.
    pub fn meta(self, time_ms: i64, watermark_ms: i64) -> RowMeta {
        let Origin { input, offset, timestamp_ms } = self;
        RowMeta { time_ms, watermark_ms, timestamp_ms, offset, input, record: NOT_OF_THIS_PASS }
    }
}

const KINDS: [Kind; 11] = [
    Kind::Absent,
    Kind::Null,
    Kind::False,
    Kind::True,
    Kind::Number,
    Kind::Int,
    Kind::Text,
    Kind::Escaped,
    Kind::Array,
    Kind::Object,
    Kind::Bytes,
];

fn kind_of(byte: u8) -> Option<Kind> {
    KINDS.get(byte as usize).copied()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*head)
}

/// Seven bits a byte, the lowest first; most texts are shorter than 128 bytes.
fn put_len(mut len: u32, into: &mut Vec<u8>) {
    while len >= 0x80 {
        into.push(len as u8 | 0x80);
        len >>= 7;
    }
    into.push(len as u8);
}

fn take_len(rest: &mut &[u8]) -> Option<u32> {
    let mut len = 0u64;
    for shift in (0..35).step_by(7) {
        let [byte] = take(rest)?;
        len |= ((byte & 0x7f) as u64) << shift;
        if byte < 0x80 {
            return u32::try_from(len).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A field of any kind; texts need not be JSON here.
    fn add(rows: &mut Rows, kind: u8, number: i64, text: &[u8]) -> Field {
        match KINDS[kind as usize % KINDS.len()] {
            Kind::Int => Field::int(number),
            kind @ (Kind::Absent | Kind::Null | Kind::False | Kind::True) => Field::text(kind, Span::default()),
            kind => rows.append(kind, text),
        }
    }

    #[test]
    fn each_kind_has_its_own_number() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    proptest! {
        #[test]
        fn a_row_comes_back_as_it_went_in(
            values in prop::collection::vec((any::<u8>(), any::<i64>(), prop::collection::vec(any::<u8>(), 0..300)), 0..6),
            offset: i64,
            timestamp_ms: i64,
            input: u16,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut rows = Rows { width: values.len(), ..Rows::default() };
            let fields: Vec<Field> = values.iter().map(|(kind, number, text)| add(&mut rows, *kind, *number, text)).collect();
            rows.fields.extend(&fields);
            rows.meta.push(RowMeta { offset, timestamp_ms, input, ..RowMeta::default() });
            let packing = Packing { slots: (0..values.len() as u16).map(Slot).collect() };
            let mut packed = Vec::new();
            packing.pack(&rows, 0, &mut packed);

            let mut arena = b"before".to_vec();
            let mut back = Vec::new();
            let origin = packing.unpack(&packed, &mut arena, &mut back).unwrap();
            prop_assert_eq!(origin, Origin { input, offset, timestamp_ms });
            for (before, after) in fields.iter().zip(&back) {
                prop_assert_eq!(before.kind, after.kind);
                match before.kind {
                    Kind::Int => prop_assert_eq!(before.as_int(), after.as_int()),
                    _ => prop_assert_eq!(rows.text(*before), &arena[after.span().range()]),
                }
            }
            let cut = cut.index(packed.len());
            prop_assert_eq!(packing.unpack(&packed[..cut], &mut arena, &mut back), None);
        }
    }
}
