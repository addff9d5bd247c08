//! A sample of the keys that a step has met: those with low hashes.
//!
//! Owns the threshold, which falls as keys become many. Promises that a key is sampled by its hash alone, so that two
//! tasks that meet the same key sample the same one, as long as it is below both thresholds.

/// Keys of one epoch that are told, about.
const KEYS_MAX: usize = 256;

#[derive(Debug)]
pub struct KeySample {
    keys: Vec<u64>,
    below: u64,
}

impl KeySample {
    pub fn new() -> KeySample {
        KeySample { keys: Vec::new(), below: u64::MAX }
    }

    /// The step has met a key.
    #[inline]
    pub fn meet(&mut self, key: u128) {
        let upper = (key >> 64) as u64;
        if upper < self.below {
            self.add(upper);
        }
    }

    #[inline(never)]
    fn add(&mut self, upper: u64) {
        self.keys.push(upper);
        if self.keys.len() < 2 * KEYS_MAX {
            return;
        }
        self.keys.sort_unstable();
        self.keys.dedup();
        // Half of the room is free afterwards, so that this is rare.
        while self.keys.len() > KEYS_MAX {
            self.below /= 2;
            self.keys.retain(|&key| key < self.below);
        }
    }

    /// The keys met since the last call, each once.
    pub fn take(&mut self) -> Vec<u64> {
        self.keys.sort_unstable();
        self.keys.dedup();
        std::mem::take(&mut self.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_keys_are_all_told_each_once() {
        let mut sample = KeySample::new();
        (0..10u128).chain(0..10).for_each(|key| sample.meet(key << 64));
        assert_eq!(sample.take(), (0..10).collect::<Vec<u64>>());
        assert!(sample.take().is_empty());
    }

    #[test]
    fn of_many_keys_two_tasks_sample_the_same() {
        let key = |number: u64| (xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()) as u128) << 64;
        let mut one = KeySample::new();
        let mut other = KeySample::new();
        (0..100_000).for_each(|number| one.meet(key(number)));
        (50_000..100_000).rev().for_each(|number| other.meet(key(number)));
        let (one, other) = (one.take(), other.take());
        assert!((KEYS_MAX / 4..2 * KEYS_MAX).contains(&one.len()), "{}", one.len());
        assert!(one.iter().filter(|key| other.contains(key)).count() > KEYS_MAX / 16);
    }
}
