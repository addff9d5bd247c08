//! Whether a write reaches the disk: what RocksDB syncs, on the thread that writes.
//!
//! This program's own `fdatasync` and `fsync` come before those of the C library, also for the RocksDB that is linked
//! into it: they write down what is synced, and do it.

use super::{put, rocks};
use std::cell::RefCell;
use std::os::fd::RawFd;
use std::path::PathBuf;
use weir::state::{StateStore, Table};

thread_local! {
    static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

fn note(file: RawFd) {
    let path = std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap_or_default();
    // A thread that is ending has no list any more, and no test that looks at it.
    let _ = SYNCED.try_with(|synced| synced.borrow_mut().push(path));
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: RawFd) -> i32 {
    note(file);
    // SAFETY: the call that was asked for.
    unsafe { libc::syscall(libc::SYS_fdatasync, file) as i32 }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: RawFd) -> i32 {
    note(file);
    // SAFETY: the call that was asked for.
    unsafe { libc::syscall(libc::SYS_fsync, file) as i32 }
}

#[test]
fn every_write_has_synced_its_log_when_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    let home = directory.path().canonicalize().unwrap();
    for number in 0..5u8 {
        SYNCED.take();
        store.write(&put(Table::Ledger, b"checkpoint", &[number])).unwrap();
        let synced = SYNCED.take();
        let is_log = |path: &PathBuf| path.starts_with(&home) && path.extension().is_some_and(|end| end == "log");
        assert!(synced.iter().any(is_log), "write {number} is not on the disk when it returns: {synced:?} was synced");
    }
    SYNCED.take();
    store.get(Table::Ledger, b"checkpoint").unwrap();
    assert_eq!(SYNCED.take(), Vec::<PathBuf>::new(), "a read syncs nothing");
}
