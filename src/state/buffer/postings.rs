//! Where the rows of a key are, while their segment is in memory.
//!
//! Promises the rows of a key in the order of (time, arrival), whatever order they came in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A row of a segment: its time and its number in the segment.
pub(super) type Posting = (i64, u32);

#[derive(Default)]
pub(super) struct Postings {
    of_key: HashMap<u128, List, BuildHasherDefault<AsItIs>>,
    /// No key ever had more rows.
    most: u32,
    /// Postings in lists of their own.
    listed: usize,
}

/// Most keys have one row.
enum List {
    One(Posting),
    Many(Vec<Posting>),
}

impl Postings {
    pub fn insert(&mut self, key: u128, posting: Posting) {
        let list = match self.of_key.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(List::One(posting));
                self.most = self.most.max(1);
                return;
            }
            std::collections::hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if let List::One(first) = list {
            *list = List::Many(vec![*first]);
            self.listed += 1;
        }
        let List::Many(list) = list else { unreachable!("it was just made a list") };
        // Nearly always the end.
        let at = list.partition_point(|known| *known < posting);
        list.insert(at, posting);
        self.listed += 1;
        self.most = self.most.max(list.len() as u32);
    }

    pub fn remove(&mut self, key: u128, posting: Posting) {
        let list = self.of_key.get_mut(&key).expect("what is removed was inserted");
        if let List::Many(list) = list {
            list.retain(|known| *known != posting);
            self.listed -= 1;
        }
        if matches!(list, List::One(_)) || matches!(list, List::Many(list) if list.is_empty()) {
            self.of_key.remove(&key);
        }
    }

    /// The rows of a key with `from_ms ≤ time ≤ to_ms`.
    #[inline]
    pub fn between(&self, key: u128, from_ms: i64, to_ms: i64) -> &[Posting] {
        let list = match self.of_key.get(&key) {
            None => return &[],
            Some(List::One(posting)) => std::slice::from_ref(posting),
            Some(List::Many(list)) => list,
        };
        let from = list.partition_point(|posting| posting.0 < from_ms);
        let len = list[from..].partition_point(|posting| posting.0 <= to_ms);
        &list[from..from + len]
    }

    /// No key has more rows than this.
    pub fn most(&self) -> u32 {
        self.most
    }

    pub fn bytes(&self) -> usize {
        // hashbrown keeps one control byte for each slot, and fills seven of eight.
        self.of_key.capacity() * 8 / 7 * (size_of::<(u128, List)>() + 1) + self.listed * size_of::<Posting>()
    }
}

/// A key is a hash already. Nothing here depends on the map's order.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    #[inline]
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is written as one number");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_rows_of_a_key_lie_in_the_order_of_their_times(
            rows in prop::collection::vec((0u128..3, -5i64..5), 0..40),
            removed in 0usize..40,
            from_ms in -6i64..6,
            to_ms in -6i64..6,
        ) {
            let mut postings = Postings::default();
            let rows: Vec<(u128, Posting)> =
                rows.iter().enumerate().map(|(number, (key, time_ms))| (*key, (*time_ms, number as u32))).collect();
            rows.iter().for_each(|(key, posting)| postings.insert(*key, *posting));
            let kept = rows.len().saturating_sub(removed);
            rows[kept..].iter().rev().for_each(|(key, posting)| postings.remove(*key, *posting));
            for key in 0..3 {
                let mut expected: Vec<Posting> = rows[..kept]
                    .iter()
                    .filter(|(other, (time_ms, _))| *other == key && (from_ms..=to_ms).contains(time_ms))
                    .map(|(_, posting)| *posting)
                    .collect();
                expected.sort();
                prop_assert_eq!(postings.between(key, from_ms, to_ms), expected.as_slice());
                prop_assert!(rows[..kept].iter().filter(|(other, _)| *other == key).count() <= postings.most() as usize);
            }
        }
    }
}
