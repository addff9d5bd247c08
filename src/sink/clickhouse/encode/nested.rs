//! The columns of a flattened Nested: arrays that must have one length in every row, or the server refuses the
//! whole block (190). They come each from its own path, or together from an array of objects.

use super::json::Value;
use super::{Bound, Filler, Misfit, Problem};
use crate::codec::rows::{BadRow, Rows, Slot};

/// Columns that share their lengths.
pub(super) struct NestedGroup {
    /// Places in the builder's columns.
    members: Vec<usize>,
    /// Where an array of objects would stand; `None`: the configuration names a field for each member.
    slot: Option<Slot>,
}

impl NestedGroup {
    /// The groups among a builder's columns.
    pub(super) fn of(columns: &[Bound]) -> Vec<NestedGroup> {
        let mut groups: Vec<(&str, NestedGroup)> = Vec::new();
        for (at, bound) in columns.iter().enumerate() {
            let Some(nested) = &bound.binding.nested else { continue };
            let slot = nested.objects.as_ref().map(|(slot, _)| *slot);
            match groups.iter_mut().find(|(name, _)| *name == nested.group) {
                Some((_, group)) => {
                    group.members.push(at);
                    group.slot = group.slot.or(slot);
                }
                None => groups.push((&nested.group, NestedGroup { members: vec![at], slot })),
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
        let objects = self.slot.map_or(Value::Absent, |slot| Value::of(rows, rows.field(row, slot)));
        let mut len = None;
        // Members that have a value fix the length; those that have none follow.
        for absent in [false, true] {
            for &member in &self.members {
                let bound = &mut columns[member];
                let nested = bound.binding.nested.as_ref().expect("a member of a group");
                let objects = if nested.objects.is_some() { objects } else { Value::Absent };
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
    /// In the place of the whole Nested stands what is none.
    Misplaced(Value<'a>),
    /// Absent or null.
    Nothing(Value<'a>),
}

impl<'a> Source<'a> {
    fn of(own: Value<'a>, objects: Value<'a>) -> Source<'a> {
        match (own, objects) {
            (own, _) if !own.is_null() => Source::Own(own),
            (_, Value::Array(objects)) => Source::Objects(objects),
            // An object may hold the arrays of other members.
            (own, Value::Absent | Value::Null | Value::Object(_)) => Source::Nothing(own),
            (_, scalar) => Source::Misplaced(scalar),
        }
    }
}

/// Writes one member's array and gives its length, which must be `len` where that is known.
fn put(bound: &mut Bound, table: &str, source: Source<'_>, row: u32, len: Option<u64>) -> Result<u64, BadRow> {
    let binding = &bound.binding;
    let column = &mut bound.column;
    let nested = binding.nested.as_ref().expect("a member of a group");
    let (value, at) = match source {
        Source::Own(value) | Source::Nothing(value) => (value, &binding.path),
        Source::Objects(objects) => (Value::Array(objects), &nested.group),
        Source::Misplaced(value) => (value, &nested.group),
    };
    let bad = |misfit| binding.bad(table, row, at, value, misfit);
    match source {
        Source::Nothing(value) if binding.filler(value) == Some(&Filler::Default) => {
            column.put_defaults_array(len.unwrap_or(0));
        }
        Source::Own(value) | Source::Nothing(value) => binding.put(table, column, &bound.constant, value, row)?,
        Source::Objects(objects) => {
            let (_, member) = nested.objects.as_ref().expect("it takes objects");
            column.put_transposed(objects, member.as_bytes()).map_err(bad)?;
        }
        Source::Misplaced(_) => return Err(bad(Misfit::Kind)),
    }
    let written_len = column.last_len();
    match len {
        Some(len) if len != written_len => Err(bad(Misfit::Lengths)),
        _ => Ok(written_len),
    }
}
