//! The keys of the tables, drawn. Owns every layout that more than one file reads; never looks into a value.
//!
//! Numbers are big-endian, so that the order of the bytes is the order of the numbers. Whatever belongs to a
//! task's past begins with its task number: to set the past aside is to draw a new number and to delete one range.
//!
//! ```text
//! seen         │ task u32 │ step u16 │ key hash 16 │
//! dead_letters │ partition u32 │ seq u64 │     under no task number: a letter outlives its task's past
//! ```

use crate::types::TaskNo;

/// Length of a `seen` key.
pub const SEEN_KEY_LEN: usize = 22;
/// Length of the part of a `seen` key that a task's step has in common.
pub const SEEN_PREFIX_LEN: usize = 6;
/// Length of a key of `dead_letters`.
pub const LETTER_KEY_LEN: usize = 12;

/// The common start of all `seen` keys of one step of a task.
pub fn seen_prefix(task: TaskNo, step: u16) -> [u8; SEEN_PREFIX_LEN] {
    let mut key = [0; SEEN_PREFIX_LEN];
    key[..4].copy_from_slice(&task.0.to_be_bytes());
    key[4..].copy_from_slice(&step.to_be_bytes());
    key
}

/// The key under which a step of a task remembers a key hash.
#[inline]
pub fn seen_key(prefix: [u8; SEEN_PREFIX_LEN], hash: u128) -> [u8; SEEN_KEY_LEN] {
    let mut key = [0; SEEN_KEY_LEN];
    key[..SEEN_PREFIX_LEN].copy_from_slice(&prefix);
    key[SEEN_PREFIX_LEN..].copy_from_slice(&hash.to_be_bytes());
    key
}

/// Task, step and key hash of a `seen` key; `None` for what is none.
#[inline]
pub fn seen_parts(key: &[u8]) -> Option<(TaskNo, u16, u128)> {
    let key: &[u8; SEEN_KEY_LEN] = key.try_into().ok()?;
    let (task, rest) = key.split_first_chunk::<4>()?;
    let (step, hash) = rest.split_first_chunk::<2>()?;
    let hash = hash.try_into().ok()?;
    Some((TaskNo(u32::from_be_bytes(*task)), u16::from_be_bytes(*step), u128::from_be_bytes(hash)))
}

/// `from .. to` of everything that a task keeps, in every table whose keys begin with its number.
pub fn task_range(task: TaskNo) -> (Vec<u8>, Vec<u8>) {
    prefix_range(&task.0.to_be_bytes())
}

/// `from .. to` of all keys that begin with `prefix`.
pub fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut to = prefix.to_vec();
    while let Some(last) = to.pop() {
        if last < u8::MAX {
            to.push(last + 1);
            return (prefix.to_vec(), to);
        }
    }
    // Nothing but 0xff: no shorter text is above all of them, and no key of ours is this long.
    (prefix.to_vec(), vec![u8::MAX; 64])
}

/// The place of a dead letter.
#[inline]
pub fn letter_key(partition: u32, seq: u64) -> [u8; LETTER_KEY_LEN] {
    let mut key = [0; LETTER_KEY_LEN];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Partition and number of a letter's key; `None` for what is none.
#[inline]
pub fn letter_parts(key: &[u8]) -> Option<(u32, u64)> {
    let key: &[u8; LETTER_KEY_LEN] = key.try_into().ok()?;
    let (partition, seq) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*partition), u64::from_be_bytes(seq.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(task: u32, step: u16, hash: u128) -> [u8; SEEN_KEY_LEN] {
        seen_key(seen_prefix(TaskNo(task), step), hash)
    }

    proptest! {
        #[test]
        fn a_seen_key_comes_back_as_it_went_in(task: u32, step: u16, hash: u128) {
            prop_assert_eq!(seen_parts(&seen(task, step, hash)), Some((TaskNo(task), step, hash)));
        }

        #[test]
        fn seen_keys_sort_as_their_numbers_do(a: (u32, u16, u128), b: (u32, u16, u128)) {
            prop_assert_eq!(seen(a.0, a.1, a.2).cmp(&seen(b.0, b.1, b.2)), a.cmp(&b));
        }

        #[test]
        fn a_letter_key_comes_back_as_it_went_in(partition: u32, seq: u64) {
            prop_assert_eq!(letter_parts(&letter_key(partition, seq)), Some((partition, seq)));
        }

        #[test]
        fn letter_keys_sort_as_their_numbers_do(a: (u32, u64), b: (u32, u64)) {
            prop_assert_eq!(letter_key(a.0, a.1).cmp(&letter_key(b.0, b.1)), a.cmp(&b));
        }

        #[test]
        fn a_task_range_holds_the_keys_of_its_task_and_no_other(
            task in prop_oneof![any::<u32>(), Just(u32::MAX), Just(0), Just(0xff)],
            other in prop_oneof![any::<u32>(), Just(u32::MAX), Just(0), Just(0x100)],
            step: u16,
            hash: u128,
        ) {
            let (from, to) = task_range(TaskNo(task));
            let within = |key: &[u8]| key >= from.as_slice() && key < to.as_slice();
            prop_assert!(within(&seen(task, step, hash)));
            prop_assert_eq!(within(&seen(other, step, hash)), other == task);
        }
    }

    #[test]
    fn what_is_no_key_has_no_parts() {
        assert_eq!(seen_parts(b"short"), None);
        assert_eq!(letter_parts(&[0; 13]), None);
    }
}
