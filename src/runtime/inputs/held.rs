//! What an input has fetched and decoded and not yet handed on.
//!
//! Owns these records and their rows, one chunk per fetch, in the arena they came in. Promises: a record leaves whole,
//! with a row of each side that could read it; numbers of records hold until everything was taken and more is fetched.

use super::input::InputSide;
use super::{Feeds, Owner, Pass};
use crate::codec::decode::Decoded;
use crate::codec::record::{Record, RecordBatch};
use crate::codec::rows::{BadRow, Rows};

/// Records in offset order.
#[derive(Default)]
pub(super) struct Held {
    /// The head lies in the chunk at `first`; those before it were taken and still serve dead letters.
    chunks: Vec<Chunk>,
    first: usize,
    head: Option<Head>,
    /// Memory of chunks that are gone.
    spare: Vec<Chunk>,
}

/// The next record of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub offset: i64,
    pub timestamp_ms: i64,
    /// The event time of its row; `None` where it is none for any side.
    pub time_ms: Option<i64>,
}

/// What one fetch brought, decoded for every side.
#[derive(Default)]
pub(super) struct Chunk {
    /// The number of its first record.
    number: u32,
    records: Vec<Record>,
    /// In the order of the sides. The records' spans point into the first one's arena.
    sides: Vec<SideRows>,
    /// The next record.
    cursor: usize,
}

/// The records of a chunk as one side reads them.
#[derive(Default)]
struct SideRows {
    rows: Rows,
    broken: Vec<BadRow>,
    next_row: usize,
    next_broken: usize,
}

impl Held {
    #[inline]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Adds a batch behind what is held.
    pub fn add(&mut self, sides: &mut [InputSide], batch: &mut RecordBatch, out: &mut Decoded) {
        if self.head.is_none() {
            self.spare.append(&mut self.chunks);
            self.first = 0;
        }
        let number = self.chunks.last().map_or(0, |chunk| chunk.number + chunk.records.len() as u32);
        let mut chunk = Chunk { number, ..self.spare.pop().unwrap_or_default() };
        // What one long pass has left over is not kept for all time.
        self.spare.truncate(1);
        chunk.decode(sides, batch, out);
        self.chunks.push(chunk);
        self.find_head();
    }

    /// Moves the head into the pass.
    pub fn take(&mut self, sides: &[InputSide], input: usize, note_ms: i64, has_joins: bool, pass: &mut Pass) {
        self.chunks[self.first].take(sides, input, note_ms, has_joins, pass);
        self.find_head();
    }

    fn find_head(&mut self) {
        self.head = self.chunks.get(self.first).and_then(Chunk::head);
        while self.head.is_none() && self.first + 1 < self.chunks.len() {
            self.first += 1;
            self.head = self.chunks[self.first].head();
        }
    }

    /// A record that was taken, and the arena its spans point into.
    pub fn raw(&self, number: u32) -> (&Record, &[u8]) {
        let behind = self.chunks.partition_point(|chunk| chunk.number <= number);
        self.chunks[behind - 1].raw(number)
    }
}

impl Chunk {
    /// Takes a batch over. `out` gets what is counted: extra fields, keys of deletions that cannot be read.
    pub fn decode(&mut self, sides: &mut [InputSide], batch: &mut RecordBatch, out: &mut Decoded) {
        self.cursor = 0;
        self.sides.resize_with(sides.len(), SideRows::default);
        let bytes = batch.bytes.len();
        let (mut extra_fields, mut unread_keys) = (u64::MAX, 0);
        for (place, (side, decoded)) in sides.iter_mut().zip(&mut self.sides).enumerate().rev() {
            side.decoder.decode_early(batch, &mut decoded.rows, out);
            (decoded.next_row, decoded.next_broken) = (0, 0);
            std::mem::swap(&mut decoded.broken, &mut out.broken);
            // A field is extra where no side names it: at most as many as the side with the fewest has.
            extra_fields = extra_fields.min(out.extra_fields);
            unread_keys += out.unread_keys;
            // A decoder keeps the arena, so each further one gets a copy.
            if place > 0 {
                batch.bytes.clear();
                batch.bytes.extend_from_slice(&decoded.rows.bytes[..bytes]);
            }
        }
        (out.extra_fields, out.unread_keys) = (extra_fields, unread_keys);
        self.records.clear();
        std::mem::swap(&mut self.records, &mut batch.records);
    }

    #[inline]
    pub fn head(&self) -> Option<Head> {
        let record = self.records.get(self.cursor)?;
        // The sides of a topic have the same `time`, so any of their rows tells it.
        let time_ms = self.sides.iter().find_map(|side| side.time_of(self.cursor));
        Some(Head { offset: record.offset, timestamp_ms: record.timestamp_ms, time_ms })
    }

    /// Moves its head into the pass: a row of each side, or why there is none, said once.
    pub fn take(&mut self, sides: &[InputSide], input: usize, note_ms: i64, has_joins: bool, pass: &mut Pass) {
        let (at, record) = (self.cursor, &self.records[self.cursor]);
        let number = self.number + at as u32;
        let rows_before = pass.rows.len();
        let mut broken = None;
        for (side, decoded) in sides.iter().zip(&mut self.sides) {
            let first_row = decoded.next_row;
            // One of a table that deletes a number and the same as text is two rows.
            while let Some(time_ms) = decoded.time_of(at) {
                let row = decoded.next_row as u32;
                decoded.next_row += 1;
                if side.decoder.is_ahead(time_ms, record.timestamp_ms, note_ms) {
                    let (reason, message) = side.decoder.ahead(time_ms, record.timestamp_ms, note_ms);
                    broken.get_or_insert(BadRow { row: number, reason, message });
                    continue;
                }
                pass.rows.push_row(&decoded.rows, row);
                pass.rows.meta.last_mut().expect("a row was just added").record = number;
                if has_joins {
                    pass.owners.push(side.feeds.owner(record));
                }
            }
            if decoded.next_row > first_row {
                continue;
            }
            if let Some(bad) = decoded.broken.get(decoded.next_broken).filter(|bad| bad.row as usize == at) {
                decoded.next_broken += 1;
                broken.get_or_insert_with(|| BadRow { row: number, ..bad.clone() });
            }
        }
        pass.records += 1;
        match broken {
            Some(bad) => pass.broken.push((input, bad)),
            None if pass.rows.len() == rows_before => pass.tombstones += 1,
            None => {}
        }
        self.cursor += 1;
    }

    pub fn raw(&self, number: u32) -> (&Record, &[u8]) {
        (&self.records[(number - self.number) as usize], &self.sides[0].rows.bytes)
    }
}

impl SideRows {
    /// The time of the next row, if it is this record's.
    #[inline]
    fn time_of(&self, record: usize) -> Option<i64> {
        let meta = self.rows.meta.get(self.next_row)?;
        (meta.record as usize == record).then_some(meta.time_ms)
    }
}

impl Feeds {
    /// Whose the row of this record is.
    #[inline]
    fn owner(self, record: &Record) -> Owner {
        match self {
            Feeds::Left => Owner::Left,
            Feeds::Right { join } => Owner::Right { join, deletes: false },
            Feeds::Table { join, .. } => Owner::Right { join, deletes: record.value.is_none() },
        }
    }
}
