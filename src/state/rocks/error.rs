//! What RocksDB says, told so that the reader knows what to do.
//!
//! ```text
//! locked      another process has the directory
//! held        this process still has it, from a run that is ending: it is waited for
//! disk_full   nothing is lost: the same write goes through when there is space
//! unreadable  the file system refuses (permissions, read-only, a file in the way)
//! corrupt     files damaged or gone: set the directory aside, never repair
//! absent      nothing was ever stored here (for a reader)
//! newer       written by a weir that knows more tables
//! rocksdb     anything else
//! ```

use crate::error::Error;
use rocksdb::ErrorKind;
use std::path::Path;

/// What an earlier run of the pipeline still holds, an answer that is being read out of it, perhaps.
const HELD: [&str; 1] = ["lock hold by current process"];
const LOCKED: [&str; 2] = ["While lock file", "No locks available"];
/// The last one is a limit on the size of files (`ulimit -f`).
const DISK_FULL: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "Max allowed space was reached", "File too large"];
const UNREADABLE: [&str; 5] =
    ["Permission denied", "Operation not permitted", "Read-only file system", "Not a directory", "File exists"];
const NEWER: [&str; 1] = ["Column families not opened"];
const GONE: [&str; 1] = ["No such file or directory"];

/// The error of the store in `path`.
pub(super) fn explain(path: &Path, error: &rocksdb::Error) -> Error {
    let says = |texts: &[&str]| texts.iter().any(|text| error.as_ref().contains(text));
    let directory = path.display();
    // Full and forbidden come before the rest: any file can meet them, the lock file too.
    let (code, sentence) = if says(&DISK_FULL) {
        ("disk_full", format!("the disk of the state directory {directory} is full; nothing is lost, make space"))
    } else if says(&UNREADABLE) {
        ("unreadable", format!("the state directory {directory} cannot be used; mend its owner or permissions"))
    } else if says(&HELD) {
        let message = format!("the state directory {directory} is still held by the run before in this process");
        return Error::retry("held", format!("{message} ({error})"));
    } else if says(&LOCKED) {
        ("locked", format!("the state directory {directory} is in use by another process; stop it or use another"))
    } else if says(&NEWER) {
        ("newer", format!("the state directory {directory} was written by a newer weir; run that version"))
    } else if error.kind() == ErrorKind::Corruption || says(&GONE) {
        ("corrupt", format!("the state directory {directory} is damaged; set it aside, Kafka still has the records"))
    } else {
        ("rocksdb", format!("the state directory {directory} failed"))
    };
    Error::stop(code, format!("{sentence} ({error})"))
}

/// The error of a directory that holds tables but not the file that names them.
pub(super) fn headless(path: &Path) -> Error {
    let message = format!(
        "the state directory {} is damaged: it has tables but no CURRENT file; \
         set it aside, Kafka still has the records",
        path.display()
    );
    Error::stop("corrupt", message)
}

/// The error of a reader where no store was ever made.
pub(super) fn absent(path: &Path) -> Error {
    let message = format!("there is no state in {}: the pipeline has not run with this directory yet", path.display());
    Error::stop("absent", message)
}
