//! A filter in memory ahead of the store: most keys are new, and for those the store need not be asked.
//!
//! Owns a blocked Bloom filter over the stored keys of one task and step. Promises never to hide a stored key;
//! decides nothing: with any filter, or none, the verdicts are the same.
//!
//! It is not persisted. It grows behind a cursor that walks over the stored keys, a stretch with each batch: below
//! the cursor the new filter answers, above it the one before, or, after a start, nobody: the store is asked. The
//! same walk makes it larger when it is full and forgets keys whose window has passed.

use super::rule::newest_ms;
use crate::error::Result;
use crate::state::keys::{SEEN_PREFIX_LEN, prefix_range, seen_key, seen_parts};
use crate::state::{StateStore, Table};

/// Bits of filter a key has when the filter counts as full; a false answer then costs one lookup in about forty.
const BITS_PER_KEY_MIN: u64 = 8;
/// A new filter has room for this many times the keys it starts with.
const ROOM: u64 = 3;
/// The smallest filter: 64 KiB.
const KEYS_MIN: u64 = 64 << 10;
/// The walk begins with this many keys; how far they reach tells how many there are, for hashes lie evenly.
const SAMPLE_KEYS: usize = 4096;

/// The filter of one task and step.
pub(super) struct Filter {
    prefix: [u8; SEEN_PREFIX_LEN],
    bytes_max: usize,
    /// Knows every stored key.
    whole: Option<Bloom>,
    walk: Option<Walk>,
}

/// A filter in the making: it knows every stored key below the cursor.
struct Walk {
    bloom: Option<Bloom>,
    cursor: u128,
}

impl Filter {
    /// A filter that knows nothing yet and never takes more than about `bytes_max`.
    pub fn new(prefix: [u8; SEEN_PREFIX_LEN], bytes_max: usize) -> Filter {
        Filter { prefix, bytes_max, whole: None, walk: Some(Walk::start()) }
    }

    /// Whether the store can hold this key.
    #[inline]
    pub fn may_hold(&self, key: u128) -> bool {
        match (&self.walk, &self.whole) {
            (Some(Walk { bloom: Some(bloom), cursor }), _) if key < *cursor => bloom.holds(key),
            (_, Some(bloom)) => bloom.holds(key),
            _ => true,
        }
    }

    /// Takes in a key that the store has now.
    #[inline]
    pub fn insert(&mut self, key: u128) {
        if let Some(bloom) = &mut self.whole {
            bloom.insert(key);
        }
        if let Some(Walk { bloom: Some(bloom), .. }) = &mut self.walk {
            bloom.insert(key);
        }
    }

    pub fn bytes(&self) -> usize {
        let walk = self.walk.as_ref().and_then(|walk| walk.bloom.as_ref());
        self.whole.iter().chain(walk).map(Bloom::bytes).sum()
    }

    /// Walks on over about `keys_max` stored keys, if there is something to walk for. Keys whose newest time lies
    /// below `horizon_ms` are left out.
    pub fn walk(&mut self, store: &dyn StateStore, keys_max: usize, horizon_ms: i64) -> Result<()> {
        if self.walk.is_none() && self.whole.as_ref().is_some_and(Bloom::is_worth_a_walk) {
            self.walk = Some(Walk::start());
        }
        let Some(walk) = &mut self.walk else { return Ok(()) };
        let keys_max = if walk.bloom.is_none() { SAMPLE_KEYS } else { keys_max };
        let stretch = Stretch::read(store, self.prefix, walk.cursor, keys_max, horizon_ms)?;

        let bytes_max = self.bytes_max;
        let bloom = walk.bloom.get_or_insert_with(|| Bloom::new(stretch.estimate() * ROOM, bytes_max));
        stretch.live.iter().for_each(|&key| bloom.insert(key));
        match stretch.next {
            Some(next) => walk.cursor = next,
            None => {
                bloom.keys_begun = bloom.keys;
                self.whole = self.walk.take().and_then(|walk| walk.bloom);
            }
        }
        Ok(())
    }
}

impl Walk {
    fn start() -> Walk {
        Walk { bloom: None, cursor: 0 }
    }
}

/// A stretch of the stored keys.
struct Stretch {
    live: Vec<u128>,
    /// Where the next one begins; `None` at the end.
    next: Option<u128>,
}

impl Stretch {
    fn read(
        store: &dyn StateStore,
        prefix: [u8; SEEN_PREFIX_LEN],
        from: u128,
        keys_max: usize,
        horizon_ms: i64,
    ) -> Result<Stretch> {
        let mut stretch = Stretch { live: Vec::with_capacity(keys_max), next: None };
        let mut keys = 0;
        let (_, to) = prefix_range(&prefix);
        store.scan(Table::Seen, &seen_key(prefix, from), &to, &mut |key, value| {
            let Some((_, _, hash)) = seen_parts(key) else { return true };
            if keys == keys_max {
                stretch.next = Some(hash);
                return false;
            }
            keys += 1;
            // What cannot be read stays in: the lookup says what is wrong with it.
            if newest_ms(value).is_none_or(|newest_ms| newest_ms >= horizon_ms) {
                stretch.live.push(hash);
            }
            true
        })?;
        Ok(stretch)
    }

    /// How many live keys there are in all, if this stretch is the first one.
    fn estimate(&self) -> u64 {
        let live = self.live.len() as u64;
        match self.next {
            Some(next) => (live as f64 / (next as f64 / u128::MAX as f64).max(1e-9)) as u64,
            None => live,
        }
    }
}

