//! Records as they came from Kafka, a batch at a time, in one arena.
//!
//! Owns the bytes: a source copies key, value and headers once into `bytes`; everything behind it refers to them
//! by [`Span`]. Cleared and filled again, so that a steady stream allocates nothing.

use crate::types::Span;

/// One Kafka record; the spans point into the batch's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    /// The record's Kafka timestamp; -1 where it has none.
    pub timestamp_ms: i64,
    pub key: Option<Span>,
    /// `None` is a tombstone.
    pub value: Option<Span>,
    /// Headers one after another: name length u32 LE, name, value length u32 LE (`u32::MAX` = null), value.
    pub headers: Span,
}

/// Records of one input in offset order.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    pub bytes: Vec<u8>,
    pub records: Vec<Record>,
}

impl RecordBatch {
    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Copies a record in. `headers` yields (name, value) pairs, null values as `None`.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let key = key.map(|key| self.append(key));
        let value = value.map(|value| self.append(value));
        let start = self.bytes.len();
        for (name, value) in headers {
            self.bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(name);
            let len = value.map_or(u32::MAX, |value| value.len() as u32);
            self.bytes.extend_from_slice(&len.to_le_bytes());
            self.bytes.extend_from_slice(value.unwrap_or_default());
        }
        let headers = Span { start: start as u32, len: (self.bytes.len() - start) as u32 };
        self.records.push(Record { offset, timestamp_ms, key, value, headers });
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span { start: start as u32, len: bytes.len() as u32 }
    }

    /// The bytes behind a span.
    pub fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// The headers of a record, in order; a null value is `None`.
    pub fn headers(&self, record: &Record) -> Headers<'_> {
        Self::headers_in(self.slice(record.headers))
    }

    /// The headers in the bytes behind a record's `headers` span.
    pub fn headers_in(bytes: &[u8]) -> Headers<'_> {
        Headers { rest: bytes }
    }
}

/// Headers in the form that [`RecordBatch::headers_in`] reads.
pub fn encode_headers(headers: &[(String, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut batch = RecordBatch::default();
    let pairs = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
    batch.push(0, 0, None, None, pairs);
    batch.bytes
}

/// Walks the headers of one record.
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The headers behind a record's span.
    pub fn of(bytes: &'a [u8]) -> Headers<'a> {
        Headers { rest: bytes }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        head
    }

    fn take_len(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes were taken"))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name_len = self.take_len() as usize;
        let name = self.take(name_len);
        let value = match self.take_len() {
            u32::MAX => None,
            len => Some(self.take(len as usize)),
        };
        Some((name, value))
    }
}
