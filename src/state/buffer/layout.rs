//! How a buffer lies in its table, drawn; keys, pages, index chunks, the manifest.
//!
//! ```text
//! buffer │ task u32 │ step u16 │ side u8 │ segment u64 │ kind u8 │ number u32 │ →
//!     kind 0  page: rows number × 32 …      │ count u16 │ count × (time i64, key u128, length u32) │ their bytes │
//!     kind 1  waiting bits of rows number × 4096 …        │ 64 words u64 │
//!     kind 2  index chunk                   │ entries of (key u128, time i64, row u32), sorted │
//!     kind 3  filter                        │ words u64 │
//! buffer │ task u32 │ step u16 │ side u8 │ ff × 8 │ 4 │ 0 u32 │ → manifest
//! ```
//! A segment is named by the arrival number of its first row, so that all of it is one range of keys. Keys are
//! big-endian, values little-endian.

use super::postings::Posting;
use crate::error::{Error, Result};
use crate::state::keys::prefix_range;
use crate::types::TaskNo;
use bincode::{Decode, Encode};

pub(super) const KEY_LEN: usize = 20;
/// Rows of a page: a page of small rows is about 4 KiB, and none is read for much more than it holds.
pub(super) const PAGE_ROWS: u32 = 32;
/// Rows whose waiting bits are written together.
pub(super) const BLOCK_ROWS: u32 = 4096;
const HEAD_BYTES: usize = 28;
const ENTRY_BYTES: usize = 28;
const FORMAT: u8 = 1;

/// The common start of a buffer's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix(pub [u8; 7]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Part {
    Page = 0,
    Waiting = 1,
    Index = 2,
    Filter = 3,
    Manifest = 4,
}

impl Prefix {
    pub fn new(task: TaskNo, step: u16, side: u8) -> Prefix {
        let mut prefix = [0; 7];
        prefix[..4].copy_from_slice(&task.0.to_be_bytes());
        prefix[4..6].copy_from_slice(&step.to_be_bytes());
        prefix[6] = side;
        Prefix(prefix)
    }

    pub fn key(self, segment: u64, part: Part, number: u32) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        key[..7].copy_from_slice(&self.0);
        key[7..15].copy_from_slice(&segment.to_be_bytes());
        key[15] = part as u8;
        key[16..].copy_from_slice(&number.to_be_bytes());
        key
    }

    pub fn manifest(self) -> [u8; KEY_LEN] {
        self.key(u64::MAX, Part::Manifest, 0)
    }

    /// `from .. to` of everything of a segment.
    pub fn segment_range(self, segment: u64) -> (Vec<u8>, Vec<u8>) {
        prefix_range(&self.key(segment, Part::Page, 0)[..15])
    }

    /// `from .. to` of one part of a segment.
    pub fn part_range(self, segment: u64, part: Part) -> (Vec<u8>, Vec<u8>) {
        prefix_range(&self.key(segment, part, 0)[..16])
    }
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u32> {
    (key.len() == KEY_LEN).then(|| u32::from_be_bytes(key[16..].try_into().expect("four bytes")))
}

/// What is known of a row beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub time_ms: i64,
    pub key: u128,
    pub len: u32,
}

/// A page as stored, its lengths checked.
#[derive(Clone, Debug)]
pub(super) struct Page(Vec<u8>);

impl Page {
    /// Writes a page of these rows; `bytes` are those of all of them.
    pub fn encode(heads: &[Head], bytes: &[u8]) -> Vec<u8> {
        let mut page = Vec::with_capacity(2 + heads.len() * HEAD_BYTES + bytes.len());
        page.extend_from_slice(&(heads.len() as u16).to_le_bytes());
        for head in heads {
            page.extend_from_slice(&head.time_ms.to_le_bytes());
            page.extend_from_slice(&head.key.to_le_bytes());
            page.extend_from_slice(&head.len.to_le_bytes());
        }
        page.extend_from_slice(bytes);
        page
    }

