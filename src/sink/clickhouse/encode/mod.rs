//! The encoder: rows into the columns of one ClickHouse Native block.
//!
//! Owns the buffers of an epoch's rows for one table and keeps their memory from block to block. Promises: a row is
//! in every column or, after `rollback`, in none; what fits and what does not is decided by the value and the
//! column's type alone (`semantics.md`, Mapping). Never reads a clock, never talks to a server.

pub mod column;
pub mod instant;
pub mod json;
pub mod leaf;
mod nested;
pub mod number;
mod object;

use self::column::{Column, ColumnRule, Shape};
use self::json::Value;
use self::leaf::{put_len, put_text, with_writer};
use self::nested::NestedGroup;
use super::frames::FrameWriter;
use super::types::Type;
use crate::codec::rows::{BadRow, Rows, Slot};
use crate::config::plan::BlockCompression;
use crate::sink::{Block, BlockBuilder, BuilderMark, ColumnHeader};

/// Why a value does not go into a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// Another kind of value than the type takes.
    Kind,
    OutOfRange,
    /// Digits behind the point that the type does not hold.
    Fraction,
    /// A number where only a `unit` would say what it means.
    NoUnit,
    UnknownName,
    TooLong,
    /// Arrays of a Nested, or elements of a tuple.
    Lengths,
    GivenTwice,
    Null,
    /// JSON that does not end well.
    Broken,
}

impl From<crate::codec::number::Misfit> for Misfit {
    fn from(misfit: crate::codec::number::Misfit) -> Misfit {
        use crate::codec::number::Misfit as Number;
        match misfit {
            Number::NotANumber => Misfit::Kind,
            Number::Inexact => Misfit::Fraction,
            Number::OutOfRange => Misfit::OutOfRange,
        }
    }
}

impl Misfit {
    fn reason(self) -> &'static str {
        match self {
            Misfit::OutOfRange => "value_out_of_range",
            Misfit::Fraction => "value_not_exact",
            _ => "value_does_not_fit",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Misfit::Kind => "",
            Misfit::OutOfRange => " (out of range)",
            Misfit::Fraction => " (more digits behind the point than it holds)",
            Misfit::NoUnit => " (a number there needs a `unit`)",
            Misfit::UnknownName => " (not one of its names)",
            Misfit::TooLong => " (too long)",
            Misfit::Lengths => " (the lengths do not match)",
            Misfit::GivenTwice => " (a name is given twice)",
            Misfit::Null => " (null where it holds none)",
            Misfit::Broken => " (broken JSON)",
        }
    }
}

/// What an absent field, or a null, becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filler {
    /// Null where the column holds it on the wire, else the type's default.
    Default,
    /// The value of this JSON text: a DEFAULT that is the same in every row, of a column that cannot ask the server
    /// for it per row.
    Constant(Vec<u8>),
    /// A DEFAULT that differs from row to row, of a column that cannot ask for it per row: the column stays away from
    /// a block none of whose rows has the field, so that the server fills it in; in others it is as `Default`.
    Server,
    /// The row is a dead letter.
    Refuse(Refusal),
}

/// Why a row without a value is a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `missing: dead_letter`.
    Strict,
    /// As `Filler::Server`, but the configuration fills the column by name.
    VaryingDefault,
}

/// A column of the table and what fills it.
#[derive(Clone, Debug)]
pub struct Binding {
    pub name: String,
    /// As in `system.columns`.
    pub type_text: String,
    pub of: Type,
    /// The field path, for messages.
    pub path: String,
    pub slot: Slot,
    /// For a member of a flattened Nested.
    pub nested: Option<NestedSource>,
    pub rule: ColumnRule,
    /// The wire carries Nullable(T), and the server evaluates the column's DEFAULT for each null.
    pub default_by_server: bool,
    pub absent: Filler,
    pub null: Filler,
}

