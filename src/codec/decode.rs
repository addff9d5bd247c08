//! From a batch of records to a batch of rows.
//!
//! Owns what a record becomes: a row, a skipped tombstone, or a dead letter with its reason. Promises: rows are in
//! the records' order; the payload is not copied (the batch's arena moves into the rows); the only clock is the
//! epoch's noted one, handed in.

mod deletion;

use crate::codec::extract::Extractor;
use crate::codec::record::{Record, RecordBatch};
use crate::codec::rows::{BadRow, Field, Kind, RowMeta, Rows, Slot};
use crate::codec::scan::escape;
use crate::codec::scope::{Layout, Virtual};
use crate::codec::time::{self, Unit, Zone};
use crate::types::Span;
use deletion::Deleted;
pub use deletion::DeletionKey;

/// Where a row's event time comes from.
#[derive(Clone, Debug)]
pub struct TimeSpec {
    /// `None`: the Kafka record timestamp.
    pub field: Option<TimeField>,
    /// How far a time may be ahead of the smaller of the record's Kafka timestamp and the noted wall clock.
    pub max_future_ms: i64,
}

#[derive(Clone, Debug)]
pub struct TimeField {
    pub slot: Slot,
    /// As written, for messages.
    pub path: String,
    pub unit: Unit,
    pub zone: Zone,
}

/// Decodes one input of a task.
#[derive(Clone, Debug)]
pub struct Decoder {
    layout: Layout,
    extractor: Extractor,
    time: TimeSpec,
    tombstones_keep: bool,
    /// In a table tombstones are rows that delete.
    deletes: Option<DeletionKey>,
    max_payload_bytes: usize,
    topic: String,
    partition: i32,
    input: u16,
    topic_field: Field,
}

/// What did not become a row.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Tombstones skipped.
    pub tombstones: u64,
    /// Dead letters; `row` is the index of the record in its batch.
    pub broken: Vec<BadRow>,
    /// Top-level fields that no path names.
    pub extra_fields: u64,
    /// Tombstones of a table whose record key is not its key; they are among the skipped.
    pub unread_keys: u64,
}

impl Decoder {
    #[allow(clippy::too_many_arguments)] // built once, each a fact of its own
    pub fn new(
        layout: Layout,
        time: TimeSpec,
        tombstones_keep: bool,
        max_payload_bytes: usize,
        topic: String,
        partition: i32,
        input: u16,
    ) -> Decoder {
        let extractor = Extractor::new(&layout.paths);
        let topic_field = Field::ABSENT;
        let deletes = None;
        Decoder {
            layout,
            extractor,
            time,
            tombstones_keep,
            deletes,
            max_payload_bytes,
            topic,
            partition,
            input,
            topic_field,
        }
    }

    /// From now on a tombstone is a row with nothing but its key, whose record has no value: it deletes. One whose key
    /// may be a number or text is a row of each.
    pub fn deleting(self, key: DeletionKey) -> Decoder {
        Decoder { deletes: Some(key), ..self }
    }

    /// Makes rows of the batch's records, in their order. The batch keeps its records and gives its arena to `rows`.
    /// `out` is cleared first. The rows' watermark is left for the task to set.
    pub fn decode(&mut self, batch: &mut RecordBatch, note_ms: i64, rows: &mut Rows, out: &mut Decoded) {
        self.decode_noted(batch, Some(note_ms), rows, out);
    }

    /// As `decode`, before it is known in which epoch the records will be: whoever takes them on asks
    /// [`Decoder::is_ahead`] with that epoch's clock.
    pub fn decode_early(&mut self, batch: &mut RecordBatch, rows: &mut Rows, out: &mut Decoded) {
        self.decode_noted(batch, None, rows, out);
    }

    /// Whether an event time is more than `max_future` ahead of the smaller of the record's Kafka timestamp and the
    /// epoch's noted clock.
    #[inline]
    pub fn is_ahead(&self, time_ms: i64, timestamp_ms: i64, note_ms: i64) -> bool {
        let known_ms = if timestamp_ms == -1 { note_ms } else { timestamp_ms.min(note_ms) };
        time_ms > known_ms.saturating_add(self.time.max_future_ms)
    }

