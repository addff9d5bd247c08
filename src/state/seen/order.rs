//! Sorting what has evenly spread keys: one pass puts every item into its bucket, and the few in a bucket are sorted.
//!
//! Never depends on how evenly they are spread, only its speed does.

/// Memory that is kept from sort to sort.
pub(super) struct Sorter<T> {
    scratch: Vec<T>,
    ends: Vec<u32>,
}

impl<T: Copy> Sorter<T> {
    pub fn new() -> Sorter<T> {
        Sorter { scratch: Vec::new(), ends: Vec::new() }
    }

    /// Sorts by `key`. `bucket_of` puts each item into one of `buckets`, ascending as the keys do.
    pub fn sort<K: Ord>(
        &mut self,
        items: &mut Vec<T>,
        buckets: usize,
        bucket_of: impl Fn(&T) -> usize,
        key: impl Fn(&T) -> K,
    ) {
        let Sorter { scratch, ends } = self;
        ends.clear();
        ends.resize(buckets + 1, 0);
        for item in items.iter() {
            ends[bucket_of(item) + 1] += 1;
        }
        let mut sum = 0;
        for end in ends.iter_mut() {
            sum += *end;
            *end = sum;
        }
        // `ends` holds where each bucket begins, and, item by item, where it ends.
        scratch.clear();
        scratch.extend_from_slice(items);
        for item in items.iter() {
            let place = &mut ends[bucket_of(item)];
            scratch[*place as usize] = *item;
            *place += 1;
        }
        std::mem::swap(items, scratch);
        let mut start = 0;
        for &end in &ends[..buckets] {
            let bucket = &mut items[start..end as usize];
            if bucket.len() > 1 {
                bucket.sort_unstable_by_key(&key);
            }
            start = end as usize;
        }
    }
}

/// The bucket of a key whose upper half is spread over 64 bits: of `buckets`, the one at its share of the whole.
#[inline]
pub(super) fn share_of(upper: u64, buckets: u64) -> usize {
    ((upper as u128 * buckets as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_come_out_sorted(mut items in prop::collection::vec(any::<(u64, u32)>(), 0..300), buckets in 1u64..400) {
            let mut expected = items.clone();
            expected.sort_unstable();
            let bucket_of = |item: &(u64, u32)| share_of(item.0, buckets);
            Sorter::new().sort(&mut items, buckets as usize, bucket_of, |&item| item);
            prop_assert_eq!(items, expected);
        }
    }
}
