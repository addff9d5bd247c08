//! A table: for each key the versions of its row that may still be asked for.
//!
//! Owns the keys of one table side. Kept of a key are the newest version at or before the watermark and all newer
//! ones; a read applies that rule itself, so that it does not matter when the rest is thrown away. A deletion is a
//! version like any other. Promises that reads see the newest change, that changes can be taken back, and that a
//! change leaves memory only when the store has it. Never reads a clock, never writes: what changed leaves with the epoch.
//!
//! ```text
//! buffer │ task u32 │ step u16 │ 2 │ key 16 │ → versions, oldest first: time i64 │ length u32 (ff × 4: deleted) │ row │
//! ```
//! The key is shorter than those of `buffer/layout.rs`, numbers in it are big-endian, values little-endian.

use super::{StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::types::TaskNo;
use std::collections::{HashMap, VecDeque};

const KEY_LEN: usize = 23;
const SIDE: u8 = 2;
const HEAD_BYTES: usize = 12;
const DELETED: u32 = u32::MAX;
/// What a changed key takes in memory beside its versions, about.
const ENTRY_BYTES: usize = 96;

/// The table side of one join of one task.
pub struct Versions {
    prefix: [u8; 7],
    /// Changed and not yet stored: versions, and the epoch that changed them last.
    changed: HashMap<u128, Changed>,
    /// Keys changed in the open epoch, and those of sealed ones, oldest first.
    open: Vec<u128>,
    sealed: VecDeque<Vec<u128>>,
    round: u32,
    /// What the store has of the keys that were looked ahead for; nothing is an empty list.
    known: HashMap<u128, Vec<u8>>,
    bytes: usize,
    undo: Option<Undo>,
    marks: u64,
}

/// What keys were before each change since the mark.
struct Undo {
    mark: Mark,
    before: Vec<(u128, Option<Changed>)>,
}

#[derive(Clone)]
struct Changed {
    versions: Vec<u8>,
    round: u32,
}

/// A moment to which a table can go back, until the next mark, seal or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

/// What a key has at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Valid<'a> {
    /// No version of this key is known, or none that is old enough.
    Nothing,
    Deleted,
    Row(&'a [u8]),
}

/// What became of a new version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// The key had none.
    First,
    Further,
    /// A newer one is at or before the watermark: nobody will ask for this one.
    Outdated,
    /// The key has as many as it may have.
    Full,
}

impl Versions {
    pub fn new(task: TaskNo, step: u16) -> Versions {
        let mut prefix = [0; 7];
        prefix[..4].copy_from_slice(&task.0.to_be_bytes());
        prefix[4..6].copy_from_slice(&step.to_be_bytes());
        prefix[6] = SIDE;
        Versions {
            prefix,
            changed: HashMap::new(),
            open: vec![],
            sealed: VecDeque::new(),
            round: 0,
            known: HashMap::new(),
            bytes: 0,
            undo: None,
            marks: 0,
        }
    }

    /// Forgets what was read ahead.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Reads what the store has of these keys, in any order; only they can be asked for until it is forgotten.
    pub fn look_ahead(&mut self, store: &dyn StateStore, keys: &[u128]) -> Result<()> {
        let is_unknown = |key: &u128| !self.changed.contains_key(key) && !self.known.contains_key(key);
        let mut wanted: Vec<u128> = keys.iter().copied().filter(is_unknown).collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.known.extend(wanted.iter().map(|key| (*key, vec![])));
        let bytes: Vec<u8> = wanted.iter().flat_map(|key| self.key(*key)).collect();
        let mut is_whole = true;
        store.multi_get(Table::Buffer, &bytes, KEY_LEN, &mut |index, value| {
            is_whole &= is_list(value);
            self.known.insert(wanted[index], value.to_vec());
        })?;
        if is_whole { Ok(()) } else { Err(corrupt()) }
    }

