//! What a start reads: the manifest, the journals that no run holds, and every live chunk once, for the filters.
//!
//! Promises to refuse what it does not understand: a state of another layout, a damaged one, one with a gap.

use super::chunk::Chunk;
use super::lookup::unreadable_chunk;
use super::manifest::{self, Manifest, Merge};
use super::overlay::Overlay;
use super::rule::Rule;
use super::run::Run;
use super::runs::Runs;
use super::shape::Shape;
use crate::error::{Error, Result};
use crate::state::keys::{
    SEEN_JOURNAL_KEY_LEN, SEEN_MANIFEST_KEY_LEN, SEEN_PREFIX_LEN, prefix_range, seen_chunk_key, seen_chunk_parts,
    seen_journal_key, seen_journal_number, seen_manifest_key,
};
use crate::state::{StateStore, Table};
use std::ops::Range;

/// Length of the keys of an earlier version: one for each key hash.
const LONE_KEY_LEN: usize = SEEN_PREFIX_LEN + 16;

/// A table as the store has it.
pub(super) struct Loaded<R: Rule> {
    pub overlay: Overlay<R>,
    pub runs: Runs,
    /// The number of the next journal.
    pub next_journal: u64,
}

pub(super) fn load<R: Rule>(store: &dyn StateStore, prefix: [u8; SEEN_PREFIX_LEN], shape: &Shape) -> Result<Loaded<R>> {
    check_layout(store, prefix)?;
    let manifest = match store.get(Table::Seen, &seen_manifest_key(prefix))? {
        Some(bytes) => Manifest::decode(&bytes)?,
        None => Manifest::default(),
    };
    let mut overlay = Overlay::new();
    let next_journal = replay(store, prefix, manifest.first_journal, &mut overlay)?;
    let mut runs = Runs::new(manifest, shape.filter_bytes_max());
    fill_filters(store, prefix, &mut runs)?;
    Ok(Loaded { overlay, runs, next_journal })
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

/// Brings the journals back in the order they were written; gives the number of the next.
fn replay<R: Rule>(
    store: &dyn StateStore,
    prefix: [u8; SEEN_PREFIX_LEN],
    first: u64,
    overlay: &mut Overlay<R>,
) -> Result<u64> {
    let (from, to) = (seen_journal_key(prefix, 0), seen_chunk_key(prefix, 0, 0));
    let (mut next, mut damaged) = (first, None);
    store.scan(Table::Seen, &from, &to, &mut |key, value| {
        let is_next = seen_journal_number(key) == Some(next);
        if !is_next || overlay.replay(value).is_none() {
            damaged = Some(next);
            return false;
        }
        next += 1;
        true
    })?;
    damaged.map_or(Ok(next), |number| Err(unreadable_journal(number)))
}

fn fill_filters(store: &dyn StateStore, prefix: [u8; SEEN_PREFIX_LEN], runs: &mut Runs) -> Result<()> {
    let manifest = runs.stored().clone();
    for run in &manifest.runs {
        let done = manifest.merge_from(run.number).map_or(0, |merge| merge.target.start_of(merge.cursor));
        runs.begin_filter(&manifest, run.number, run.keys, run.level);
        fill_filter(store, prefix, runs, run, run.chunk_of(done as u64)..run.chunks)?;
        runs.filter_mut(run).give_back(done);
    }
    for Merge { sources, target, cursor } in &manifest.merges {
        let keys = manifest.runs.iter().filter(|run| sources.contains(&run.number)).map(|run| run.keys).sum();
        runs.begin_filter(&manifest, target.number, keys, target.level);
        fill_filter(store, prefix, runs, target, 0..*cursor)?;
    }
    Ok(())
}

fn fill_filter(
    store: &dyn StateStore,
    prefix: [u8; SEEN_PREFIX_LEN],
    runs: &mut Runs,
    run: &Run,
    chunks: Range<u32>,
) -> Result<()> {
    let filter = runs.filter_mut(run);
    if !filter.is_any() {
        return Ok(());
    }
    let key_of = |chunk| seen_chunk_key(prefix, run.number, chunk);
    let mut damaged = None;
    store.scan(Table::Seen, &key_of(chunks.start), &key_of(chunks.end), &mut |key, value| {
        let Some(chunk) = Chunk::read(value) else {
            damaged = Some((seen_chunk_parts(key).map_or(0, |(_, _, chunk)| chunk), value.len()));
            return false;
        };
        chunk.keys().for_each(|key| filter.insert(key));
        true
    })?;
    damaged.map_or(Ok(()), |(chunk, len)| Err(unreadable_chunk(run.number, chunk, len)))
}

fn unreadable_journal(number: u64) -> Error {
    let message = format!(
        "journal {number} of the dedup state is missing or cannot be read; the state directory is damaged: \
         set it aside, Kafka still has the records"
    );
    Error::stop("corrupt", message)
}
