//! Where state lives: the seam to RocksDB (or memory, or Redis).
//!
//! A store is a set of ordered tables of bytes. Everything a task changes in an epoch, its checkpoint and its
//! blocks included, goes in with ONE [`WriteBatch`].

pub mod buffer;
pub mod keys;
pub mod ledger;
pub mod letters;
pub mod memory;
pub mod rocks;
pub mod seen;
pub mod versions;

use crate::error::Result;
use bytes::Bytes;

/// The tables; each is a RocksDB column family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// Keys already let through (`seen.rs`).
    Seen,
    /// Identity, checkpoints, pending records, links (`ledger.rs`).
    Ledger,
    /// Blocks stored and not yet released.
    Outbox,
    /// Records that could not be processed (`letters.rs`).
    DeadLetters,
    /// Rows that wait in joins, and tables (`buffer.rs`, `versions.rs`).
    Buffer,
}

impl Table {
    pub const ALL: [Table; 5] = [Table::Seen, Table::Ledger, Table::Outbox, Table::DeadLetters, Table::Buffer];

    /// The name of the column family and the metric label.
    pub fn name(self) -> &'static str {
        match self {
            Table::Seen => "seen",
            Table::Ledger => "ledger",
            Table::Outbox => "outbox",
            Table::DeadLetters => "dead_letters",
            Table::Buffer => "buffer",
        }
    }
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Put {
        table: Table,
        key: Vec<u8>,
        /// Shared with whoever sends it: a block is megabytes.
        value: Bytes,
    },
    Delete {
        table: Table,
        key: Vec<u8>,
    },
    /// Deletes `from .. to` (half-open).
    DeleteRange {
        table: Table,
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

/// Changes that become true together or not at all. The chunks and journals of `seen` go into one arena;
/// everything else goes through `changes`.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub changes: Vec<Change>,
    /// Entries for [`Table::Seen`]; applied after `changes`.
    pub seen: Entries,
}

/// Key/value pairs in one arena, put in the order given.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    bytes: Vec<u8>,
    /// (key length, value length) of each entry; `u32::MAX` as value length is a delete.
    lens: Vec<(u16, u32)>,
}

impl Entries {
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.lens.push((key.len() as u16, value.len() as u32));
    }

    /// Puts a value that lies in several parts.
    pub fn put_parts(&mut self, key: &[u8], parts: &[&[u8]]) {
        self.bytes.extend_from_slice(key);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.lens.push((key.len() as u16, parts.iter().map(|part| part.len() as u32).sum()));
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.lens.push((key.len() as u16, u32::MAX));
    }

    pub fn len(&self) -> usize {
        self.lens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The entries in order; a delete has no value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut at = 0;
        self.lens.iter().map(move |&(key_len, value_len)| {
            let key = &self.bytes[at..at + key_len as usize];
            at += key_len as usize;
            if value_len == u32::MAX {
                return (key, None);
            }
            let value = &self.bytes[at..at + value_len as usize];
            at += value_len as usize;
            (key, Some(value))
        })
    }
}

impl WriteBatch {
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.put_shared(table, key, Bytes::from(value.into()));
    }

    /// Puts a large value without a copy.
    pub fn put_shared(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Bytes) {
        self.changes.push(Change::Put { table, key: key.into(), value });
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.push(Change::Delete { table, key: key.into() });
    }

    pub fn delete_range(&mut self, table: Table, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.changes.push(Change::DeleteRange { table, from: from.into(), to: to.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.seen.is_empty()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.changes.len() + self.seen.len()
    }

    /// All keys and values.
    pub fn bytes(&self) -> usize {
        let bytes_of = |change: &Change| match change {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key, .. } => key.len(),
            Change::DeleteRange { from, to, .. } => from.len() + to.len(),
        };
        self.changes.iter().map(bytes_of).sum::<usize>() + self.seen.bytes.len()
    }

    /// Adds all of `other`, so that tasks that seal at one moment share one fsync.
    pub fn append(&mut self, other: WriteBatch) {
        self.changes.extend(other.changes);
        if self.seen.is_empty() {
            self.seen = other.seen;
        } else {
            self.seen.bytes.extend_from_slice(&other.seen.bytes);
            self.seen.lens.extend_from_slice(&other.seen.lens);
        }
    }
}

/// A store of ordered bytes. Shared by the workers and the coordinator of a pipeline.
pub trait StateStore: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Looks up many keys of one length (`key_len` bytes each, concatenated, sorted ascending, no two equal).
    /// Calls `found(index, value)` for each key that is there, in any order.
    fn multi_get(&self, table: Table, keys: &[u8], key_len: usize, found: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// Visits `from .. to` (half-open) in key order until `visit` answers false. `visit` must not
    /// call the store.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;

    /// Writes all of it atomically and, when this returns, durably (one synced write).
    fn write(&self, batch: &WriteBatch) -> Result<()>;

    /// Whether `write` holds state, positions and blocks together: true for all but a remote store, which
    /// needs another protocol and says so here.
    fn is_atomic(&self) -> bool {
        true
    }

    /// Tells the store which entries of `seen` it may forget while it reclaims space: those of this task and
    /// step whose every time is below `horizon_ms` (which the *stored* watermark has passed). Reads never
    /// depend on it.
    fn set_horizon(&self, task: crate::types::TaskNo, step: u16, horizon_ms: i64);

    /// Approximate bytes of a table.
    fn table_bytes(&self, table: Table) -> u64;
}

/// The version of RocksDB that is linked.
pub fn engine_version() -> &'static str {
    ENGINE_VERSION
}

/// RocksDB tells its version only to C++; a test compares with the package that brings it.
const ENGINE_VERSION: &str = "11.8.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_version_is_that_of_the_package() {
        let lock = include_str!("../../Cargo.lock");
        let package = lock.split("[[package]]").find(|package| package.contains("name = \"librocksdb-sys\""));
        let package = package.expect("RocksDB is a dependency");
        assert!(package.contains(&format!("+{ENGINE_VERSION}\"")), "{package}");
    }
}
