//! The recent keys: what changed since the last run was written. The newest state of a key is here or in a run.
//!
//! Promises that reads see the newest change, that a batch can be taken back, and that an entry leaves only when
//! the store has the run that holds it. Never asks the store.

use super::journal::{self, Journal, JournalMark};
use super::rule::Rule;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

type Map<K> = HashMap<Key, K, BuildHasherDefault<AsItIs>>;

/// The key as two words: aligned to 8 bytes, an entry of `keep: first` takes 32. Its bits are evenly spread.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u64; 2]);

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The map's places follow the low bits: with the key's first bits there, keys visited in order walk through
        // memory in order. 18 bits are the places of a map that is about to become a run of the usual size.
        state.write_u64(self.0[0].rotate_left(18));
    }
}

/// Changes that no stored run holds.
pub(super) struct Overlay<R: Rule> {
    recent: Map<R::Known>,
    /// What a sealed epoch makes a run of; older than `recent`, and left alone.
    leaving: Map<R::Known>,
    /// The changes of the open epoch as they will be stored.
    journal: Journal,
    /// What entries were before each change since the first mark.
    undo: Vec<Before<R::Known>>,
    is_marked: bool,
    /// What the recent entries hold outside of the map.
    heap_bytes: usize,
    /// The same of the open epoch's changes.
    open_heap_bytes: usize,
}

/// What an entry was before a change.
type Before<K> = (Key, Option<K>);

/// A moment to which a table can go back until marks are forgotten, at the latest with the next seal or store.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    changes: usize,
    journal: JournalMark,
    open_heap_bytes: usize,
}

impl<R: Rule> Overlay<R> {
    pub fn new() -> Overlay<R> {
        Overlay {
            recent: Map::default(),
            leaving: Map::default(),
            journal: Journal::new(),
            undo: Vec::new(),
            is_marked: false,
            heap_bytes: 0,
            open_heap_bytes: 0,
        }
    }

    #[inline]
    pub fn get(&self, key: u128) -> Option<&R::Known> {
        let key = words(key);
        let known = self.recent.get(&key);
        if known.is_none() && !self.leaving.is_empty() {
            return self.leaving.get(&key);
        }
        known
    }

    #[inline]
    pub fn set(&mut self, key: u128, known: R::Known) {
        self.journal.push::<R>(key, &known);
        self.open_heap_bytes += R::heap_bytes(&known);
        let before = self.insert(key, known);
        if self.is_marked {
            self.undo.push((words(key), before));
        }
    }

    #[inline]
    fn insert(&mut self, key: u128, known: R::Known) -> Option<R::Known> {
        self.heap_bytes += R::heap_bytes(&known);
        let before = self.recent.insert(words(key), known);
        self.heap_bytes -= before.as_ref().map_or(0, R::heap_bytes);
        before
    }

    /// Marks lie one inside the other: one that is older than a mark gone back to still stands.
    pub fn mark(&mut self) -> Mark {
        self.is_marked = true;
        Mark { changes: self.undo.len(), journal: self.journal.mark(), open_heap_bytes: self.open_heap_bytes }
    }

    /// Takes back every change since the mark; the mark stays.
    pub fn rollback(&mut self, mark: Mark) {
        assert!(self.is_marked && mark.changes <= self.undo.len(), "rollback goes to a mark that stands");
        for (key, before) in self.undo.drain(mark.changes..).rev() {
            self.heap_bytes += before.as_ref().map_or(0, R::heap_bytes);
            let after = match before {
                Some(known) => self.recent.insert(key, known),
                None => self.recent.remove(&key),
            };
            self.heap_bytes -= after.map_or(0, |known| R::heap_bytes(&known));
        }
        self.journal.rollback(mark.journal);
        self.open_heap_bytes = mark.open_heap_bytes;
    }

    /// Nobody goes back any more.
    pub fn forget_marks(&mut self) {
        self.is_marked = false;
        self.undo.clear();
    }

    /// The changes of the open epoch.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes in the journal of a stored epoch; `None` for what is none.
    pub fn replay(&mut self, bytes: &[u8]) -> Option<()> {
        journal::read::<R>(bytes, |key, known| {
            self.insert(key, known);
        })
    }

    /// Begins with what a start has read; a mark may be set, but nothing has changed yet.
    pub fn take_stored(&mut self, stored: Overlay<R>) {
        assert!(self.recent.is_empty() && self.journal.entries() == 0, "a table is read before it changes");
        (self.recent, self.heap_bytes) = (stored.recent, stored.heap_bytes);
    }

    /// The recent entries, in no order that means anything.
    pub fn recent(&self) -> impl Iterator<Item = (u128, &R::Known)> {
        self.recent.iter().map(|(key, known)| (key.number(), known))
    }

    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }

    /// Memory behind the recent entries that their number does not show.
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// Closes the open epoch. `leaves` says that it holds everything recent as a run.
    pub fn seal(&mut self, leaves: bool, journal_bytes_max: usize) {
        self.forget_marks();
        self.journal.clear(journal_bytes_max);
        self.open_heap_bytes = 0;
        if leaves {
            assert!(self.leaving.is_empty(), "one run is on its way at a time");
            std::mem::swap(&mut self.recent, &mut self.leaving);
            self.heap_bytes = 0;
        }
    }

    /// The store has an epoch; `left` says that it has the run that was on its way.
    pub fn stored(&mut self, left: bool, keys_max: usize) {
        self.forget_marks();
        if left {
            // The next run needs the memory again; what an epoch of unusual size took goes back.
            self.leaving.clear();
            self.leaving.shrink_to(keys_max);
        }
    }

    /// Memory of the changes of the open epoch.
    pub fn open_bytes(&self) -> usize {
        // A slot of the map, its control byte, and the free ones that come with it.
        let slots = self.journal.entries() as usize * (size_of::<(Key, R::Known)>() + 1) * 3 / 2;
        let undo = self.undo.len() * size_of::<Before<R::Known>>();
        slots + self.journal.bytes().len() + undo + self.open_heap_bytes
    }
}

impl Key {
    fn number(self) -> u128 {
        (self.0[0] as u128) << 64 | self.0[1] as u128
    }
}

#[inline]
fn words(key: u128) -> Key {
    Key([(key >> 64) as u64, key as u64])
}

/// A key is a hash already. Nothing here depends on the map's order.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is written as one word");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