/// A Bloom filter whose probes of one key share a cache line.
struct Bloom {
    lines: Vec<Line>,
    keys: u64,
    keys_full: u64,
    /// How many it knew when its walk was done.
    keys_begun: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Bloom {
    fn new(keys: u64, bytes_max: usize) -> Bloom {
        let lines_max = (bytes_max / size_of::<Line>()).max(1);
        let lines = (keys.max(KEYS_MIN).saturating_mul(BITS_PER_KEY_MIN).div_ceil(512) as usize).min(lines_max);
        Bloom {
            lines: vec![Line::default(); lines],
            keys: 0,
            keys_begun: 0,
            keys_full: lines as u64 * 512 / BITS_PER_KEY_MIN,
        }
    }

    /// A full filter is made anew; one that cannot grow only when as many keys have come as there were, so that a
    /// walk costs less than what came between.
    fn is_worth_a_walk(&self) -> bool {
        self.keys >= self.keys_full.max(2 * self.keys_begun)
    }

    /// The upper half of the key names the line, so that ascending keys walk through memory in order.
    #[inline]
    fn line(&self, key: u128) -> usize {
        (((key >> 64) * self.lines.len() as u128) >> 64) as usize
    }

    #[inline]
    fn holds(&self, key: u128) -> bool {
        let line = &self.lines[self.line(key)].0;
        // No branch between the probes: many keys are then on their way from memory at once.
        probes(key).fold(1, |all, (word, bit)| all & (line[word] >> bit)) & 1 == 1
    }

    #[inline]
    fn insert(&mut self, key: u128) {
        let at = self.line(key);
        let line = &mut self.lines[at].0;
        probes(key).for_each(|(word, bit)| line[word] |= 1 << bit);
        self.keys += 1;
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// Six of a line's 512 bits, from the lower half of the key.
#[inline]
fn probes(key: u128) -> impl Iterator<Item = (usize, u32)> {
    let low = key as u64;
    (0..6).map(move |probe| {
        let at = low >> (9 * probe);
        ((at >> 6 & 7) as usize, (at & 63) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::WriteBatch;
    use crate::state::keys::seen_prefix;
    use crate::state::memory::MemoryStore;
    use crate::types::TaskNo;
    use xxhash_rust::xxh3::xxh3_128;

    fn key(n: u64) -> u128 {
        xxh3_128(&n.to_be_bytes())
    }

    fn store_with(prefix: [u8; SEEN_PREFIX_LEN], numbers: std::ops::Range<u64>, time_ms: i64) -> MemoryStore {
        let store = MemoryStore::new();
        let mut batch = WriteBatch::default();
        numbers.for_each(|n| batch.seen.put(&seen_key(prefix, key(n)), &time_ms.to_be_bytes()));
        store.write(&batch).unwrap();
        store
    }

    #[test]
    fn no_stored_key_is_hidden_while_the_filter_grows() {
        let prefix = seen_prefix(TaskNo(7), 1);
        let store = store_with(prefix, 0..40_000, 5);
        let mut filter = Filter::new(prefix, 1 << 20);
        let mut inserted = 40_000;
        for _ in 0..100 {
            filter.walk(&store, 1_000, 0).unwrap();
            // Keys are in the store before the filter is told.
            let mut batch = WriteBatch::default();
            (inserted..inserted + 3_000).for_each(|n| batch.seen.put(&seen_key(prefix, key(n)), &[0; 8]));
            store.write(&batch).unwrap();
            (inserted..inserted + 3_000).for_each(|n| filter.insert(key(n)));
            inserted += 3_000;
            assert!((0..inserted).step_by(97).all(|n| filter.may_hold(key(n))));
        }
        assert!(filter.bytes() <= 2 << 20);
    }

    #[test]
    fn a_filter_that_knows_all_keys_holds_back_most_others() {
        let prefix = seen_prefix(TaskNo(7), 1);
        let store = store_with(prefix, 0..60_000, 5);
        let mut filter = Filter::new(prefix, 16 << 20);
        while filter.walk.is_some() {
            filter.walk(&store, 10_000, 0).unwrap();
        }
        let wrong = (1_000_000..1_100_000).filter(|&n| filter.may_hold(key(n))).count();
        assert!(wrong < 500, "{wrong} of 100,000 unknown keys got through");
        assert!(filter.bytes() < 400_000);
    }

    #[test]
    fn a_filter_that_may_not_grow_does_not_walk_all_the_time() {
        let prefix = seen_prefix(TaskNo(7), 1);
        let store = store_with(prefix, 0..60_000, 5);
        let mut filter = Filter::new(prefix, 1 << 12);
        while filter.walk.is_some() {
            filter.walk(&store, 10_000, 0).unwrap();
        }
        (60_000..110_000).for_each(|n| filter.insert(key(n)));
        filter.walk(&store, 10_000, 0).unwrap();
        assert!(filter.walk.is_none() && filter.bytes() <= 1 << 12);
    }

    #[test]
    fn keys_below_the_horizon_are_left_out() {
        let prefix = seen_prefix(TaskNo(7), 1);
        let store = store_with(prefix, 0..1_000, 5);
        let mut filter = Filter::new(prefix, 16 << 20);
        filter.walk(&store, 10_000, 6).unwrap();
        assert!((0..1_000).filter(|&n| filter.may_hold(key(n))).count() < 10);
    }

    #[test]
    fn keys_of_other_tasks_are_not_walked_over() {
        let store = store_with(seen_prefix(TaskNo(8), 0), 0..1_000, 5);
        let mut filter = Filter::new(seen_prefix(TaskNo(7), 9), 16 << 20);
        filter.walk(&store, 10_000, 0).unwrap();
        assert_eq!(filter.whole.map(|bloom| bloom.keys), Some(0));
    }
}