    /// Reason and sentence of a record whose time is too far ahead.
    #[cold]
    pub fn ahead(&self, time_ms: i64, timestamp_ms: i64, note_ms: i64) -> (&'static str, String) {
        let name = self.time.field.as_ref().map_or("Kafka timestamp", |field| &field.path);
        let kafka = if timestamp_ms == -1 { "absent".to_owned() } else { shown(timestamp_ms) };
        let message = format!(
            "the event time {} (`{name}`) is more than max_future ({} ms) ahead of the smaller of the record's Kafka \
             timestamp ({kafka}) and the wall clock ({})",
            shown(time_ms),
            self.time.max_future_ms,
            shown(note_ms),
        );
        ("time_in_future", message)
    }

    /// Fields per row.
    pub fn width(&self) -> usize {
        self.layout.width
    }

    /// The topic it decodes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn decode_noted(&mut self, batch: &mut RecordBatch, note_ms: Option<i64>, rows: &mut Rows, out: &mut Decoded) {
        rows.clear(self.layout.width);
        std::mem::swap(&mut batch.bytes, &mut rows.bytes);
        out.tombstones = 0;
        out.unread_keys = 0;
        out.broken.clear();
        self.topic_field = self.topic_field(rows);
        for (index, record) in batch.records.iter().enumerate() {
            let index = index as u32;
            let start = rows.fields.len();
            let deleted = if record.value.is_none() { self.read_tombstone(record, start, rows) } else { Deleted::Key };
            if deleted == Deleted::Nothing {
                rows.fields.truncate(start);
                out.tombstones += 1;
                out.unread_keys += u64::from(self.deletes.is_some());
                continue;
            }
            rows.fields.resize(start + self.layout.width, Field::ABSENT);
            match self.row(record, index, start, note_ms, rows) {
                Ok(meta) => {
                    rows.meta.push(meta);
                    if let Deleted::NumberAndText { slot, text } = deleted {
                        rows.fields.extend_from_within(start..);
                        rows.meta.push(meta);
                        rows.set(rows.len() as u32 - 1, slot, text);
                    }
                }
                Err((reason, message)) => {
                    rows.fields.truncate(start);
                    out.broken.push(BadRow { row: index, reason, message });
                }
            }
        }
        out.extra_fields = self.extractor.take_extra_fields();
    }

    /// From now on keeps the names and a sample of the top-level fields that no path names.
    pub fn collect_extras(&mut self) {
        self.extractor.collect_extras();
    }

    /// Those fields by name, since the last call; to be asked before the rows are decoded anew.
    pub fn take_extras(&mut self) -> std::collections::BTreeMap<Vec<u8>, Field> {
        self.extractor.take_extras()
    }

    /// What a tombstone deletes, of which the key is filled in; where it is no table's, whether it becomes a row.
    fn read_tombstone(&mut self, record: &Record, start: usize, rows: &mut Rows) -> Deleted {
        let Some(deletes) = &mut self.deletes else {
            return if self.tombstones_keep { Deleted::Key } else { Deleted::Nothing };
        };
        rows.fields.resize(start + self.layout.width, Field::ABSENT);
        record.key.map_or(Deleted::Nothing, |key| deletes.read(key, start, rows))
    }

    fn row(
        &mut self,
        record: &Record,
        index: u32,
        start: usize,
        note_ms: Option<i64>,
        rows: &mut Rows,
    ) -> Result<RowMeta, (&'static str, String)> {
        if let Some(value) = record.value {
            if value.len as usize > self.max_payload_bytes {
                return Err((
                    "too_large",
                    format!("the payload has {} bytes; max_payload is {}", value.len, self.max_payload_bytes),
                ));
            }
            self.extractor
                .extract(&rows.bytes, value, &mut rows.fields[start..])
                .map_err(|fault| (fault.reason, fault.sentence()))?;
            if let Some(whole) = self.layout.whole {
                rows.fields[start + whole.0 as usize] = Field::text(Kind::Object, trimmed(&rows.bytes, value));
            }
        }
        for (virtual_field, slot) in &self.layout.virtuals {
            let field = virtual_value(virtual_field, record, self.partition, self.topic_field, rows);
            rows.fields[start + slot.0 as usize] = field;
        }
        let time_ms = self.event_time(record, start, rows)?;
        if let Some(note_ms) = note_ms
            && self.is_ahead(time_ms, record.timestamp_ms, note_ms)
        {
            return Err(self.ahead(time_ms, record.timestamp_ms, note_ms));
        }
        Ok(RowMeta {
            time_ms,
            watermark_ms: 0,
            timestamp_ms: record.timestamp_ms,
            offset: record.offset,
            input: self.input,
            record: index,
        })
    }

    fn event_time(&self, record: &Record, start: usize, rows: &Rows) -> Result<i64, (&'static str, String)> {
        match &self.time.field {
            Some(field) if record.value.is_some() => {
                let value = rows.fields[start + field.slot.0 as usize];
                let read = time::read(rows, value, field.unit, &field.zone);
                Ok(read.map_err(|found| unreadable(field, value, found))?.ms())
            }
            _ if record.timestamp_ms == -1 => Err(("no_time", "the record has no Kafka timestamp".to_owned())),
            _ => Ok(record.timestamp_ms),
        }
    }

    /// The topic's name lies in the arena once per batch.
    fn topic_field(&self, rows: &mut Rows) -> Field {
        let used = self.layout.virtuals.iter().any(|(field, _)| *field == Virtual::Topic);
        if used { rows.append(Kind::Text, self.topic.as_bytes()) } else { Field::ABSENT }
    }
}