/// Which Nested a flattened member belongs to, and where it comes from besides its own path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NestedSource {
    /// The Nested's name: columns of one name share their lengths.
    pub group: String,
    /// The field that may hold an array of objects, and the member's name in them; `None`: the configuration names
    /// the field that fills the column.
    pub objects: Option<(Slot, String)>,
}

/// Collects rows for one table. See [`BlockBuilder`].
pub struct NativeBuilder {
    table: String,
    columns: Vec<Bound>,
    nested: Vec<NestedGroup>,
    header: Vec<ColumnHeader>,
    rows: u64,
    /// Sizes of all buffers at each mark, `mark_len` each; the first is the number of rows.
    marks: Vec<usize>,
    mark_len: usize,
    frames: FrameWriter,
    problems: Vec<Problem>,
}

/// A column with its buffers.
struct Bound {
    binding: Binding,
    wire_type: String,
    column: Column,
    /// The value of `Filler::Constant`: one row.
    constant: Option<Column>,
    /// Rows that have the field; counted for `Filler::Server` only.
    filled: usize,
}

/// Rows per pass over the columns: their fields and text stay in the fast cache until the last column is done.
const CHUNK_ROWS: usize = 128;

/// A row that cannot be written, by its place in the list of rows.
struct Problem {
    place: usize,
    bad: BadRow,
}

impl NativeBuilder {
    /// An empty builder for `table` (its name is for messages). The error is a sentence for `check`.
    pub fn new(table: &str, bindings: Vec<Binding>, compression: BlockCompression) -> Result<NativeBuilder, String> {
        let mut columns = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let wire = match (binding.default_by_server, binding.of.wire()) {
                (true, plain) if !matches!(plain, Type::Nullable(_)) => Type::Nullable(Box::new(plain)),
                (_, wire) => wire,
            };
            let named = |problem| format!("column `{}` of `{table}`: {problem}", binding.name);
            let mut column = Column::of(&binding.of, &binding.rule).map_err(named)?;
            if matches!(wire, Type::Nullable(_)) && column.nulls.is_none() {
                column.nulls = Some(Vec::new());
            }
            let constant = match &binding.absent {
                Filler::Constant(text) => Some(Column::of_constant(&binding.of, &binding.rule, text).map_err(named)?),
                _ => None,
            };
            columns.push(Bound { wire_type: wire.to_string(), column, constant, filled: 0, binding });
        }
        let header = columns.iter().map(Bound::header).collect();
        let nested = NestedGroup::of(&columns);
        let mut builder = NativeBuilder {
            table: table.to_owned(),
            columns,
            nested,
            header,
            rows: 0,
            marks: Vec::new(),
            mark_len: 0,
            frames: FrameWriter::new(compression),
            problems: Vec::new(),
        };
        let mut sizes = Vec::new();
        builder.note(&mut sizes);
        builder.mark_len = sizes.len();
        Ok(builder)
    }

    /// Names and types of the columns that a block carries when its rows have all fields.
    pub fn header(&self) -> &[ColumnHeader] {
        &self.header
    }

    fn note(&self, sizes: &mut Vec<usize>) {
        sizes.push(self.rows as usize);
        for bound in &self.columns {
            sizes.push(bound.filled);
            bound.column.note(sizes);
        }
    }

    /// Which columns go into the block: not those that are left to the server, unless nothing else is there.
    fn sent(&self) -> Vec<bool> {
        let sent: Vec<bool> = self.columns.iter().map(|bound| !bound.is_left_to_server()).collect();
        if sent.contains(&true) { sent } else { vec![true; sent.len()] }
    }

    fn report(&mut self, bad: &mut Vec<BadRow>) {
        // A row can be bad in several columns; the first of them tells.
        self.problems.sort_by_key(|problem| problem.place);
        self.problems.dedup_by_key(|problem| problem.place);
        bad.extend(self.problems.drain(..).map(|problem| problem.bad));
    }
}

