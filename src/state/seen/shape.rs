//! How a table is cut: when recent keys become a run, how many share a chunk, when runs are merged.
//!
//! Owns these numbers and their reasons. None of them changes a verdict, and a table that was written under others
//! is read all the same.

/// The sizes of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// So many recent keys become a run.
    pub run_keys: usize,
    /// Keys of a chunk, about.
    pub chunk_keys: u64,
    /// So many runs of a level are merged into one of the next.
    pub fanout: usize,
    /// A seal takes a merge on by this many keys at least, and a few for each key that changed.
    pub stretch_keys: u64,
    /// Memory of filters and recent keys.
    pub bytes_max: usize,
}

/// A larger map of recent keys falls out of the processor's cache.
const RUN_KEYS_MAX: usize = 128 << 10;
const RUN_KEYS_MIN: usize = 1 << 10;
/// A recent key takes a slot of 33 bytes in a map that is half full, and again while its run is on its way.
const RECENT_KEY_BYTES: usize = 160;
/// About 4 KiB.
const CHUNK_KEYS: u64 = 170;
/// With fewer, every key is rewritten more often; with more, every lookup passes more filters.
const FANOUT: usize = 8;
const STRETCH_KEYS: u64 = 4096;
/// A merge takes in this many keys for each that changed. With 1 it would be done just when the next of its level is
/// due, and the runs that wait for it cost lookups; with 4 an epoch that merges took twice as long as one that does
/// not.
pub(super) const MERGED_PER_CHANGED: u64 = 2;

impl Shape {
    /// The usual sizes, in about so much memory.
    pub fn within(bytes_max: usize) -> Shape {
        Shape {
            run_keys: (bytes_max / 4 / RECENT_KEY_BYTES).clamp(RUN_KEYS_MIN, RUN_KEYS_MAX),
            chunk_keys: CHUNK_KEYS,
            fanout: FANOUT,
            stretch_keys: STRETCH_KEYS,
            bytes_max,
        }
    }

    /// What the recent keys leave to the filters.
    pub(super) fn filter_bytes_max(&self) -> usize {
        self.bytes_max.saturating_sub(self.run_keys * RECENT_KEY_BYTES)
    }

    /// Memory behind the recent keys at which they become a run before they are many.
    pub(super) fn heap_bytes_max(&self) -> usize {
        self.run_keys * RECENT_KEY_BYTES
    }
}
