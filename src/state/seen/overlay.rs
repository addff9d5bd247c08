//! What a task knows that the store does not hold yet: the changes of the open epoch and of the sealed ones that
//! are on their way to the disk.
//!
//! Promises that reads see the newest change, that a batch can be taken back, and that an entry leaves only when
//! the store has it. Never asks the store.

use std::collections::VecDeque;
use std::collections::hash_map::{self, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Counts the epochs of one overlay.
type Round = u32;

/// The key as two words: aligned to 8 bytes, an entry of `keep: first` takes 40. Its bits are evenly spread.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u64; 2]);

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The map's places follow the low bits: with the key's first bits there, keys visited in order walk through
        // memory in order.
        state.write_u64(self.0[0].rotate_left(22));
    }
}

/// What is known of a key, and since which epoch.
#[derive(Clone)]
struct Entry<K> {
    known: K,
    round: Round,
}

/// The changes that are not stored yet.
pub(super) struct Overlay<K> {
    entries: HashMap<Key, Entry<K>, BuildHasherDefault<AsItIs>>,
    /// Keys changed in the open epoch.
    open: Vec<u128>,
    /// Keys of sealed epochs, oldest first, each list sorted.
    sealed: VecDeque<Vec<u128>>,
    round: Round,
    undo: Option<Undo<K>>,
    marks: u64,
    /// What the entries hold outside of the map.
    heap_bytes: usize,
    heap_bytes_of: fn(&K) -> usize,
}

/// What an entry was before each change since the mark.
struct Undo<K> {
    mark: Mark,
    before: Vec<(u128, Option<Entry<K>>)>,
}

/// A moment to which a table can go back, until the next mark, seal or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

impl<K: Clone> Overlay<K> {
    pub fn new(heap_bytes_of: fn(&K) -> usize) -> Overlay<K> {
        Overlay {
            entries: HashMap::default(),
            open: Vec::new(),
            sealed: VecDeque::new(),
            round: 0,
            undo: None,
            marks: 0,
            heap_bytes: 0,
            heap_bytes_of,
        }
    }

    #[inline]
    pub fn get(&self, key: u128) -> Option<&K> {
        self.entries.get(&words(key)).map(|entry| &entry.known)
    }

    #[inline]
    pub fn set(&mut self, key: u128, known: K) {
        self.heap_bytes += (self.heap_bytes_of)(&known);
        let before = self.entries.insert(words(key), Entry { known, round: self.round });
        self.heap_bytes -= before.as_ref().map_or(0, |entry| (self.heap_bytes_of)(&entry.known));
        if before.as_ref().is_none_or(|entry| entry.round != self.round) {
            self.open.push(key);
        }
        if let Some(undo) = &mut self.undo {
            undo.before.push((key, before));
        }
    }

    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        let mark = Mark(self.marks);
        let mut before = self.undo.take().map(|undo| undo.before).unwrap_or_default();
        before.clear();
        self.undo = Some(Undo { mark, before });
        mark
    }

    /// Takes back every change since the mark; the mark stays.
    pub fn rollback(&mut self, mark: Mark) {
        let mut undo = self.undo.take().filter(|undo| undo.mark == mark).expect("rollback goes to the latest mark");
        while let Some((key, before)) = undo.before.pop() {
            // The first change of a key in its epoch was the one that noted it.
            if before.as_ref().is_none_or(|entry| entry.round != self.round) {
                self.open.pop();
            }
            self.heap_bytes += before.as_ref().map_or(0, |entry| (self.heap_bytes_of)(&entry.known));
            let after = match before {
                Some(entry) => self.entries.insert(words(key), entry),
                None => self.entries.remove(&words(key)),
            };
            self.heap_bytes -= after.map_or(0, |entry| (self.heap_bytes_of)(&entry.known));
        }
        self.undo = Some(undo);
    }

    /// Closes the open epoch and visits its changes in key order.
    pub fn seal(&mut self, mut visit: impl FnMut(u128, &K)) {
        self.undo = None;
        let mut keys = std::mem::take(&mut self.open);
        // Each batch left its keys in order: the stable sort finds the runs and merges them.
        keys.sort();
        for &key in &keys {
            visit(key, self.get(key).expect("a changed key is in the overlay until it is stored"));
        }
        self.sealed.push_back(keys);
        self.round += 1;
    }

    /// The store has the oldest sealed epoch; visits its keys in order.
    pub fn stored(&mut self, mut visit: impl FnMut(u128)) {
        self.undo = None;
        let keys = self.sealed.pop_front().expect("an epoch is sealed before it is stored");
        let stored = self.round - self.sealed.len() as Round - 1;
        for key in keys {
            visit(key);
            // What a later epoch changed again is newer than the store.
            if let hash_map::Entry::Occupied(entry) = self.entries.entry(words(key))
                && entry.get().round == stored
            {
                self.heap_bytes -= (self.heap_bytes_of)(&entry.remove().known);
            }
        }
    }

    pub fn bytes(&self) -> usize {
        // hashbrown keeps one control byte for each slot, and fills seven of eight.
        let slots = self.entries.capacity() * 8 / 7 * (size_of::<(Key, Entry<K>)>() + 1);
        let keys = self.open.capacity() + self.sealed.iter().map(Vec::capacity).sum::<usize>();
        let undo = self.undo.as_ref().map_or(0, |undo| undo.before.capacity() * size_of::<(u128, Option<Entry<K>>)>());
        slots + keys * size_of::<u128>() + undo + self.heap_bytes
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