impl BlockBuilder for NativeBuilder {
    fn append(&mut self, rows: &Rows, alive: &[u32], bad: &mut Vec<BadRow>) {
        for (at, chunk) in alive.chunks(CHUNK_ROWS).enumerate() {
            let first = at * CHUNK_ROWS;
            for bound in self.columns.iter_mut().filter(|bound| bound.binding.nested.is_none()) {
                bound.append(&self.table, rows, chunk, first, &mut self.problems);
            }
            for group in &self.nested {
                group.append(&mut self.columns, &self.table, rows, chunk, first, &mut self.problems);
            }
        }
        self.rows += alive.len() as u64;
        if !self.problems.is_empty() {
            self.report(bad);
        }
    }

    fn mark(&mut self) -> BuilderMark {
        let last = self.marks.len().checked_sub(self.mark_len);
        if let Some(last) = last
            && self.marks[last] == self.rows as usize
        {
            return BuilderMark((last / self.mark_len) as u64);
        }
        let mut marks = std::mem::take(&mut self.marks);
        self.note(&mut marks);
        self.marks = marks;
        BuilderMark((self.marks.len() / self.mark_len - 1) as u64)
    }

    fn rollback(&mut self, mark: BuilderMark) {
        let start = mark.0 as usize * self.mark_len;
        self.marks.truncate(start + self.mark_len);
        let mut sizes = self.marks[start..].iter().copied();
        self.rows = sizes.next().expect("a mark begins with the rows") as u64;
        for bound in &mut self.columns {
            bound.filled = sizes.next().expect("every column's rows were noted");
            bound.column.cut(&mut sizes);
        }
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(|bound| bound.column.size_bytes()).sum()
    }

    fn seal(&mut self) -> Option<Block> {
        self.marks.clear();
        if self.rows == 0 {
            return None;
        }
        let sent = self.sent();
        let header = self.header.iter().zip(&sent).filter(|(_, sent)| **sent).map(|(column, _)| column.clone());
        let header: Vec<ColumnHeader> = header.collect();
        let mut prelude = Vec::with_capacity(256);
        put_len(header.len(), &mut prelude);
        put_len(self.rows as usize, &mut prelude);
        for (bound, sent) in self.columns.iter_mut().zip(sent) {
            if sent {
                put_text(bound.binding.name.as_bytes(), &mut prelude);
                put_text(bound.wire_type.as_bytes(), &mut prelude);
                self.frames.write(&prelude);
                prelude.clear();
                bound.column.write(&mut |bytes| self.frames.write(bytes));
            }
            bound.filled = 0;
            bound.column.clear();
        }
        let (body, hash) = self.frames.finish();
        let rows = std::mem::take(&mut self.rows);
        Some(Block { header, rows, hash, body })
    }
}

impl Bound {
    fn header(&self) -> ColumnHeader {
        ColumnHeader { name: self.binding.name.clone(), type_text: self.binding.type_text.clone() }
    }

    fn is_left_to_server(&self) -> bool {
        self.binding.absent == Filler::Server && self.filled == 0
    }

    /// Appends this column's value of every row; `first` is the place of the first of them.
    fn append(&mut self, table: &str, rows: &Rows, alive: &[u32], first: usize, problems: &mut Vec<Problem>) {
        let binding = &self.binding;
        if binding.absent == Filler::Server {
            let has_field = |row: &&u32| {
                let value = Value::of(rows, rows.field(**row, binding.slot));
                binding.filler(value) != Some(&Filler::Server)
            };
            self.filled += alive.iter().filter(has_field).count();
        }
        if let Shape::Leaf { leaf, bytes } = &mut self.column.shape {
            let nulls = &mut self.column.nulls;
            let leaf: &leaf::Leaf = leaf;
            with_writer!(leaf, put => {
                for (place, &row) in alive.iter().enumerate() {
                    let value = Value::of(rows, rows.field(row, binding.slot));
                    if value.is_null() {
                        if let Some(bad) = binding.fill_leaf(table, value, row, leaf, &self.constant, nulls, bytes) {
                            problems.push(Problem { place: first + place, bad });
                        }
                        continue;
                    }
                    if let Some(nulls) = nulls {
                        nulls.push(0);
                    }
                    if let Err(misfit) = put(value, bytes) {
                        let bad = binding.bad(table, row, &binding.path, value, misfit);
                        problems.push(Problem { place: first + place, bad });
                    }
                }
            });
            return;
        }
        for (place, &row) in alive.iter().enumerate() {
            let value = Value::of(rows, rows.field(row, binding.slot));
            if let Err(bad) = binding.put(table, &mut self.column, &self.constant, value, row) {
                problems.push(Problem { place: first + place, bad });
            }
        }
    }
}

