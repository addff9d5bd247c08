//! A stretch of a buffer's rows, in the order they came: in memory while it is filled, then stored.
//!
//! Owns the rows in memory and the waiting bits of the segment. Never asks the store.

use super::filter::Filter;
use super::layout::{BLOCK_ROWS, Head, PAGE_ROWS, Page, SegmentRecord, chunk_of, put_entry};
use super::postings::Postings;
use std::collections::BTreeSet;

/// One segment.
pub(super) struct Segment {
    pub record: SegmentRecord,
    /// Rows in memory: the open segment, and one whose write is on its way.
    pub resident: Option<Resident>,
    /// `None` while it is open.
    pub filter: Option<Filter>,
    /// Rows that still wait, one bit each.
    waiting: Vec<u64>,
    /// Blocks of those bits that changed since the last seal.
    changed: BTreeSet<u32>,
    /// Its waiting rows are among the deadlines.
    pub is_due: bool,
}

/// The rows of a segment in memory.
#[derive(Default)]
pub(super) struct Resident {
    heads: Vec<Head>,
    /// Where each row's bytes begin.
    starts: Vec<u32>,
    bytes: Vec<u8>,
    pub postings: Postings,
}

impl Segment {
    /// An open one whose first row will be `first`.
    pub fn open(first: u64) -> Segment {
        let record =
            SegmentRecord { first, len: 0, oldest_ms: i64::MAX, newest_ms: i64::MIN, rows_per_key: 0, chunks: 0 };
        Segment { resident: Some(Resident::default()), is_due: true, ..Segment::stored(record, None) }
    }

    pub fn stored(record: SegmentRecord, filter: Option<Filter>) -> Segment {
        Segment { record, resident: None, filter, waiting: vec![], changed: BTreeSet::new(), is_due: false }
    }

    pub fn end(&self) -> u64 {
        self.record.first + self.record.len as u64
    }

    pub fn push(&mut self, time_ms: i64, key: u128, bytes: &[u8]) {
        let resident = self.resident.as_mut().expect("rows are added to the open segment");
        resident.push(time_ms, key, bytes);
        self.record.len += 1;
        self.record.oldest_ms = self.record.oldest_ms.min(time_ms);
        self.record.newest_ms = self.record.newest_ms.max(time_ms);
    }

    /// Takes the last row back.
    pub fn pop(&mut self) {
        self.record.len -= 1;
        self.set_waiting(self.record.len, false);
        self.resident.as_mut().expect("rows are taken out of the open segment").pop();
    }

    pub fn is_waiting(&self, row: u32) -> bool {
        self.waiting.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    pub fn set_waiting(&mut self, row: u32, waits: bool) {
        if self.is_waiting(row) == waits {
            return;
        }
        let word = row as usize / 64;
        if self.waiting.len() <= word {
            self.waiting.resize(word + 1, 0);
        }
        self.waiting[word] ^= 1 << (row % 64);
        self.changed.insert(row / BLOCK_ROWS);
    }

    /// The rows from `from` on that wait, in the order they came.
    pub fn waiting_rows(&self, from: u32) -> impl Iterator<Item = u32> {
        let words = self.waiting.iter().enumerate().filter(|(_, word)| **word != 0);
        let rows = words.flat_map(|(at, &word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at as u32 * 64 + bit)
        });
        rows.filter(move |row| *row >= from)
    }

    /// The blocks of waiting bits that changed since this was last asked.
    pub fn take_changed_bits(&mut self) -> Vec<(u32, Vec<u8>)> {
        let words = BLOCK_ROWS as usize / 64;
        let block = |number: u32| {
            let word = |at: usize| self.waiting.get(number as usize * words + at).copied().unwrap_or(0);
            (number, (0..words).flat_map(|at| word(at).to_le_bytes()).collect())
        };
        // Rows that were taken back have no bits.
        let is_of_rows = |number: &&u32| **number * BLOCK_ROWS <= self.record.len;
        let blocks = self.changed.iter().filter(is_of_rows).map(|&number| block(number)).collect();
        self.changed.clear();
        blocks
    }

    /// Takes in a block of bits as it was stored.
    pub fn load_bits(&mut self, number: u32, block: &[u8]) -> Option<()> {
        let words = BLOCK_ROWS as usize / 64;
        let start = number as usize * words;
        if block.len() != words * 8 || start * 64 > self.record.len as usize {
            return None;
        }
        self.waiting.resize(self.waiting.len().max(start + words), 0);
        for (into, bytes) in self.waiting[start..].iter_mut().zip(block.chunks_exact(8)) {
            *into = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        let len = (self.record.len as usize).div_ceil(64);
        let beyond = self.waiting.iter().skip(len).any(|word| *word != 0);
        self.waiting.truncate(len);
        (!beyond).then_some(())
    }

    pub fn bytes(&self) -> usize {
        let resident = self.resident.as_ref().map_or(0, Resident::bytes);
        resident + self.filter.as_ref().map_or(0, Filter::bytes) + self.waiting.capacity() * 8
    }
}

impl Resident {
    fn push(&mut self, time_ms: i64, key: u128, bytes: &[u8]) {
        self.postings.insert(key, (time_ms, self.heads.len() as u32));
        self.starts.push(self.bytes.len() as u32);
        self.heads.push(Head { time_ms, key, len: bytes.len() as u32 });
        self.bytes.extend_from_slice(bytes);
    }

    fn pop(&mut self) {
        let head = self.heads.pop().expect("a row is taken back that was added");
        let start = self.starts.pop().expect("every row has a start");
        self.bytes.truncate(start as usize);
        self.postings.remove(head.key, (head.time_ms, self.heads.len() as u32));
    }

    pub fn row(&self, row: u32) -> (Head, &[u8]) {
        let head = self.heads[row as usize];
        (head, &self.bytes[self.starts[row as usize] as usize..][..head.len as usize])
    }

    pub fn row_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A page as it stands now.
    pub fn page(&self, number: u32) -> Vec<u8> {
        let first = (number * PAGE_ROWS) as usize;
        let end = self.heads.len().min(first + PAGE_ROWS as usize);
        let bytes_end = self.starts.get(end).map_or(self.bytes.len(), |start| *start as usize);
        Page::encode(&self.heads[first..end], &self.bytes[self.starts[first] as usize..bytes_end])
    }

    /// The index and the filter of all rows.
    pub fn index(&self, chunks: u32) -> (Vec<Vec<u8>>, Filter) {
        let mut filter = Filter::new(self.heads.len());
        let mut rows: Vec<(u128, i64, u32)> =
            self.heads.iter().enumerate().map(|(row, head)| (head.key, head.time_ms, row as u32)).collect();
        rows.sort_unstable();
        let mut index = vec![Vec::new(); chunks as usize];
        for (key, time_ms, row) in rows {
            filter.insert(key);
            put_entry(key, (time_ms, row), &mut index[chunk_of(key, chunks) as usize]);
        }
        (index, filter)
    }

    fn bytes(&self) -> usize {
        self.bytes.capacity()
            + self.heads.capacity() * size_of::<Head>()
            + self.starts.capacity() * 4
            + self.postings.bytes()
    }
}
