//! Which keys a stored segment may hold, in memory: most probes need not ask the store.
//!
//! Owns a blocked Bloom filter of 16 bits a row. Promises never to hide a key that was inserted.

/// A false answer costs two reads from the store, and every probe passes a filter for each segment in its time.
const BITS_PER_ROW: usize = 16;
const LINE_BITS: usize = 512;
const LINE_BYTES: usize = LINE_BITS / 8;

/// The filter of one segment.
pub(super) struct Filter {
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Filter {
    pub fn new(rows: usize) -> Filter {
        Filter { lines: vec![Line::default(); (rows * BITS_PER_ROW).div_ceil(LINE_BITS).max(1)] }
    }

    #[inline]
    pub fn may_hold(&self, key: u128) -> bool {
        let line = &self.lines[self.line(key)].0;
        probes(key).fold(1, |all, (word, bit)| all & (line[word] >> bit)) & 1 == 1
    }

    pub fn insert(&mut self, key: u128) {
        let at = self.line(key);
        probes(key).for_each(|(word, bit)| self.lines[at].0[word] |= 1 << bit);
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// As stored: the words of the lines, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.0).flat_map(u64::to_le_bytes).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(LINE_BYTES) {
            return None;
        }
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        let line = |bytes: &[u8]| {
            let mut line = Line::default();
            line.0.iter_mut().zip(bytes.chunks_exact(8)).for_each(|(into, bytes)| *into = word(bytes));
            line
        };
        Some(Filter { lines: bytes.chunks_exact(LINE_BYTES).map(line).collect() })
    }

    #[inline]
    fn line(&self, key: u128) -> usize {
        (((key >> 64) * self.lines.len() as u128) >> 64) as usize
    }
}

/// Seven of a line's bits, from the lower half of the key.
#[inline]
fn probes(key: u128) -> impl Iterator<Item = (usize, u32)> {
    let low = key as u64;
    (0..7).map(move |probe| {
        let at = low >> (9 * probe);
        ((at >> 6 & 7) as usize, (at & 63) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    #[test]
    fn no_key_is_hidden_also_after_it_was_stored_and_most_others_are_held_back() {
        let key = |n: u64| xxh3_128(&n.to_be_bytes());
        let mut filter = Filter::new(50_000);
        (0..50_000).for_each(|n| filter.insert(key(n)));
        let filter = Filter::from_bytes(&filter.to_bytes()).unwrap();
        assert!((0..50_000).all(|n| filter.may_hold(key(n))));
        let wrong = (1_000_000..1_100_000).filter(|&n| filter.may_hold(key(n))).count();
        assert!(wrong < 400, "{wrong} of 100,000 unknown keys got through");
        assert!(Filter::from_bytes(&[0; 63]).is_none() && Filter::from_bytes(&[]).is_none());
    }
}
