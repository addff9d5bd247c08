//! The keys of the tables, drawn. Owns every layout that more than one file reads; never looks into a value.
//!
//! Numbers are big-endian, so that the order of the bytes is the order of the numbers. Whatever belongs to a
//! task's past begins with its task number: to set the past aside is to draw a new number and to delete one range.
//!
//! ```text
//! seen         │ task u32 │ step u16 │ 0 │                            its manifest
//!              │ task u32 │ step u16 │ 1 │ number u64 │               a journal: what one epoch changed
//!              │ task u32 │ step u16 │ 2 │ run u64 │ chunk u32 │      keys of a run, by their hash
//! dead_letters │ partition u32 │ seq u64 │     under no task number: a letter outlives its task's past
//! ```

use crate::types::TaskNo;

/// Length of the part of a `seen` key that a task's step has in common.
pub const SEEN_PREFIX_LEN: usize = 6;
/// Length of the key of a manifest.
pub const SEEN_MANIFEST_KEY_LEN: usize = SEEN_PREFIX_LEN + 1;
/// Length of the key of a journal.
pub const SEEN_JOURNAL_KEY_LEN: usize = SEEN_PREFIX_LEN + 9;
/// Length of the key of a chunk.
pub const SEEN_CHUNK_KEY_LEN: usize = SEEN_PREFIX_LEN + 13;
/// Length of a key of `dead_letters`.
pub const LETTER_KEY_LEN: usize = 12;

const MANIFEST: u8 = 0;
const JOURNAL: u8 = 1;
const CHUNK: u8 = 2;

/// The common start of all `seen` keys of one step of a task.
pub fn seen_prefix(task: TaskNo, step: u16) -> [u8; SEEN_PREFIX_LEN] {
    let mut key = [0; SEEN_PREFIX_LEN];
    key[..4].copy_from_slice(&task.0.to_be_bytes());
    key[4..].copy_from_slice(&step.to_be_bytes());
    key
}

/// Where a step of a task says which runs it has.
pub fn seen_manifest_key(prefix: [u8; SEEN_PREFIX_LEN]) -> [u8; SEEN_MANIFEST_KEY_LEN] {
    let mut key = [0; SEEN_MANIFEST_KEY_LEN];
    key[..SEEN_PREFIX_LEN].copy_from_slice(&prefix);
    key[SEEN_PREFIX_LEN] = MANIFEST;
    key
}

/// Where a step of a task keeps what one epoch changed.
pub fn seen_journal_key(prefix: [u8; SEEN_PREFIX_LEN], number: u64) -> [u8; SEEN_JOURNAL_KEY_LEN] {
    let mut key = [0; SEEN_JOURNAL_KEY_LEN];
    key[..SEEN_PREFIX_LEN].copy_from_slice(&prefix);
    key[SEEN_PREFIX_LEN] = JOURNAL;
    key[SEEN_PREFIX_LEN + 1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number of a journal; `None` for what is none.
pub fn seen_journal_number(key: &[u8]) -> Option<u64> {
    let key: &[u8; SEEN_JOURNAL_KEY_LEN] = key.try_into().ok()?;
    let number = key.last_chunk().map(|number| u64::from_be_bytes(*number));
    number.filter(|_| key[SEEN_PREFIX_LEN] == JOURNAL)
}

/// Where a step of a task keeps a chunk of a run.
#[inline]
pub fn seen_chunk_key(prefix: [u8; SEEN_PREFIX_LEN], run: u64, chunk: u32) -> [u8; SEEN_CHUNK_KEY_LEN] {
    let mut key = [0; SEEN_CHUNK_KEY_LEN];
    key[..SEEN_PREFIX_LEN].copy_from_slice(&prefix);
    key[SEEN_PREFIX_LEN] = CHUNK;
    key[SEEN_PREFIX_LEN + 1..][..8].copy_from_slice(&run.to_be_bytes());
    key[SEEN_PREFIX_LEN + 9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The step's prefix and the numbers of run and chunk in a chunk's key; `None` for what is none.
#[inline]
pub fn seen_chunk_parts(key: &[u8]) -> Option<([u8; SEEN_PREFIX_LEN], u64, u32)> {
    let key: &[u8; SEEN_CHUNK_KEY_LEN] = key.try_into().ok()?;
    let (prefix, rest) = key.split_first_chunk()?;
    let (&CHUNK, rest) = rest.split_first()? else { return None };
    let (run, chunk) = rest.split_first_chunk()?;
    Some((*prefix, u64::from_be_bytes(*run), u32::from_be_bytes(chunk.try_into().ok()?)))
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

    fn chunk(task: u32, step: u16, run: u64, chunk: u32) -> [u8; SEEN_CHUNK_KEY_LEN] {
        seen_chunk_key(seen_prefix(TaskNo(task), step), run, chunk)
    }

    proptest! {
        #[test]
        fn seen_keys_come_back_as_they_went_in(task: u32, step: u16, number: u64, chunk: u32) {
            let prefix = seen_prefix(TaskNo(task), step);
            let journal = seen_journal_key(prefix, number);
            let chunk_key = seen_chunk_key(prefix, number, chunk);
            prop_assert_eq!(seen_journal_number(&journal), Some(number));
            prop_assert_eq!(seen_chunk_parts(&chunk_key), Some((prefix, number, chunk)));
            prop_assert_eq!(seen_chunk_parts(&journal), None);
            prop_assert_eq!(seen_journal_number(&chunk_key), None);
            prop_assert!(seen_manifest_key(prefix)[..] < journal[..] && journal[..] < chunk_key[..]);
        }

        #[test]
        fn chunk_keys_sort_as_their_numbers_do(a: (u32, u16, u64, u32), b: (u32, u16, u64, u32)) {
            prop_assert_eq!(chunk(a.0, a.1, a.2, a.3).cmp(&chunk(b.0, b.1, b.2, b.3)), a.cmp(&b));
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
            run: u64,
        ) {
            let (from, to) = task_range(TaskNo(task));
            let within = |key: &[u8]| key >= from.as_slice() && key < to.as_slice();
            prop_assert!(within(&chunk(task, step, run, 7)));
            prop_assert_eq!(within(&chunk(other, step, run, 7)), other == task);
        }
    }

    #[test]
    fn what_is_no_key_has_no_parts() {
        assert_eq!(seen_chunk_parts(b"short"), None);
        assert_eq!(seen_journal_number(b"short"), None);
        assert_eq!(letter_parts(&[0; 13]), None);
    }
}
