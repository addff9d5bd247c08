//! A chunk: some hundred neighbouring keys of a run in one stored value, with what is remembered of each.
//!
//! Owns its layout. Promises that what was written comes back, and that nothing else is taken for a chunk whose
//! lengths do not agree. What a value means is `rule.rs`.
//!
//! ```text
//! newest_ms i64 │ format u8 │ value_len u8 │ keys u32 │ hash 16 … ascending │ [end u32 …] │ value …
//! ```
//! `value_len` 0: the values have different lengths, and the ends say where each ends. The newest time comes first,
//! where a compaction finds it: when it is passed, nobody will ask for any of the keys.

use crate::state::Entries;

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 14;
const HASH_LEN: usize = 16;
const END_LEN: usize = 4;

/// A chunk as it is stored.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    hashes: &'a [[u8; HASH_LEN]],
    /// Empty where all values have one length.
    ends: &'a [[u8; END_LEN]],
    value_len: usize,
    pub values: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// `None` for what is no whole chunk.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Option<Chunk<'a>> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [_, _, _, _, _, _, _, _, FORMAT, value_len, count @ ..] = *header else { return None };
        let (keys, value_len) = (u32::from_be_bytes(count) as usize, value_len as usize);
        let (hashes, rest) = body.split_at_checked(keys.checked_mul(HASH_LEN)?)?;
        let ends_len = if value_len == 0 { keys * END_LEN } else { 0 };
        let (ends, values) = rest.split_at_checked(ends_len)?;
        let (hashes, ends) = (hashes.as_chunks().0, ends.as_chunks().0);
        let is_whole = match ends.last() {
            Some(end) => u32::from_be_bytes(*end) as usize == values.len() && ends.is_sorted(),
            None => keys > 0 && keys * value_len == values.len(),
        };
        is_whole.then_some(Chunk { hashes, ends, value_len, values })
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    #[inline]
    pub fn key(&self, at: usize) -> u128 {
        u128::from_be_bytes(self.hashes[at])
    }

    pub fn keys(&self) -> impl Iterator<Item = u128> + 'a {
        self.hashes.iter().map(|hash| u128::from_be_bytes(*hash))
    }

    /// Where a key's value lies in `values`.
    #[inline]
    pub fn value_range(&self, at: usize) -> std::ops::Range<usize> {
        if self.ends.is_empty() {
            return at * self.value_len..(at + 1) * self.value_len;
        }
        let end = |at: usize| u32::from_be_bytes(self.ends[at]) as usize;
        at.checked_sub(1).map_or(0, end)..end(at)
    }

    /// The value of a key. `share` says which part of the chunk's room lies before it, in 2⁻⁶⁴: hashes lie evenly,
    /// so the key is some steps from there.
    #[inline]
    pub fn find(&self, key: u128, share: u64) -> Option<&'a [u8]> {
        let mut at = ((share as u128 * self.len() as u128) >> 64) as usize;
        while self.key(at) > key {
            at = at.checked_sub(1)?;
        }
        while self.key(at) < key {
            at += 1;
            if at == self.len() {
                return None;
            }
        }
        (self.key(at) == key).then(|| &self.values[self.value_range(at)])
    }
}

/// The newest time that a stored chunk says it holds; `None` for what is no chunk.
pub(in crate::state) fn newest_ms(bytes: &[u8]) -> Option<i64> {
    let newest_ms = bytes.first_chunk().map(|time| i64::from_be_bytes(*time));
    newest_ms.filter(|_| bytes.len() > HEADER_LEN && bytes[8] == FORMAT)
}

/// A chunk in the making; the memory is kept for the next.
#[derive(Default)]
pub(super) struct ChunkWriter {
    hashes: Vec<u8>,
    values: Vec<u8>,
    ends: Vec<u8>,
    newest_ms: i64,
    keys: u32,
    /// The length of the first value while all have it.
    value_len: Option<usize>,
}

impl ChunkWriter {
    /// Takes in the next key; keys come ascending.
    #[inline]
    pub fn push(&mut self, key: u128, newest_ms: i64, write_value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.values.len();
        write_value(&mut self.values);
        let len = self.values.len() - start;
        self.hashes.extend_from_slice(&key.to_be_bytes());
        self.ends.extend_from_slice(&(self.values.len() as u32).to_be_bytes());
        if self.keys == 0 {
            self.newest_ms = newest_ms;
            self.value_len = Some(len);
        }
        self.value_len = self.value_len.filter(|&first| first == len);
        self.newest_ms = self.newest_ms.max(newest_ms);
        self.keys += 1;
    }

    /// Puts the chunk under `key`, and is empty again; nothing happens where there are no keys. A reader may forget
    /// the chunk when its newest time and `floor_ms` are passed.
    pub fn finish(&mut self, key: &[u8], floor_ms: i64, into: &mut Entries) {
        if self.keys == 0 {
            return;
        }
        let value_len = self.value_len.and_then(|len| u8::try_from(len).ok()).unwrap_or(0);
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&self.newest_ms.max(floor_ms).to_be_bytes());
        header[8] = FORMAT;
        header[9] = value_len;
        header[10..].copy_from_slice(&self.keys.to_be_bytes());
        let ends = if value_len == 0 { &self.ends[..] } else { &[] };
        into.put_parts(key, &[&header, &self.hashes, ends, &self.values]);
        self.hashes.clear();
        self.values.clear();
        self.ends.clear();
        self.keys = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn written(entries: &BTreeMap<u128, Vec<u8>>, floor_ms: i64) -> Vec<u8> {
        let (mut writer, mut into) = (ChunkWriter::default(), Entries::default());
        for (number, (&key, value)) in entries.iter().enumerate() {
            writer.push(key, number as i64, |into| into.extend_from_slice(value));
        }
        writer.finish(b"k", floor_ms, &mut into);
        into.iter().next().and_then(|(_, value)| value).map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn entries() -> impl Strategy<Value = BTreeMap<u128, Vec<u8>>> {
        let even = prop::collection::btree_map(any::<u128>(), prop::collection::vec(any::<u8>(), 8), 1..50);
        let uneven = prop::collection::btree_map(any::<u128>(), prop::collection::vec(any::<u8>(), 1..300), 1..50);
        prop_oneof![even, uneven]
    }

    proptest! {
        #[test]
        fn a_chunk_comes_back_as_it_went_in(entries in entries(), share: u64, other: u128) {
            let bytes = written(&entries, i64::MIN);
            prop_assert_eq!(newest_ms(&bytes), Some(entries.len() as i64 - 1));
            let chunk = Chunk::read(&bytes).unwrap();
            prop_assert!(chunk.keys().eq(entries.keys().copied()));
            for (&key, value) in &entries {
                prop_assert_eq!(chunk.find(key, share), Some(&value[..]));
            }
            prop_assert_eq!(chunk.find(other, share).is_some(), entries.contains_key(&other));
        }

        #[test]
        fn what_was_cut_or_made_longer_is_no_chunk(entries in entries(), cut in any::<prop::sample::Index>()) {
            let mut bytes = written(&entries, 7_000);
            prop_assert_eq!(newest_ms(&bytes), Some(7_000));
            prop_assert!(Chunk::read(&bytes[..cut.index(bytes.len())]).is_none());
            bytes.push(0);
            prop_assert!(Chunk::read(&bytes).is_none());
        }
    }

    #[test]
    fn nothing_is_written_of_no_keys() {
        assert_eq!(written(&BTreeMap::new(), 0), b"");
    }
}