    pub fn decode(bytes: Vec<u8>) -> Option<Page> {
        let count = u16::from_le_bytes(*bytes.first_chunk()?) as usize;
        let heads_end = 2 + count * HEAD_BYTES;
        if bytes.len() < heads_end {
            return None;
        }
        let page = Page(bytes);
        let rows: usize = (0..count).map(|row| page.head(row).len as usize).sum();
        (heads_end + rows == page.0.len()).then_some(page)
    }

    pub fn len(&self) -> usize {
        u16::from_le_bytes([self.0[0], self.0[1]]) as usize
    }

    pub fn head(&self, row: usize) -> Head {
        let head = &self.0[2 + row * HEAD_BYTES..][..HEAD_BYTES];
        Head {
            time_ms: i64::from_le_bytes(head[..8].try_into().expect("eight bytes")),
            key: u128::from_le_bytes(head[8..24].try_into().expect("sixteen bytes")),
            len: u32::from_le_bytes(head[24..].try_into().expect("four bytes")),
        }
    }

    pub fn row(&self, row: usize) -> &[u8] {
        let before: usize = (0..row).map(|row| self.head(row).len as usize).sum();
        &self.0[2 + self.len() * HEAD_BYTES + before..][..self.head(row).len as usize]
    }
}

/// Which chunk of an index of `chunks` a key is in: hashes lie evenly.
#[inline]
pub(super) fn chunk_of(key: u128, chunks: u32) -> u32 {
    (((key >> 64) * chunks as u128) >> 64) as u32
}

pub(super) fn put_entry(key: u128, (time_ms, row): Posting, chunk: &mut Vec<u8>) {
    chunk.extend_from_slice(&key.to_le_bytes());
    chunk.extend_from_slice(&time_ms.to_le_bytes());
    chunk.extend_from_slice(&row.to_le_bytes());
}

/// A chunk of an index, sorted by key, time, row.
#[derive(Clone, Debug)]
pub(super) struct Chunk(Vec<u8>);

impl Chunk {
    pub fn decode(bytes: Vec<u8>) -> Option<Chunk> {
        bytes.len().is_multiple_of(ENTRY_BYTES).then_some(Chunk(bytes))
    }

    /// The entries of a key with `from_ms ≤ time ≤ to_ms`.
    pub fn between(&self, key: u128, from_ms: i64, to_ms: i64) -> impl ExactSizeIterator<Item = Posting> {
        let from = self.first_not(|entry| (entry.0, entry.1.0) < (key, from_ms));
        let to = self.first_not(|entry| (entry.0, entry.1.0) <= (key, to_ms));
        (from..to.max(from)).map(|at| self.entry(at).1)
    }

    fn entry(&self, at: usize) -> (u128, Posting) {
        let entry = &self.0[at * ENTRY_BYTES..][..ENTRY_BYTES];
        let key = u128::from_le_bytes(entry[..16].try_into().expect("sixteen bytes"));
        let time_ms = i64::from_le_bytes(entry[16..24].try_into().expect("eight bytes"));
        (key, (time_ms, u32::from_le_bytes(entry[24..].try_into().expect("four bytes"))))
    }

    fn first_not(&self, is_before: impl Fn((u128, Posting)) -> bool) -> usize {
        let (mut low, mut high) = (0, self.0.len() / ENTRY_BYTES);
        while low < high {
            let middle = (low + high) / 2;
            match is_before(self.entry(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

/// What a buffer is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub(super) struct Manifest {
    /// The arrival number that the next row gets.
    pub next: u64,
    /// Rows before this one that still wait have been sent alone.
    pub closed: u64,
    /// The first arrival of the open segment.
    pub open: u64,
    pub segments: Vec<SegmentRecord>,
}

/// A stored segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct SegmentRecord {
    pub first: u64,
    pub len: u32,
    pub oldest_ms: i64,
    pub newest_ms: i64,
    /// No key has more rows in it.
    pub rows_per_key: u32,
    /// Of its index.
    pub chunks: u32,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        let written = bincode::encode_into_std_write(self, &mut bytes, bincode::config::standard());
        written.expect("plain data encodes into memory");
        bytes
    }

    /// # Errors
    /// `corrupt`, or `newer` for a format of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => {
                let decoded = bincode::decode_from_slice(rest, bincode::config::standard());
                decoded.ok().filter(|(_, len)| *len == rest.len()).map(|(manifest, _)| manifest).ok_or_else(corrupt)
            }
            Some((&newer, _)) if newer > FORMAT => Err(Error::stop(
                "newer",
                format!("the join state has format {newer}, this version of weir knows {FORMAT}: run the newer weir"),
            )),
            _ => Err(corrupt()),
        }
    }
}

