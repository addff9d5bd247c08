//! A table: for each key the versions of its row that may still be asked for.
//!
//! Owns the keys of one table side. Kept of a key are the newest version at or before the watermark and all newer
//! ones; a read applies that rule itself, so that it does not matter when the rest is thrown away. A deletion is a
//! version like any other. Promises that reads see the newest change, that changes can be taken back, that a change
//! leaves memory only when the store has it, and that the versions of a key may become many: the newest few lie in one
//! value, and that is all while time goes on; where it stands still (the source is silent, or the table is read before
//! it) the older ones lie each for itself, so that the next one costs no more than the first. Never reads a clock, never
//! writes: what changed leaves with the epoch.

mod layout;

use super::{StateStore, Table, WriteBatch};
use crate::error::Result;
use crate::types::TaskNo;
use layout::{
    KEY_LEN, Place, Prefix, Version, bytes_of, corrupt, is_value, list, older_value, place_of, read_older, split,
    value_of,
};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// So many versions lie in the value of a key, at most, for it is written again with each; a large one lies alone.
const NEWEST_MAX: usize = 16;
const NEWEST_BYTES_MAX: usize = 4 << 10;
/// What a changed key, or an older version, takes in memory beside its row, about.
const ENTRY_BYTES: usize = 96;

/// The table side of one join of one task.
pub struct Versions {
    prefix: Prefix,
    /// Changed and not yet stored: values of keys, and the epoch that changed them last.
    changed: HashMap<u128, Changed>,
    /// Older versions that are not stored yet, by their keys in the store.
    older: BTreeMap<Vec<u8>, Vec<u8>>,
    open: Open,
    /// What sealed epochs have changed, oldest first.
    sealed: VecDeque<Open>,
    round: u32,
    /// What the store has of the keys that were looked ahead for; nothing is an empty value.
    known: HashMap<u128, Vec<u8>>,
    bytes: usize,
    undo: Option<Undo>,
    marks: u64,
}

/// What an epoch has changed.
#[derive(Default)]
struct Open {
    keys: Vec<u128>,
    /// Older versions, with their keys in the store.
    older: Vec<(u128, Vec<u8>)>,
}

/// What keys were before each change since the mark.
struct Undo {
    mark: Mark,
    before: Vec<(u128, Option<Changed>)>,
    /// How many older versions the epoch had.
    older: usize,
}

#[derive(Clone)]
struct Changed {
    value: Vec<u8>,
    round: u32,
    /// In this round the older versions before this one have become needless.
    cut: Option<Place>,
}

/// A moment to which a table can go back, until the next mark, seal or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

/// What a key has at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Valid {
    /// No version of this key is known, or none that is old enough.
    Nothing,
    Deleted,
    Row,
}

/// What became of a new version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// The key had none.
    First,
    Further,
    /// A newer one is at or before the watermark: nobody will ask for this one.
    Outdated,
}

