//! Whether one key comes through two partitions: a dedup finds duplicates within a partition only.
//!
//! Owns a sample of the keys of each dedup step with the partition that each came through, in a bounded table: it keeps
//! low hashes, as the tasks' samples do. Never on the path of a record.

use std::collections::{BTreeMap, HashMap};

/// Keys of one step that are remembered.
const KEYS_MAX: usize = 16 << 10;

/// The samples of a pipeline's dedup steps, by their number.
#[derive(Debug, Default)]
pub struct Scattered {
    steps: BTreeMap<usize, Keys>,
}

#[derive(Debug)]
struct Keys {
    partitions: HashMap<u64, i32>,
    below: u64,
    is_told: bool,
}

impl Scattered {
    /// A task has met keys in its partition. Answers with two partitions that one of them came through, once for each
    /// step.
    pub fn meet(&mut self, step: usize, partition: i32, keys: &[u64]) -> Option<(i32, i32)> {
        let fresh = || Keys { partitions: HashMap::new(), below: u64::MAX, is_told: false };
        let known = self.steps.entry(step).or_insert_with(fresh);
        if known.is_told {
            return None;
        }
        for &key in keys.iter().filter(|&&key| key < known.below) {
            let first = *known.partitions.entry(key).or_insert(partition);
            if first != partition {
                *known = Keys { is_told: true, ..fresh() };
                return Some((first, partition));
            }
        }
        while known.partitions.len() > KEYS_MAX {
            known.below /= 2;
            known.partitions.retain(|key, _| *key < known.below);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_two_partitions_is_told_once_for_each_step() {
        let mut scattered = Scattered::default();
        assert_eq!(scattered.meet(0, 1, &[5, 6]), None);
        assert_eq!(scattered.meet(0, 1, &[5]), None, "again in its own");
        assert_eq!(scattered.meet(1, 2, &[5]), None, "of another step");
        assert_eq!(scattered.meet(0, 3, &[7, 6]), Some((1, 3)));
        assert_eq!(scattered.meet(0, 3, &[5]), None, "told before");
        assert_eq!(scattered.meet(1, 1, &[5]), Some((2, 1)));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut scattered = Scattered::default();
        let key = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        for number in 0..3 * KEYS_MAX as u64 {
            assert_eq!(scattered.meet(0, 0, &[key(number)]), None);
        }
        assert!(scattered.steps[&0].partitions.len() <= KEYS_MAX);
        assert!(scattered.steps[&0].partitions.len() > KEYS_MAX / 4);
    }
}
