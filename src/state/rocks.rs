//! The store on disk: one RocksDB per pipeline, one column family per table.
//!
//! Promises that a write is atomic and, when it returns, synced; that writes of several threads at one moment share
//! a sync; and that after a full disk the same write goes through as soon as there is space. Never repairs, never
//! drops what it cannot read: it says so.

mod error;
mod options;
mod reclaim;

use super::{Change, StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::types::TaskNo;
use error::{absent, explain, headless};
pub use options::Shared;
use reclaim::Reclaim;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, ReadOptions, WriteOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// What an entry of a native batch takes beside key and value: its kind, the table, two lengths.
const NATIVE_ENTRY_BYTES: usize = 12;

/// A [`StateStore`] in a directory.
pub struct RocksStore {
    path: PathBuf,
    shared: Shared,
    reclaim: Reclaim,
    access: Access,
    /// `None` while it could not be opened again after a failed write.
    db: RwLock<Option<DB>>,
    /// A write has failed: RocksDB takes no other until it is opened again.
    is_broken: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Write,
    Read,
}

/// What a metric shows of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Memtables of all tables.
    pub memtable_bytes: u64,
    /// Indexes and Bloom filters of open files.
    pub reader_bytes: u64,
    /// What compactions still have to rewrite; an estimate.
    pub compaction_pending_bytes: u64,
    /// RocksDB holds writes up until flushes and compactions have caught up.
    pub is_write_stopped: bool,
}

impl RocksStore {
    /// Opens the store in `path`, or makes a new one. Codes of the error: see `rocks/error.rs`.
    pub fn open(path: &Path, shared: &Shared) -> Result<RocksStore> {
        RocksStore::open_for(Access::Write, path, shared)
    }

    /// Opens the store for reading only, without its lock: for a look at a stopped pipeline. Sees what was there
    /// at this moment.
    pub fn open_read_only(path: &Path, shared: &Shared) -> Result<RocksStore> {
        RocksStore::open_for(Access::Read, path, shared)
    }