/// Something in the buffer is not what was written.
#[cold]
pub(super) fn corrupt() -> Error {
    Error::stop(
        "corrupt",
        "the join state holds something that weir did not write, or lacks something that it wrote; the state \
         directory is damaged",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_comes_back_as_it_went_in(
            rows in prop::collection::vec((any::<i64>(), any::<u128>(), prop::collection::vec(any::<u8>(), 0..50)), 1..32),
            cut in any::<prop::sample::Index>(),
        ) {
            let head = |(time_ms, key, bytes): &(i64, u128, Vec<u8>)| Head { time_ms: *time_ms, key: *key, len: bytes.len() as u32 };
            let heads: Vec<Head> = rows.iter().map(head).collect();
            let bytes: Vec<u8> = rows.iter().flat_map(|row| row.2.clone()).collect();
            let encoded = Page::encode(&heads, &bytes);
            let page = Page::decode(encoded.clone()).unwrap();
            prop_assert_eq!(page.len(), rows.len());
            for (number, (_, _, bytes)) in rows.iter().enumerate() {
                prop_assert_eq!((page.head(number), page.row(number)), (heads[number], bytes.as_slice()));
            }
            prop_assert!(Page::decode(encoded[..cut.index(encoded.len())].to_vec()).is_none());
        }

        #[test]
        fn a_chunk_finds_what_lies_between(
            mut entries in prop::collection::vec((0u128..4, (-4i64..4, any::<u32>())), 0..40),
            key in 0u128..4,
            from_ms in -5i64..5,
            to_ms in -5i64..5,
        ) {
            entries.sort();
            let mut bytes = Vec::new();
            entries.iter().for_each(|(key, posting)| put_entry(*key, *posting, &mut bytes));
            let found: Vec<Posting> = Chunk::decode(bytes).unwrap().between(key, from_ms, to_ms).collect();
            let expected: Vec<Posting> = entries
                .iter()
                .filter(|(other, (time_ms, _))| *other == key && (from_ms..=to_ms).contains(time_ms))
                .map(|(_, posting)| *posting)
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_keys_of_a_segment_lie_in_its_range_and_no_others(segment in 0..u64::MAX, other in 0..u64::MAX, number: u32) {
            let prefix = Prefix::new(TaskNo(u32::MAX), 3, 1);
            let (from, to) = prefix.segment_range(segment);
            let within = |key: [u8; KEY_LEN]| key.as_slice() >= from.as_slice() && key.as_slice() < to.as_slice();
            prop_assert!(within(prefix.key(segment, Part::Filter, number)));
            prop_assert_eq!(within(prefix.key(other, Part::Page, number)), other == segment);
            prop_assert!(!within(prefix.manifest()));
            prop_assert_eq!(number_of(&prefix.key(segment, Part::Index, number)), Some(number));
        }
    }

    #[test]
    fn a_manifest_of_a_later_format_is_refused_and_a_damaged_one_is_corrupt() {
        let manifest = Manifest { next: 9, closed: 1, open: 5, segments: vec![] };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        assert_eq!(Manifest::decode(&[2, 0]).unwrap_err().code, "newer");
        for damaged in [&bytes[..bytes.len() - 1], &[], &[0, 1], &[bytes.as_slice(), &[0]].concat()] {
            assert_eq!(Manifest::decode(damaged).unwrap_err().code, "corrupt");
        }
    }
}
