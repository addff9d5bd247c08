//! A journal: what one epoch changed, in one stored value, until a run holds it.
//!
//! Owns its layout. A key may stand in it several times; the last one counts.
//!
//! ```text
//! format u8 │ key hash 16 │ length 1 to 5 │ what `rule.rs` remembers │ …
//! ```
//! The length is written in groups of seven bits, the lowest first; the eighth bit says that another follows.

use super::rule::Rule;

const FORMAT: u8 = 1;
const HASH_LEN: usize = 16;

/// The journal of the open epoch.
pub(super) struct Journal {
    bytes: Vec<u8>,
    entries: u64,
}

/// How far a journal had come.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalMark {
    len: usize,
    entries: u64,
}

impl Journal {
    pub fn new() -> Journal {
        Journal { bytes: vec![FORMAT], entries: 0 }
    }

    #[inline]
    pub fn push<R: Rule>(&mut self, key: u128, known: &R::Known) {
        self.bytes.extend_from_slice(&key.to_be_bytes());
        let mut len = R::encoded_len(known);
        while len >= 0x80 {
            self.bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        self.bytes.push(len as u8);
        R::encode(known, &mut self.bytes);
        self.entries += 1;
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn mark(&self) -> JournalMark {
        JournalMark { len: self.bytes.len(), entries: self.entries }
    }

    /// Forgets what was pushed since the mark.
    pub fn rollback(&mut self, mark: JournalMark) {
        self.bytes.truncate(mark.len);
        self.entries = mark.entries;
    }

    /// Empty again, for the next epoch.
    pub fn clear(&mut self, capacity_max: usize) {
        self.bytes.truncate(1);
        self.bytes.shrink_to(capacity_max);
        self.entries = 0;
    }
}

/// Visits the entries of a stored journal in the order they were pushed. `None` for what is no whole journal.
pub(super) fn read<R: Rule>(bytes: &[u8], mut visit: impl FnMut(u128, R::Known)) -> Option<()> {
    let (&FORMAT, mut rest) = bytes.split_first()? else { return None };
    while !rest.is_empty() {
        let (hash, after) = rest.split_first_chunk::<HASH_LEN>()?;
        let (len, after) = read_len(after)?;
        let (value, after) = after.split_at_checked(len)?;
        visit(u128::from_be_bytes(*hash), R::decode(value)?);
        rest = after;
    }
    Some(())
}

fn read_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut len = 0;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((len, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::seen::rule::{First, Times};
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<(u128, Times)>> {
        let times = prop_oneof![
            4 => any::<i64>().prop_map(Times::One),
            1 => prop::collection::btree_set(any::<i64>(), 2..40).prop_map(|times| Times::Many(times.into_iter().collect())),
        ];
        prop::collection::vec((any::<u128>(), times), 0..20)
    }

    fn journal(entries: &[(u128, Times)]) -> Journal {
        let mut journal = Journal::new();
        entries.iter().for_each(|(key, times)| journal.push::<First>(*key, times));
        journal
    }

    proptest! {
        #[test]
        fn a_journal_comes_back_as_it_went_in(entries in entries()) {
            let journal = journal(&entries);
            let mut back = Vec::new();
            read::<First>(journal.bytes(), |key, times| back.push((key, times))).unwrap();
            prop_assert_eq!(journal.entries(), entries.len() as u64);
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn a_journal_goes_back_to_its_mark(before in entries(), after in entries()) {
            let mut journal = journal(&before);
            let (mark, bytes) = (journal.mark(), journal.bytes().to_vec());
            after.iter().for_each(|(key, times)| journal.push::<First>(*key, times));
            journal.rollback(mark);
            prop_assert_eq!((journal.bytes(), journal.entries()), (&bytes[..], before.len() as u64));
        }
    }

    #[test]
    fn what_is_no_journal_is_not_read() {
        let whole = journal(&[(7, Times::One(3))]);
        for cut in [0, 2, 17, 18, 25] {
            assert!(read::<First>(&whole.bytes()[..cut], |_, _| {}).is_none(), "{cut} bytes");
        }
        assert!(read::<First>(&[2], |_, _| {}).is_none());
        assert!(read::<First>(&[&[1][..], &[0; 16], &[0xff; 9]].concat(), |_, _| {}).is_none());
    }
}