    /// The version valid at `time_ms`: the newest at or before it, of equal times the later one. `or_oldest`: else the
    /// oldest that is kept at this watermark; without it, versions older than the watermark's are looked at, too, for
    /// the row that asks was there before the watermark rose.
    pub fn valid_at(&self, key: u128, time_ms: i64, kept_at_ms: Option<i64>, or_oldest: bool) -> Valid<'_> {
        let versions = self.versions(key);
        let kept = match kept_at_ms {
            Some(watermark_ms) => list(versions).skip(outdated(versions, watermark_ms)).collect::<Vec<_>>(),
            None => list(versions).collect(),
        };
        let newest = kept.iter().rfind(|(at_ms, _)| *at_ms <= time_ms);
        let found = newest.or(kept.first().filter(|_| or_oldest));
        match found {
            None => Valid::Nothing,
            Some((_, None)) => Valid::Deleted,
            Some((_, Some(row))) => Valid::Row(row),
        }
    }

    /// Adds a version (`None`: a deletion). The key must have been looked ahead for.
    pub fn add(&mut self, key: u128, time_ms: i64, row: Option<&[u8]>, watermark_ms: i64, versions_max: u64) -> Added {
        let before = self.versions(key);
        let first = outdated(before, watermark_ms);
        let kept: Vec<_> = list(before).skip(first).collect();
        if kept.first().is_some_and(|(at_ms, _)| *at_ms <= watermark_ms && *at_ms > time_ms) {
            return Added::Outdated;
        }
        if kept.len() as u64 >= versions_max {
            return Added::Full;
        }
        let added = if kept.is_empty() { Added::First } else { Added::Further };
        let at = kept.partition_point(|(at_ms, _)| *at_ms <= time_ms);
        let mut after = Vec::with_capacity(before.len() + HEAD_BYTES + row.map_or(0, <[u8]>::len));
        kept[..at].iter().for_each(|(at_ms, row)| put(*at_ms, *row, &mut after));
        put(time_ms, row, &mut after);
        kept[at..].iter().for_each(|(at_ms, row)| put(*at_ms, *row, &mut after));
        after.drain(..start_of(&after, outdated(&after, watermark_ms)));
        self.set(key, after);
        added
    }

    fn versions(&self, key: u128) -> &[u8] {
        let changed = self.changed.get(&key).map(|changed| &changed.versions);
        changed.or_else(|| self.known.get(&key)).map_or(&[], Vec::as_slice)
    }

    fn set(&mut self, key: u128, versions: Vec<u8>) {
        self.bytes += versions.len() + ENTRY_BYTES;
        let before = self.changed.insert(key, Changed { versions, round: self.round });
        self.bytes -= before.as_ref().map_or(0, |before| before.versions.len() + ENTRY_BYTES);
        if before.as_ref().is_none_or(|before| before.round != self.round) {
            self.open.push(key);
        }
        if let Some(undo) = &mut self.undo {
            undo.before.push((key, before));
        }
    }

    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        self.undo = Some(Undo { mark: Mark(self.marks), before: vec![] });
        Mark(self.marks)
    }

    /// Takes back every change since the mark, which must be the latest one; the mark stays. What it knows of the
    /// store stays true.
    pub fn rollback(&mut self, mark: Mark) {
        let mut undo = self.undo.take().filter(|undo| undo.mark == mark).expect("rollback goes to the latest mark");
        while let Some((key, before)) = undo.before.pop() {
            if before.as_ref().is_none_or(|before| before.round != self.round) {
                self.open.pop();
            }
            let after = match before {
                Some(before) => {
                    self.bytes += before.versions.len() + ENTRY_BYTES;
                    self.changed.insert(key, before)
                }
                None => self.changed.remove(&key),
            };
            self.bytes -= after.map_or(0, |after| after.versions.len() + ENTRY_BYTES);
        }
        self.undo = Some(undo);
    }

    /// Ends the epoch: its changes go into a write, in the order of the keys.
    pub fn seal(&mut self, batch: &mut WriteBatch) {
        self.undo = None;
        let mut keys = std::mem::take(&mut self.open);
        keys.sort_unstable();
        for key in &keys {
            batch.put(Table::Buffer, self.key(*key), self.versions(*key));
        }
        self.sealed.push_back(keys);
        self.round += 1;
    }

    /// The store has the oldest sealed epoch.
    pub fn stored(&mut self) {
        self.undo = None;
        let keys = self.sealed.pop_front().expect("an epoch is sealed before it is stored");
        let stored = self.round - self.sealed.len() as u32 - 1;
        for key in keys {
            if self.changed.get(&key).is_some_and(|changed| changed.round == stored) {
                let changed = self.changed.remove(&key).expect("it was just there");
                self.bytes -= changed.versions.len() + ENTRY_BYTES;
            }
        }
        self.known.clear();
    }

    /// Memory of the changes that are not stored yet, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn key(&self, key: u128) -> [u8; KEY_LEN] {
        let mut bytes = [0; KEY_LEN];
        bytes[..7].copy_from_slice(&self.prefix);
        bytes[7..].copy_from_slice(&key.to_be_bytes());
        bytes
    }
}

/// How many of the versions, from the oldest on, the watermark has made needless: those before the newest at or before
/// it.
fn outdated(versions: &[u8], watermark_ms: i64) -> usize {
    list(versions).take_while(|(at_ms, _)| *at_ms <= watermark_ms).count().saturating_sub(1)
}

fn start_of(versions: &[u8], number: usize) -> usize {
    list(versions).take(number).map(|(_, row)| HEAD_BYTES + row.map_or(0, <[u8]>::len)).sum()
}

fn put(time_ms: i64, row: Option<&[u8]>, into: &mut Vec<u8>) {
    into.extend_from_slice(&time_ms.to_le_bytes());
    into.extend_from_slice(&row.map_or(DELETED, |row| row.len() as u32).to_le_bytes());
    into.extend_from_slice(row.unwrap_or_default());
}

/// The versions of a list, oldest first.
fn list(mut rest: &[u8]) -> impl Iterator<Item = (i64, Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (time_ms, behind) = rest.split_first_chunk::<8>()?;
        let (len, behind) = behind.split_first_chunk::<4>()?;
        let time_ms = i64::from_le_bytes(*time_ms);
        let len = u32::from_le_bytes(*len);
        if len == DELETED {
            rest = behind;
            return Some((time_ms, None));
        }
        let (row, behind) = behind.split_at_checked(len as usize)?;
        rest = behind;
        Some((time_ms, Some(row)))
    })
}

/// Whether all of it is versions in order.
fn is_list(value: &[u8]) -> bool {
    let all: usize = list(value).map(|(_, row)| HEAD_BYTES + row.map_or(0, <[u8]>::len)).sum();
    all == value.len() && !value.is_empty() && list(value).is_sorted_by_key(|(time_ms, _)| time_ms)
}

#[cold]
fn corrupt() -> Error {
    Error::stop(
        "corrupt",
        "the join state holds a table row that weir did not write; the state directory is damaged or belongs to a \
         newer version",
    )
}