impl Versions {
    pub fn new(task: TaskNo, step: u16) -> Versions {
        Versions {
            prefix: Prefix::new(task, step),
            changed: HashMap::new(),
            older: BTreeMap::new(),
            open: Open::default(),
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
        let bytes: Vec<u8> = wanted.iter().flat_map(|key| self.prefix.key(*key)).collect();
        let mut is_whole = true;
        store.multi_get(Table::Buffer, &bytes, KEY_LEN, &mut |index, value| {
            is_whole &= is_value(value);
            self.known.insert(wanted[index], value.to_vec());
        })?;
        if is_whole { Ok(()) } else { Err(corrupt()) }
    }

    /// The version valid at `time_ms`, its row in `row`: the newest at or before it, of equal times the later one.
    /// `or_oldest`: else the oldest that is kept at this watermark; without a watermark, versions that it has made
    /// needless are looked at, too, for the row that asks was there before it rose.
    pub fn valid_at(
        &self,
        store: &dyn StateStore,
        key: u128,
        time_ms: i64,
        kept_at_ms: Option<i64>,
        or_oldest: bool,
        row: &mut Vec<u8>,
    ) -> Result<Valid> {
        // Of all at or before the watermark the newest alone is kept.
        let at_ms = time_ms.max(kept_at_ms.unwrap_or(i64::MIN));
        let found = match self.newest_at(store, key, at_ms, row)? {
            Some((of_ms, valid)) => (of_ms <= time_ms || or_oldest).then_some(valid),
            None if or_oldest => self.oldest(store, key, row)?,
            None => None,
        };
        Ok(found.unwrap_or(Valid::Nothing))
    }

    /// Adds a version (`None`: a deletion). The key must have been looked ahead for.
    pub fn add(
        &mut self,
        store: &dyn StateStore,
        key: u128,
        time_ms: i64,
        row: Option<&[u8]>,
        watermark_ms: i64,
    ) -> Result<Added> {
        if time_ms < watermark_ms {
            let newest = self.newest_at(store, key, watermark_ms, &mut vec![])?;
            if newest.is_some_and(|(newest_ms, _)| newest_ms > time_ms) {
                return Ok(Added::Outdated);
            }
        }
        let before = self.value(key);
        let added = if before.is_empty() { Added::First } else { Added::Further };
        let (mut older, newest) = split(before);
        let mut versions: Vec<Version<'_>> = list(newest).collect();
        let mut moved = Vec::new();
        match versions.first() {
            Some((first_ms, _)) if older.has_some() && time_ms < *first_ms => {
                moved.push((older.add(time_ms), older_value(row)));
            }
            _ => {
                let at = versions.partition_point(|(at_ms, _)| *at_ms <= time_ms);
                versions.insert(at, (time_ms, row));
            }
        }
        versions.drain(..outdated(&versions, watermark_ms));
        let is_cut = versions[0].0 <= watermark_ms && older.has_some();
        let cut = is_cut.then(|| older.cut(versions[0].0));
        let mut bytes: usize = versions.iter().map(|version| bytes_of(*version)).sum();
        while versions.len() > 1 && (versions.len() > NEWEST_MAX || bytes > NEWEST_BYTES_MAX) {
            let (time_ms, row) = versions.remove(0);
            bytes -= bytes_of((time_ms, row));
            moved.push((older.add(time_ms), older_value(row)));
        }
        let value = value_of(older, &versions);
        moved.into_iter().for_each(|(place, value)| self.move_aside(key, place, value));
        self.set(key, value, cut);
        Ok(added)
    }

    fn value(&self, key: u128) -> &[u8] {
        let changed = self.changed.get(&key).map(|changed| &changed.value);
        changed.or_else(|| self.known.get(&key)).map_or(&[], Vec::as_slice)
    }

    /// The time of the newest version at or before this one, and what it is.
    fn newest_at(
        &self,
        store: &dyn StateStore,
        key: u128,
        at_ms: i64,
        row: &mut Vec<u8>,
    ) -> Result<Option<(i64, Valid)>> {
        let (older, newest) = split(self.value(key));
        if let Some((time_ms, found)) = list(newest).take_while(|(time_ms, _)| *time_ms <= at_ms).last() {
            return Ok(Some((time_ms, read(found, row))));
        }
        if !older.has_some() {
            return Ok(None);
        }
        let from = self.prefix.older_key(key, Place { time_ms: at_ms, number: u32::MAX });
        let end = self.prefix.older_end(key);
        let mut found = self.older.range(from.clone()..end.clone()).next().map(|(at, one)| (at.clone(), one.clone()));
        store.scan(Table::Buffer, &from, &end, &mut |at, value| {
            if found.as_ref().is_none_or(|(known, _)| at < known.as_slice()) {
                found = Some((at.to_vec(), value.to_vec()));
            }
            false
        })?;
        let Some((place, value)) = found.map(|(at, value)| (place_of(&at), value)) else { return Ok(None) };
        if place < older.first {
            return Ok(None);
        }
        Ok(Some((place.time_ms, read(read_older(&value)?, row))))
    }

    /// The first of all versions. (To be asked for only where none is at or before the watermark: nothing was cut away.)
    fn oldest(&self, store: &dyn StateStore, key: u128, row: &mut Vec<u8>) -> Result<Option<Valid>> {
        let (older, newest) = split(self.value(key));
        if !older.has_some() {
            return Ok(list(newest).next().map(|(_, found)| read(found, row)));
        }
        let at = self.prefix.older_key(key, older.first);
        if let Some(one) = self.older.get(&at) {
            return Ok(Some(read(read_older(one)?, row)));
        }
        let value = store.get(Table::Buffer, &at)?.ok_or_else(corrupt)?;
        Ok(Some(read(read_older(&value)?, row)))
    }

    fn move_aside(&mut self, key: u128, place: Place, value: Vec<u8>) {
        let at = self.prefix.older_key(key, place);
        self.bytes += value.len() + ENTRY_BYTES;
        self.open.older.push((key, at.clone()));
        self.older.insert(at, value);
    }

    fn set(&mut self, key: u128, value: Vec<u8>, cut: Option<Place>) {
        self.bytes += value.len() + ENTRY_BYTES;
        let of_round = self.changed.get(&key).filter(|changed| changed.round == self.round);
        let cut = cut.or(of_round.and_then(|changed| changed.cut));
        if of_round.is_none() {
            self.open.keys.push(key);
        }
        let before = self.changed.insert(key, Changed { value, round: self.round, cut });
        self.bytes -= before.as_ref().map_or(0, |before| before.value.len() + ENTRY_BYTES);
        if let Some(undo) = &mut self.undo {
            undo.before.push((key, before));
        }
    }

    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        self.undo = Some(Undo { mark: Mark(self.marks), before: vec![], older: self.open.older.len() });
        Mark(self.marks)
    }

