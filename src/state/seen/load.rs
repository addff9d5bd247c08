//! What a start reads: the manifest and the journals that no run holds. (The chunks, for the filters, come in
//! stretches: `runs.rs`.)
//!
//! Promises to refuse what it does not understand: a state of another layout, a damaged one, one with a gap.

use super::manifest::{self, Manifest};
use super::overlay::Overlay;
use super::rule::Rule;
use super::runs::Runs;
use super::shape::Shape;
use crate::error::{Error, Result};
use crate::state::keys::{
    SEEN_JOURNAL_KEY_LEN, SEEN_MANIFEST_KEY_LEN, SEEN_PREFIX_LEN, prefix_range, seen_chunk_key, seen_journal_key,
    seen_journal_number, seen_manifest_key,
};
use crate::state::{StateStore, Table};

/// Length of the keys of an earlier version: one for each key hash.
const LONE_KEY_LEN: usize = SEEN_PREFIX_LEN + 16;

/// A table as the store has it.
pub(super) struct Loaded<R: Rule> {
    pub overlay: Overlay<R>,
    pub runs: Runs,
    /// The number of the next journal.
    pub next_journal: u64,
    /// Length of the journals.
    pub journal_bytes: usize,
}

pub(super) fn load<R: Rule>(store: &dyn StateStore, prefix: [u8; SEEN_PREFIX_LEN], shape: &Shape) -> Result<Loaded<R>> {
    check_layout(store, prefix)?;
    let manifest = match store.get(Table::Seen, &seen_manifest_key(prefix))? {
        Some(bytes) => Manifest::decode(&bytes)?,
        None => Manifest::default(),
    };
    let mut overlay = Overlay::new();
    let (next_journal, journal_bytes) = replay(store, prefix, manifest.first_journal, &mut overlay)?;
    let mut runs = Runs::new(manifest, shape.filter_bytes_max());
    runs.begin_filters();
    Ok(Loaded { overlay, runs, next_journal, journal_bytes })
}

/// A table begins with its manifest or, before there is one, with a journal. Earlier versions kept every key alone.
fn check_layout(store: &dyn StateStore, prefix: [u8; SEEN_PREFIX_LEN]) -> Result<()> {
    let (from, to) = prefix_range(&prefix);
    let mut first_len = None;
    store.scan(Table::Seen, &from, &to, &mut |key, _| {
        first_len = Some(key.len());
        false
    })?;
    match first_len {
        None | Some(SEEN_MANIFEST_KEY_LEN | SEEN_JOURNAL_KEY_LEN) => Ok(()),
        Some(LONE_KEY_LEN) => Err(Error::stop(
            "older",
            "the dedup state was written by an earlier weir, which kept it in another layout; \
             run that version, or set the state directory aside: Kafka still has the records",
        )),
        Some(_) => Err(manifest::unreadable()),
    }
}

/// Brings the journals back in the order they were written; gives the number of the next and their length.
fn replay<R: Rule>(
    store: &dyn StateStore,
    prefix: [u8; SEEN_PREFIX_LEN],
    first: u64,
    overlay: &mut Overlay<R>,
) -> Result<(u64, usize)> {
    let (from, to) = (seen_journal_key(prefix, 0), seen_chunk_key(prefix, 0, 0));
    let (mut next, mut bytes, mut damaged) = (first, 0, None);
    store.scan(Table::Seen, &from, &to, &mut |key, value| {
        let is_next = seen_journal_number(key) == Some(next);
        if !is_next || overlay.replay(value).is_none() {
            damaged = Some(next);
            return false;
        }
        next += 1;
        bytes += value.len();
        true
    })?;
    damaged.map_or(Ok((next, bytes)), |number| Err(unreadable_journal(number)))
}

fn unreadable_journal(number: u64) -> Error {
    let message = format!(
        "journal {number} of the dedup state is missing or cannot be read; the state directory is damaged: \
         set it aside, Kafka still has the records"
    );
    Error::stop("corrupt", message)
}