impl Binding {
    /// Writes a value, or what an absent one becomes, into any column.
    fn put(
        &self,
        table: &str,
        column: &mut Column,
        constant: &Option<Column>,
        value: Value<'_>,
        row: u32,
    ) -> Result<(), BadRow> {
        match self.filler(value) {
            None => column.put(value).map_err(|misfit| self.bad(table, row, &self.path, value, misfit))?,
            Some(Filler::Default | Filler::Server) => column.put_default(),
            Some(Filler::Constant(_)) => column.append(constant.as_ref().expect("made with the builder")),
            Some(Filler::Refuse(why)) => return Err(self.missing(table, row, value, *why)),
        }
        Ok(())
    }

    fn filler(&self, value: Value<'_>) -> Option<&Filler> {
        match value {
            Value::Absent => Some(&self.absent),
            Value::Null => Some(&self.null),
            _ => None,
        }
    }

    /// What becomes of an absent field or a null in a column of single values.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the column is borrowed in pieces")]
    fn fill_leaf(
        &self,
        table: &str,
        value: Value<'_>,
        row: u32,
        leaf: &leaf::Leaf,
        constant: &Option<Column>,
        nulls: &mut Option<Vec<u8>>,
        bytes: &mut Vec<u8>,
    ) -> Option<BadRow> {
        match self.filler(value)? {
            Filler::Default | Filler::Server => {
                if let Some(nulls) = nulls {
                    nulls.push(1);
                }
                leaf.put_default(bytes);
                None
            }
            Filler::Constant(_) => {
                let Some(Column { nulls: its_nulls, shape: Shape::Leaf { bytes: its_bytes, .. } }) = constant else {
                    unreachable!("made with the builder, from the same type");
                };
                if let (Some(nulls), Some(its_nulls)) = (nulls, its_nulls) {
                    nulls.extend_from_slice(its_nulls);
                }
                bytes.extend_from_slice(its_bytes);
                None
            }
            Filler::Refuse(why) => Some(self.missing(table, row, value, *why)),
        }
    }

    /// `at` is the path at which the value stands.
    #[cold]
    fn bad(&self, table: &str, row: u32, at: &str, value: Value<'_>, misfit: Misfit) -> BadRow {
        let message = format!(
            "column `{}` of `{table}` is {}, the record has {} at `{at}`{}",
            self.name,
            self.shown_type(),
            value.shown(),
            misfit.hint()
        );
        BadRow { row, reason: misfit.reason(), message }
    }

    #[cold]
    fn missing(&self, table: &str, row: u32, value: Value<'_>, why: Refusal) -> BadRow {
        let reason = if value == Value::Null { "null_value" } else { "missing_field" };
        let (is, why) = match (why, value) {
            (Refusal::Strict, Value::Null) => ("which holds no null", "`missing: dead_letter`"),
            (Refusal::Strict, _) => ("without a DEFAULT", "`missing: dead_letter`"),
            (Refusal::VaryingDefault, _) => {
                ("with a DEFAULT that cannot be asked for row by row", "`columns` fills it from the record")
            }
        };
        let message = format!(
            "column `{}` of `{table}` is {} {is}, the record has {} at `{}` ({why})",
            self.name,
            self.shown_type(),
            value.shown(),
            self.path
        );
        BadRow { row, reason, message }
    }

    fn shown_type(&self) -> String {
        self.type_text.replace(", ", ",")
    }
}

#[cfg(test)]
mod tests;