    /// Takes back every change since the mark, which must be the latest one; the mark stays. What it knows of the
    /// store stays true.
    pub fn rollback(&mut self, mark: Mark) {
        let mut undo = self.undo.take().filter(|undo| undo.mark == mark).expect("rollback goes to the latest mark");
        while let Some((key, before)) = undo.before.pop() {
            if before.as_ref().is_none_or(|before| before.round != self.round) {
                self.open.keys.pop();
            }
            let after = match before {
                Some(before) => {
                    self.bytes += before.value.len() + ENTRY_BYTES;
                    self.changed.insert(key, before)
                }
                None => self.changed.remove(&key),
            };
            self.bytes -= after.map_or(0, |after| after.value.len() + ENTRY_BYTES);
        }
        for (_, at) in self.open.older.drain(undo.older..) {
            self.bytes -= self.older.remove(&at).map_or(0, |one| one.len() + ENTRY_BYTES);
        }
        self.undo = Some(undo);
    }

    /// Ends the epoch: its changes go into a write, in the order of the keys.
    pub fn seal(&mut self, batch: &mut WriteBatch) {
        self.undo = None;
        let mut open = std::mem::take(&mut self.open);
        open.keys.sort_unstable();
        for &key in &open.keys {
            if let Some(cut) = self.changed[&key].cut {
                // Everything behind this one, which is what is older.
                let mut from = self.prefix.older_key(key, cut);
                from.push(0);
                batch.delete_range(Table::Buffer, from, self.prefix.older_end(key));
            }
            batch.put(Table::Buffer, self.prefix.key(key), self.value(key));
        }
        for (key, at) in &open.older {
            if place_of(at) >= split(self.value(*key)).0.first {
                batch.put(Table::Buffer, at.as_slice(), self.older[at].as_slice());
            }
        }
        self.sealed.push_back(open);
        self.round += 1;
    }

    /// The store has the oldest sealed epoch.
    pub fn stored(&mut self) {
        self.undo = None;
        let Open { keys, older } = self.sealed.pop_front().expect("an epoch is sealed before it is stored");
        let stored = self.round - self.sealed.len() as u32 - 1;
        for key in keys {
            if self.changed.get(&key).is_some_and(|changed| changed.round == stored) {
                let changed = self.changed.remove(&key).expect("it was just there");
                self.bytes -= changed.value.len() + ENTRY_BYTES;
            }
        }
        for (_, at) in older {
            self.bytes -= self.older.remove(&at).map_or(0, |one| one.len() + ENTRY_BYTES);
        }
        self.known.clear();
    }

    /// Memory of the changes that are not stored yet, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How many of the versions, from the oldest on, the watermark has made needless: those before the newest at or before
/// it.
fn outdated(versions: &[Version<'_>], watermark_ms: i64) -> usize {
    versions.iter().take_while(|(at_ms, _)| *at_ms <= watermark_ms).count().saturating_sub(1)
}

/// What a version is; its row is copied.
fn read(found: Option<&[u8]>, row: &mut Vec<u8>) -> Valid {
    row.clear();
    match found {
        None => Valid::Deleted,
        Some(found) => {
            row.extend_from_slice(found);
            Valid::Row
        }
    }
}

#[cfg(test)]
mod tests;
