//! Rows between the steps: a batch of fixed-width rows of fields, all pointing into one arena.
//!
//! A plan gives every field that any step or column needs a [`Slot`]; a row is its `width` fields. A field is a
//! piece of JSON text in the arena (never a copy), so no number loses a digit on its way. What a step computes is
//! appended to the arena as JSON text and pointed at like all else. Steps do not move rows: they shorten the list
//! of rows that are still in (`alive`), which is in processing order.

use crate::types::Span;

/// The place of a field in a row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u16);

/// What a field's span holds. Four bytes, because padding behind a smaller one is copied by itself: a field read back
/// right after it was written then waits for its parts (a fifth of the time of the JSON pass).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Kind {
    /// Not in the payload. The same as `Null` everywhere but at the sink.
    #[default]
    Absent,
    Null,
    False,
    True,
    /// The text of a JSON number, valid by the grammar.
    Number,
    /// A whole number of our own (virtual fields): the value itself, see [`Field::int`].
    Int,
    /// The text between the quotes, valid UTF-8 without an escape.
    Text,
    /// The text between the quotes, with at least one (valid) escape.
    Escaped,
    /// The raw text of an array, brackets included.
    Array,
    /// The raw text of an object, braces included.
    Object,
    /// The raw bytes of a record key or header that are not UTF-8 (virtual fields only).
    Bytes,
}

impl Kind {
    /// Whether a field of this kind points at bytes of the arena.
    #[inline]
    pub fn has_bytes(self) -> bool {
        matches!(self, Kind::Number | Kind::Text | Kind::Escaped | Kind::Array | Kind::Object | Kind::Bytes)
    }
}

/// One field of one row: 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Field {
    a: u32,
    b: u32,
    pub kind: Kind,
}

impl Field {
    pub const ABSENT: Field = Field { a: 0, b: 0, kind: Kind::Absent };
    pub const NULL: Field = Field { a: 0, b: 0, kind: Kind::Null };

    /// A field whose text is `span` of the arena.
    #[inline]
    pub fn text(kind: Kind, span: Span) -> Field {
        Field { a: span.start, b: span.len, kind }
    }

    /// A whole number.
    #[inline]
    pub fn int(value: i64) -> Field {
        Field { a: value as u32, b: (value >> 32) as u32, kind: Kind::Int }
    }

    #[inline]
    pub fn bool(value: bool) -> Field {
        Field { a: 0, b: 0, kind: if value { Kind::True } else { Kind::False } }
    }

    /// The value of an `Int` field.
    #[inline]
    pub fn as_int(self) -> i64 {
        debug_assert_eq!(self.kind, Kind::Int);
        (self.b as i64) << 32 | self.a as i64
    }

    /// The place of the text of a `Number`, `Text`, `Escaped`, `Array`, `Object` or `Bytes` field.
    #[inline]
    pub fn span(self) -> Span {
        Span { start: self.a, len: self.b }
    }

    /// Absent or null: the same everywhere but at the sink.
    #[inline]
    pub fn is_null(self) -> bool {
        matches!(self.kind, Kind::Absent | Kind::Null)
    }
}

/// Where a row came from and when it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowMeta {
    /// Event time.
    pub time_ms: i64,
    /// The task's watermark when this row is judged, the row itself included. Set by the task.
    pub watermark_ms: i64,
    /// The row's Kafka timestamp; -1 where it has none.
    pub timestamp_ms: i64,
    pub offset: i64,
    /// Which input of the task.
    pub input: u16,
    /// Which record of that input's batch.
    pub record: u32,
}

/// How far a batch of rows goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    rows: usize,
    bytes: usize,
}

/// A batch of rows.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The arena. Decoding moves the record batch's bytes here, so records' spans stay true.
    pub bytes: Vec<u8>,
    /// Fields, row after row.
    pub fields: Vec<Field>,
    pub meta: Vec<RowMeta>,
    /// Fields per row.
    pub width: usize,
}

impl Rows {
    /// Forgets the rows and keeps the memory; rows will have `width` fields.
    pub fn clear(&mut self, width: usize) {
        self.bytes.clear();
        self.fields.clear();
        self.meta.clear();
        self.width = width;
    }

    /// How far the rows and their arena go now, for [`Rows::cut`].
    pub fn extent(&self) -> Extent {
        Extent { rows: self.len(), bytes: self.bytes.len() }
    }

    /// Takes away what was added since.
    pub fn cut(&mut self, to: Extent) {
        self.meta.truncate(to.rows);
        self.fields.truncate(to.rows * self.width);
        self.bytes.truncate(to.bytes);
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    #[inline]
    pub fn field(&self, row: u32, slot: Slot) -> Field {
        self.fields[row as usize * self.width + slot.0 as usize]
    }

    #[inline]
    pub fn set(&mut self, row: u32, slot: Slot, field: Field) {
        self.fields[row as usize * self.width + slot.0 as usize] = field;
    }

    /// The fields of one row.
    #[inline]
    pub fn row(&self, row: u32) -> &[Field] {
        let start = row as usize * self.width;
        &self.fields[start..start + self.width]
    }

    /// The bytes of a field that has some ([`Kind::has_bytes`]).
    #[inline]
    pub fn text(&self, field: Field) -> &[u8] {
        &self.bytes[field.span().range()]
    }

    /// Appends a row of another batch, with the bytes of its fields.
    pub fn push_row(&mut self, from: &Rows, row: u32) {
        let start = self.fields.len();
        for field in from.row(row) {
            let field = match field.kind.has_bytes() {
                true => self.append(field.kind, from.text(*field)),
                false => *field,
            };
            self.fields.push(field);
        }
        self.fields.resize(start + self.width, Field::ABSENT);
        self.meta.push(from.meta[row as usize]);
    }

    /// Appends computed text to the arena.
    pub fn append(&mut self, kind: Kind, text: &[u8]) -> Field {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        Field::text(kind, Span { start, len: text.len() as u32 })
    }
}

/// A row that became a dead letter: which one, where, why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRow {
    /// The row, or for a payload that could not be decoded, the record of its batch.
    pub row: u32,
    /// A short stable name (a metric label), such as `value_out_of_range`.
    pub reason: &'static str,
    /// The sentence a person reads; names the column or field, the type and the value.
    pub message: String,
}
