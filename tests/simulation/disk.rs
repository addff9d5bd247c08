//! A directory: the store of one instance. What is synced survives a crash; it is replaced when the disk is lost.
//!
//! Two levels: what a process that runs reads, and what is there after it died. A write that returned is in both,
//! as `state/rocks.rs` promises; under [`Bug::WriteNotSynced`] only every third is, with those before it.

use crate::bug::Bug;
use crate::seams::Seams;
use std::sync::{Arc, Mutex};
use weir::error::Result;
use weir::state::keys::{letter_key, letter_parts};
use weir::state::ledger::{Checkpoint, decode, encode};
use weir::state::letters;
use weir::state::memory::{MemoryStore, Snapshot};
use weir::state::{Change, StateStore, Table, WriteBatch};
use weir::types::TaskNo;

pub struct Disk {
    store: Arc<MemoryStore>,
    /// What survives a crash, where that may be less, and how many writes there were.
    synced: Option<Mutex<(Snapshot, u64)>>,
    seams: Seams,
    bug: Option<Bug>,
}

impl Disk {
    pub fn new(seams: Seams, bug: Option<Bug>) -> Disk {
        let synced = (bug == Some(Bug::WriteNotSynced)).then(Mutex::default);
        Disk { store: Arc::new(MemoryStore::new()), synced, seams, bug }
    }

    /// Its process died: what was not synced is gone.
    pub fn crash(&self) {
        if let Some(synced) = &self.synced {
            self.store.restore(synced.lock().unwrap().0.clone());
        }
    }

    fn sync_one_in_three(&self) {
        let Some(synced) = &self.synced else { return };
        let (snapshot, writes) = &mut *synced.lock().unwrap();
        if writes.is_multiple_of(3) {
            *snapshot = self.store.snapshot();
        }
        *writes += 1;
    }

    /// A look at what is stored, beside the process that uses it.
    pub fn store(&self) -> Arc<MemoryStore> {
        self.store.clone()
    }

    /// A write that is no call of the process: what a seeded bug does behind its back.
    pub fn tamper(&self, batch: &WriteBatch) {
        self.store.write(batch).unwrap();
    }

    fn delete_replayed(&self, partition: u32) {
        let entry = letters::replaying(&*self.store, partition).unwrap().unwrap();
        let mut batch = WriteBatch::default();
        entry.seqs.iter().for_each(|&seq| batch.delete(Table::DeadLetters, letter_key(partition, seq)));
        self.tamper(&batch);
    }

    /// The batch as a broken engine would write it.
    fn broken(&self, batch: &WriteBatch) -> WriteBatch {
        let mut batch = batch.clone();
        match self.bug {
            Some(Bug::BlockNotStored) => {
                batch.changes.retain(|change| !matches!(change, Change::Put { table: Table::Outbox, .. }));
            }
            Some(Bug::ReplayNotNoted) => batch.changes.retain(|change| names_replay(change).is_none()),
            Some(Bug::HalfRestoredIsWhole) => batch.changes.iter_mut().for_each(forget_restoring),
            _ => {}
        }
        batch
    }
}

/// The partition whose replay a change names.
fn names_replay(change: &Change) -> Option<u32> {
    let Change::Put { table: Table::DeadLetters, key, .. } = change else { return None };
    let (partition, seq) = letter_parts(key)?;
    (seq == u64::MAX - 1).then_some(partition)
}

fn forget_restoring(change: &mut Change) {
    let Change::Put { table: Table::Ledger, key, value } = change else { return };
    if key.first() == Some(&b't') && key.get(5) == Some(&b'c') {
        let checkpoint: Checkpoint = decode(value).unwrap();
        *value = encode(&Checkpoint { restoring: false, ..checkpoint }).into();
    }
}

impl StateStore for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(table, key)
    }

    fn multi_get(&self, table: Table, keys: &[u8], key_len: usize, found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.store.multi_get(table, keys, key_len, found)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.store.scan(table, from, to, visit)
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        let batch = self.broken(batch);
        if self.bug == Some(Bug::PositionsApart) && !batch.seen.is_empty() {
            let state = WriteBatch { changes: vec![], seen: batch.seen };
            let rest = WriteBatch { changes: batch.changes, ..WriteBatch::default() };
            self.seams.call("write state", || self.store.write(&state))?;
            return self.seams.call("write positions", || self.store.write(&rest));
        }
        self.seams.call("write", || {
            self.store.write(&batch)?;
            self.sync_one_in_three();
            Ok(())
        })?;
        if self.bug == Some(Bug::LettersGoAtTheSeal) {
            batch.changes.iter().filter_map(names_replay).for_each(|partition| self.delete_replayed(partition));
        }
        Ok(())
    }

    fn set_horizon(&self, task: TaskNo, step: u16, horizon_ms: i64) {
        self.store.set_horizon(task, step, horizon_ms);
    }

    fn table_bytes(&self, table: Table) -> u64 {
        self.store.table_bytes(table)
    }
}