    fn open_for(access: Access, path: &Path, shared: &Shared) -> Result<RocksStore> {
        let reclaim = Reclaim::default();
        let db = open_db(access, path, shared, &reclaim)?;
        Ok(RocksStore {
            path: path.to_owned(),
            shared: shared.clone(),
            reclaim,
            access,
            db: RwLock::new(Some(db)),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Rewrites a table now, so that what may be forgotten is gone when this returns.
    pub fn compact(&self, table: Table) -> Result<()> {
        let open = self.open_one()?;
        let db = open.db();
        db.flush_cf(self.family(db, table)).map_err(|error| self.explain(error))?;
        db.compact_range_cf(self.family(db, table), None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// What a metric shows; zero for what RocksDB does not tell.
    pub fn usage(&self) -> Usage {
        let Ok(open) = self.open_one() else { return Usage::default() };
        let number = |table, name| self.number(open.db(), table, name);
        let sum = |name| Table::ALL.iter().map(|&table| number(table, name)).sum();
        Usage {
            memtable_bytes: sum("rocksdb.cur-size-all-mem-tables"),
            reader_bytes: sum("rocksdb.estimate-table-readers-mem"),
            compaction_pending_bytes: sum("rocksdb.estimate-pending-compaction-bytes"),
            is_write_stopped: number(Table::Seen, "rocksdb.is-write-stopped") > 0,
        }
    }

    /// Bytes of all files, logs included.
    pub fn disk_bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(&self.path) else { return 0 };
        files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    fn number(&self, db: &DB, table: Table, name: &str) -> u64 {
        db.property_int_value_cf(self.family(db, table), name).ok().flatten().unwrap_or(0)
    }

    fn family<'a>(&self, db: &'a DB, table: Table) -> &'a ColumnFamily {
        db.cf_handle(table.name()).expect("every table was opened with the database")
    }

    fn explain(&self, error: rocksdb::Error) -> Error {
        explain(&self.path, &error)
    }

    /// The open database, opened again if a write has failed before.
    fn open_one(&self) -> Result<Open<'_>> {
        if self.is_broken.load(Ordering::Acquire) {
            self.open_again()?;
        }
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        if db.is_none() {
            // Another thread's try to open it again has just failed.
            return Err(Error::stop("disk_full", format!("the state directory {} is not open", self.path.display())));
        }
        Ok(Open(db))
    }

    /// RocksDB answers every write after a failed one with that failure, for seconds after there is space again.
    /// What was synced is in the log, so nothing is lost by closing it.
    fn open_again(&self) -> Result<()> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        // The old one goes first: it holds the lock file.
        *db = None;
        *db = Some(open_db(self.access, &self.path, &self.shared, &self.reclaim)?);
        self.is_broken.store(false, Ordering::Release);
        Ok(())
    }

    fn native(&self, db: &DB, batch: &WriteBatch) -> rocksdb::WriteBatch {
        // Blocks are megabytes: growing by doubling would copy them twice.
        let mut native = rocksdb::WriteBatch::with_capacity_bytes(batch.bytes() + NATIVE_ENTRY_BYTES * batch.len());
        for change in &batch.changes {
            match change {
                Change::Put { table, key, value } => native.put_cf(self.family(db, *table), key, value),
                Change::Delete { table, key } => native.delete_cf(self.family(db, *table), key),
                Change::DeleteRange { table, from, to } if from < to => {
                    native.delete_range_cf(self.family(db, *table), from, to)
                }
                Change::DeleteRange { .. } => {}
            }
        }
        let seen = self.family(db, Table::Seen);
        for (key, value) in batch.seen.iter() {
            match value {
                Some(value) => native.put_cf(seen, key, value),
                None => native.delete_cf(seen, key),
            }
        }
        native
    }
}

impl StateStore for RocksStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let open = self.open_one()?;
        open.db().get_cf(self.family(open.db(), table), key).map_err(|error| self.explain(error))
    }

    fn multi_get(&self, table: Table, keys: &[u8], key_len: usize, found: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let open = self.open_one()?;
        let is_sorted = true;
        let values =
            open.db().batched_multi_get_cf(self.family(open.db(), table), keys.chunks_exact(key_len), is_sorted);
        for (index, value) in values.into_iter().enumerate() {
            if let Some(value) = value.map_err(|error| self.explain(error))? {
                found(index, &value);
            }
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let open = self.open_one()?;
        let mut reading = ReadOptions::default();
        reading.set_iterate_upper_bound(to);
        // What is read once would push out what lookups need.
        reading.fill_cache(false);
        let mut cursor = open.db().raw_iterator_cf_opt(self.family(open.db(), table), reading);
        cursor.seek(from);
        while let Some((key, value)) = cursor.item() {
            if !visit(key, value) {
                break;
            }
            cursor.next();
        }
        cursor.status().map_err(|error| self.explain(error))
    }

    fn write(&self, batch: &WriteBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let open = self.open_one()?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        open.db().write_opt(self.native(open.db(), batch), &synced).map_err(|error| {
            self.is_broken.store(self.access == Access::Write, Ordering::Release);
            self.explain(error)
        })
    }

    fn set_horizon(&self, task: TaskNo, step: u16, horizon_ms: i64) {
        self.reclaim.set_horizon(task, step, horizon_ms);
    }

    fn table_bytes(&self, table: Table) -> u64 {
        let Ok(open) = self.open_one() else { return 0 };
        let parts = ["rocksdb.live-sst-files-size", "rocksdb.live-blob-file-size", "rocksdb.cur-size-all-mem-tables"];
        parts.iter().map(|name| self.number(open.db(), table, name)).sum()
    }
}

/// The database, as long as nobody opens it again.
struct Open<'a>(RwLockReadGuard<'a, Option<DB>>);

impl Open<'_> {
    fn db(&self) -> &DB {
        self.0.as_ref().expect("open_one gives out only what is open")
    }
}

fn open_db(access: Access, path: &Path, shared: &Shared, reclaim: &Reclaim) -> Result<DB> {
    refuse_headless(access, path)?;
    let options = options::for_database(shared);
    let family = |table: &Table| ColumnFamilyDescriptor::new(table.name(), options::for_table(*table, shared, reclaim));
    // RocksDB insists on one of this name; it stays empty.
    let default = ColumnFamilyDescriptor::new("default", Default::default());
    let families = Table::ALL.iter().map(family).chain([default]);
    let opened = match access {
        Access::Write => DB::open_cf_descriptors(&options, path, families),
        Access::Read => DB::open_cf_descriptors_read_only(&options, path, families, false),
    };
    opened.map_err(|error| explain(path, &error))
}

/// Without its CURRENT file RocksDB would begin a new database over the old one.
fn refuse_headless(access: Access, path: &Path) -> Result<()> {
    if path.join("CURRENT").exists() {
        return Ok(());
    }
    let is_table = |name: &str| name.starts_with("MANIFEST") || name.ends_with(".sst") || name.ends_with(".blob");
    let has_tables = std::fs::read_dir(path)
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_str().is_some_and(is_table)));
    match access {
        _ if has_tables => Err(headless(path)),
        Access::Read => Err(absent(path)),
        Access::Write => Ok(()),
    }
}