/// Without the white space around it.
fn trimmed(bytes: &[u8], span: Span) -> Span {
    let text = &bytes[span.range()];
    let start = text.len() - text.trim_ascii_start().len();
    Span { start: span.start + start as u32, len: text.trim_ascii().len() as u32 }
}

#[cold]
fn unreadable(field: &TimeField, value: Field, found: String) -> (&'static str, String) {
    if value.is_null() {
        return ("no_time", format!("the time field `{}` is absent or null", field.path));
    }
    let unit = match field.unit {
        Unit::Iso => "ISO 8601 text",
        Unit::Seconds => "seconds since 1970",
        Unit::Millis => "milliseconds since 1970",
        Unit::Micros => "microseconds since 1970",
        Unit::Nanos => "nanoseconds since 1970",
    };
    ("bad_time", format!("the time field `{}` should be {unit} (years 0 to 9999), the record has {found}", field.path))
}

fn shown(ms: i64) -> String {
    match time::Moment::from_nanos(ms as i128 * 1_000_000) {
        Some(moment) => moment.to_rfc3339(),
        None => format!("{ms} ms"),
    }
}

fn virtual_value(field: &Virtual, record: &Record, partition: i32, topic: Field, rows: &mut Rows) -> Field {
    match field {
        Virtual::Topic => topic,
        Virtual::Partition => Field::int(partition as i64),
        Virtual::Offset => Field::int(record.offset),
        Virtual::Timestamp if record.timestamp_ms == -1 => Field::ABSENT,
        Virtual::Timestamp => Field::int(record.timestamp_ms),
        Virtual::Key => record.key.map_or(Field::ABSENT, |key| raw_field(key, rows)),
        Virtual::Header(name) => header(name.as_bytes(), record.headers, rows),
    }
}

/// The last header of that name, as Kafka's own clients look one up.
fn header(name: &[u8], headers: Span, rows: &mut Rows) -> Field {
    let mut at = headers.range().start;
    let mut found = None;
    let len_at = |at: usize| u32::from_le_bytes(rows.bytes[at..at + 4].try_into().expect("four bytes"));
    while at < headers.range().end {
        let name_len = len_at(at) as usize;
        let value_len_at = at + 4 + name_len;
        let value_len = len_at(value_len_at);
        let value = (value_len != u32::MAX).then_some(Span { start: value_len_at as u32 + 4, len: value_len });
        if &rows.bytes[at + 4..value_len_at] == name {
            found = Some(value);
        }
        at = value_len_at + 4 + value.map_or(0, |value| value.len as usize);
    }
    match found {
        None => Field::ABSENT,
        Some(None) => Field::NULL,
        Some(Some(value)) => raw_field(value, rows),
    }
}

/// Raw bytes as a field: text where they are UTF-8 (with escapes where JSON needs them), else bytes.
fn raw_field(span: Span, rows: &mut Rows) -> Field {
    let raw = &rows.bytes[span.range()];
    let Ok(text) = std::str::from_utf8(raw) else {
        return Field::text(Kind::Bytes, span);
    };
    if !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        return Field::text(Kind::Text, span);
    }
    let mut escaped = Vec::with_capacity(text.len() + 8);
    escape(text, &mut escaped);
    rows.append(Kind::Escaped, &escaped)
}

#[cfg(test)]
mod tests;
