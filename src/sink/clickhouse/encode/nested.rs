//! The columns of a flattened Nested: arrays that must have one length in every row, or the server refuses the
//! whole block (190). They come each from its own path, or together from an array of objects.

use super::json::Value;
use super::{Bound, Filler, Misfit, Problem};
use crate::codec::rows::{BadRow, Rows, Slot};

/// Columns that share their lengths.
pub(super) struct NestedGroup {
    /// Places in the builder's columns.
    members: Vec<usize>,
    /// Where an array of objects would stand.
    slot: Slot,
}

impl NestedGroup {
    /// The groups among a builder's columns.
    pub(super) fn of(columns: &[Bound]) -> Vec<NestedGroup> {
        let mut groups: Vec<(&str, NestedGroup)> = Vec::new();
        for (at, bound) in columns.iter().enumerate() {
            let Some(nested) = &bound.binding.nested else { continue };
            match groups.iter_mut().find(|(name, _)| *name == nested.group) {
                Some((_, group)) => group.members.push(at),
                None => groups.push((&nested.group, NestedGroup { members: vec![at], slot: nested.slot })),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    pub(super) fn append(
        &self,
        columns: &mut [Bound],
        table: &str,
        rows: &Rows,
        alive: &[u32],
        first: usize,
        problems: &mut Vec<Problem>,
    ) {
        for (place, &row) in alive.iter().enumerate() {
            self.append_row(columns, table, rows, row, first + place, problems);
        }
    }

    fn append_row(
        &self,
        columns: &mut [Bound],
        table: &str,
        rows: &Rows,
        row: u32,
        place: usize,
        problems: &mut Vec<Problem>,
    ) {
        let objects = Value::of(rows, rows.field(row, self.slot));
        let mut len = None;
        // Members that have a value fix the length; those that have none follow.
        for absent in [false, true] {
            for &member in &self.members {
                let bound = &mut columns[member];
                let source = Source::of(Value::of(rows, rows.field(row, bound.binding.slot)), objects);
                if absent != matches!(source, Source::Nothing(_)) {
                    continue;
                }
                match put(bound, table, source, row, len) {
                    Ok(written_len) => len = Some(written_len),
                    Err(bad) => {
                        problems.push(Problem { place, bad });
                        return;
                    }
                }
            }
        }
    }
}

/// Where a member's array comes from in one row.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Its own field.
    Own(Value<'a>),
    /// An array of objects.
    Objects(&'a [u8]),
    /// Absent or null.
    Nothing(Value<'a>),
}

impl<'a> Source<'a> {
    fn of(own: Value<'a>, objects: Value<'a>) -> Source<'a> {
        match (own, objects) {
            (own, Value::Array(objects)) if own.is_null() => Source::Objects(objects),
            (own, _) if own.is_null() => Source::Nothing(own),
            (own, _) => Source::Own(own),
        }
    }
}

/// Writes one member's array and gives its length, which must be `len` where that is known.
fn put(bound: &mut Bound, table: &str, source: Source<'_>, row: u32, len: Option<u64>) -> Result<u64, BadRow> {
    let binding = &bound.binding;
    let column = &mut bound.column;
    let value = match source {
        Source::Own(value) | Source::Nothing(value) => value,
        Source::Objects(objects) => Value::Array(objects),
    };
    match source {
        Source::Nothing(value) if binding.filler(value) == Some(&Filler::Default) => {
            column.put_defaults_array(len.unwrap_or(0));
        }
        Source::Own(value) | Source::Nothing(value) => binding.put(table, column, value, row)?,
        Source::Objects(objects) => {
            let nested = binding.nested.as_ref().expect("a member of a group");
            let outcome = column.put_transposed(objects, nested.member.as_bytes());
            outcome.map_err(|misfit| binding.bad(table, row, value, misfit))?;
        }
    }
    let written_len = column.last_len();
    match len {
        Some(len) if len != written_len => Err(binding.bad(table, row, value, Misfit::Lengths)),
        _ => Ok(written_len),
    }
}
