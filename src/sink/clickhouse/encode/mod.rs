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
    /// The value of this JSON text: a constant DEFAULT of a column that cannot ask the server for it per row.
    Constant(String),
    /// The row is a dead letter.
    Refuse,
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
    /// The array of objects that a flattened Nested column can also come from, and the member's name in it.
    pub nested: Option<NestedSource>,
    pub rule: ColumnRule,
    /// The wire carries Nullable(T), and the server evaluates the column's DEFAULT for each null.
    pub default_by_server: bool,
    pub absent: Filler,
    pub null: Filler,
}

/// Where a member of a flattened Nested comes from besides its own path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NestedSource {
    /// The Nested's name: columns of one name share their lengths.
    pub group: String,
    pub slot: Slot,
    pub member: String,
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
    /// Member of a flattened Nested: written by its group.
    in_group: bool,
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
            let mut column = Column::of(&binding.of, &binding.rule)
                .map_err(|problem| format!("column `{}` of `{table}`: {problem}", binding.name))?;
            if matches!(wire, Type::Nullable(_)) && column.nulls.is_none() {
                column.nulls = Some(Vec::new());
            }
            let in_group = binding.nested.is_some();
            columns.push(Bound { wire_type: wire.to_string(), column, binding, in_group });
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

    /// Names and types of the columns that a block carries.
    pub fn header(&self) -> &[ColumnHeader] {
        &self.header
    }

    fn note(&self, sizes: &mut Vec<usize>) {
        sizes.push(self.rows as usize);
        self.columns.iter().for_each(|bound| bound.column.note(sizes));
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
            for bound in self.columns.iter_mut().filter(|bound| !bound.in_group) {
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
        let mut prelude = Vec::with_capacity(256);
        put_len(self.columns.len(), &mut prelude);
        put_len(self.rows as usize, &mut prelude);
        for bound in &mut self.columns {
            put_text(bound.binding.name.as_bytes(), &mut prelude);
            put_text(bound.wire_type.as_bytes(), &mut prelude);
            self.frames.write(&prelude);
            prelude.clear();
            bound.column.write(&mut |bytes| self.frames.write(bytes));
            bound.column.clear();
        }
        let (body, hash) = self.frames.finish();
        let rows = std::mem::take(&mut self.rows);
        Some(Block { header: self.header.clone(), rows, hash, body })
    }
}

impl Bound {
    fn header(&self) -> ColumnHeader {
        ColumnHeader { name: self.binding.name.clone(), type_text: self.binding.type_text.clone() }
    }

    /// Appends this column's value of every row; `first` is the place of the first of them.
    fn append(&mut self, table: &str, rows: &Rows, alive: &[u32], first: usize, problems: &mut Vec<Problem>) {
        let binding = &self.binding;
        if let Shape::Leaf { leaf, bytes } = &mut self.column.shape {
            let nulls = &mut self.column.nulls;
            let leaf: &leaf::Leaf = leaf;
            with_writer!(leaf, put => {
                for (place, &row) in alive.iter().enumerate() {
                    let value = Value::of(rows, rows.field(row, binding.slot));
                    if value.is_null() {
                        if let Some(bad) = binding.fill_leaf(table, value, row, leaf, nulls, bytes) {
                            problems.push(Problem { place: first + place, bad });
                        }
                        continue;
                    }
                    if let Some(nulls) = nulls {
                        nulls.push(0);
                    }
                    if let Err(misfit) = put(value, bytes) {
                        problems.push(Problem { place: first + place, bad: binding.bad(table, row, value, misfit) });
                    }
                }
            });
            return;
        }
        for (place, &row) in alive.iter().enumerate() {
            let value = Value::of(rows, rows.field(row, binding.slot));
            if let Err(bad) = binding.put(table, &mut self.column, value, row) {
                problems.push(Problem { place: first + place, bad });
            }
        }
    }
}

impl Binding {
    /// Writes a value, or what an absent one becomes, into any column.
    fn put(&self, table: &str, column: &mut Column, value: Value<'_>, row: u32) -> Result<(), BadRow> {
        let value = match (value, self.filler(value)) {
            (_, None) => value,
            (_, Some(Filler::Default)) => {
                column.put_default();
                return Ok(());
            }
            (_, Some(Filler::Constant(text))) => constant(text),
            (_, Some(Filler::Refuse)) => return Err(self.missing(table, row, value)),
        };
        column.put(value).map_err(|misfit| self.bad(table, row, value, misfit))
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
    fn fill_leaf(
        &self,
        table: &str,
        value: Value<'_>,
        row: u32,
        leaf: &leaf::Leaf,
        nulls: &mut Option<Vec<u8>>,
        bytes: &mut Vec<u8>,
    ) -> Option<BadRow> {
        match self.filler(value)? {
            Filler::Default => {
                if let Some(nulls) = nulls {
                    nulls.push(1);
                }
                leaf.put_default(bytes);
                None
            }
            Filler::Constant(text) => {
                if let Some(nulls) = nulls {
                    nulls.push(0);
                }
                let value = constant(text);
                leaf.put(value, bytes).err().map(|misfit| self.bad(table, row, value, misfit))
            }
            Filler::Refuse => Some(self.missing(table, row, value)),
        }
    }

    #[cold]
    fn bad(&self, table: &str, row: u32, value: Value<'_>, misfit: Misfit) -> BadRow {
        let message = format!(
            "column `{}` of `{table}` is {}, the record has {} at `{}`{}",
            self.name,
            self.shown_type(),
            value.shown(),
            self.path,
            misfit.hint()
        );
        BadRow { row, reason: misfit.reason(), message }
    }

    #[cold]
    fn missing(&self, table: &str, row: u32, value: Value<'_>) -> BadRow {
        let (reason, why) = match value {
            Value::Null => ("null_value", "which holds no null"),
            _ => ("missing_field", "without a DEFAULT"),
        };
        let message = format!(
            "column `{}` of `{table}` is {} {why}, the record has {} at `{}` (`missing: dead_letter`)",
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

fn constant(text: &str) -> Value<'_> {
    Value::parse(text.as_bytes()).expect("the constant was parsed when the table was read")
}

#[cfg(test)]
mod tests;
