//! The store of the simulation: four ordered maps behind one lock.
//!
//! Promises what `rocks.rs` promises to a running process (order, atomic writes) and nothing about a crash: the
//! simulation takes a [`Snapshot`] where a write would have reached the disk, and gives it back after the crash.

use super::{Change, StateStore, Table, WriteBatch};
use crate::error::Result;
use crate::types::TaskNo;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// All that a store held at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot([Map; Table::ALL.len()]);

/// A [`StateStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Snapshot>,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    pub fn snapshot(&self) -> Snapshot {
        self.tables().clone()
    }

    /// Makes the store hold what `snapshot` holds, and nothing else.
    pub fn restore(&self, snapshot: Snapshot) {
        *self.tables() = snapshot;
    }

    fn tables(&self) -> MutexGuard<'_, Snapshot> {
        // A panicking test elsewhere leaves whole tables: changes are applied to a locked store without a way out.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Snapshot> for MemoryStore {
    fn from(snapshot: Snapshot) -> MemoryStore {
        MemoryStore { tables: Mutex::new(snapshot) }
    }
}

impl PartialEq for MemoryStore {
    fn eq(&self, other: &MemoryStore) -> bool {
        // One lock after the other, so that a store may be compared with itself.
        let mine = self.snapshot();
        mine == *other.tables()
    }
}

impl Snapshot {
    fn table(&self, table: Table) -> &Map {
        &self.0[table as usize]
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { table, key, value } => {
                self.0[*table as usize].insert(key.clone(), value.to_vec());
            }
            Change::Delete { table, key } => {
                self.0[*table as usize].remove(key);
            }
            Change::DeleteRange { table, from, to } => {
                self.0[*table as usize].retain(|key, _| key < from || key >= to);
            }
        }
    }
}

impl StateStore for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tables().table(table).get(key).cloned())
    }

    fn multi_get(&self, table: Table, keys: &[u8], key_len: usize, found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let tables = self.tables();
        let map = tables.table(table);
        for (index, key) in keys.chunks_exact(key_len).enumerate() {
            if let Some(value) = map.get(key) {
                found(index, value);
            }
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let tables = self.tables();
        let within = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in tables.table(table).range::<[u8], _>(within) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        let mut tables = self.tables();
        for change in &batch.changes {
            tables.apply(change);
        }
        let seen = &mut tables.0[Table::Seen as usize];
        for (key, value) in batch.seen.iter() {
            match value {
                Some(value) => seen.insert(key.to_vec(), value.to_vec()),
                None => seen.remove(key),
            };
        }
        Ok(())
    }

    /// Keeps everything: there is no space to reclaim.
    fn set_horizon(&self, _task: TaskNo, _step: u16, _horizon_ms: i64) {}

    fn table_bytes(&self, table: Table) -> u64 {
        self.tables().table(table).iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_store_equals_the_one_the_snapshot_was_taken_of() {
        let store = MemoryStore::new();
        let mut first = WriteBatch::default();
        first.put(Table::Ledger, *b"a", *b"1");
        first.seen.put(b"k", b"v");
        store.write(&first).unwrap();
        let snapshot = store.snapshot();

        let mut second = WriteBatch::default();
        second.delete(Table::Ledger, *b"a");
        second.seen.delete(b"k");
        store.write(&second).unwrap();
        assert_ne!(store.snapshot(), snapshot);

        store.restore(snapshot.clone());
        assert!(store == MemoryStore::from(snapshot));
    }
}
