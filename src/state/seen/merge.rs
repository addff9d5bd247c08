//! Merging runs, a stretch at a time.
//!
//! Promises that of a key the newest state goes on, and that what the horizon has passed is left behind. Reads the
//! sources, which stay as they are; writes chunks of the target, which nobody reads before they are stored.

use super::chunk::{Chunk, ChunkWriter};
use super::filter::Filter;
use super::lookup::{unreadable_chunk, unreadable_value};
use super::order::Sorter;
use super::rule::newest_ms;
use super::run::Run;
use crate::error::Result;
use crate::state::keys::{SEEN_PREFIX_LEN, seen_chunk_key, seen_chunk_parts};
use crate::state::{Entries, StateStore, Table};
use std::ops::Range;

/// So many keys are in memory at once.
const KEYS_AT_ONCE: u64 = 32 << 10;

/// What is merged, and how.
pub(super) struct MergeWork<'a> {
    pub store: &'a dyn StateStore,
    pub prefix: [u8; SEEN_PREFIX_LEN],
    /// The newest first.
    pub sources: Vec<Run>,
    pub target: Run,
    /// What is passed may go where this is passed, too: older states of its keys would come to light.
    pub floor_ms: i64,
    /// Times below it are passed.
    pub horizon_ms: i64,
}

/// Memory for a stretch; kept for the next.
pub(super) struct Stretch {
    items: Vec<Item>,
    sorter: Sorter<Item>,
    values: Vec<u8>,
    writer: ChunkWriter,
}

/// A key in one of the sources; its value lies in `values`.
#[derive(Clone, Copy)]
struct Item {
    key: u128,
    at: usize,
    len: u32,
    /// The place of the source: the newest is 0.
    source: u32,
}

/// How far a merge came.
pub(super) struct Progress {
    /// Chunks of the target that are done.
    pub cursor: u32,
    /// Keys that were written.
    pub keys: u64,
}

impl Stretch {
    pub fn new() -> Stretch {
        Stretch { items: vec![], sorter: Sorter::new(), values: vec![], writer: ChunkWriter::default() }
    }

    /// Merges on from chunk `cursor` until about `keys_max` keys of the sources are done.
    pub fn advance(
        &mut self,
        work: &MergeWork,
        cursor: u32,
        keys_max: u64,
        filter: &mut Filter,
        into: &mut Entries,
    ) -> Result<Progress> {
        let keys_of_all: u64 = work.sources.iter().map(|run| run.keys).sum();
        let keys_of_chunk = (keys_of_all / work.target.chunks as u64).max(1);
        let chunks_at_once = (KEYS_AT_ONCE / keys_of_chunk).max(1);
        let chunks_max = keys_max.div_ceil(keys_of_chunk);
        let end = (cursor as u64 + chunks_max).min(work.target.chunks as u64) as u32;
        let mut progress = Progress { cursor, keys: 0 };
        while progress.cursor < end {
            let next = (progress.cursor as u64 + chunks_at_once).min(end as u64) as u32;
            self.read(work, progress.cursor..next)?;
            progress.keys += self.write(work, progress.cursor..next, filter, into)?;
            progress.cursor = next;
        }
        Ok(progress)
    }

    /// Reads what belongs to these chunks of the target, sorted by key, the newest state first.
    fn read(&mut self, work: &MergeWork, chunks: Range<u32>) -> Result<()> {
        let Stretch { items, sorter, values, .. } = self;
        items.clear();
        values.clear();
        let uppers = work.target.start_of(chunks.start)..work.target.start_of(chunks.end);
        for (source, run) in work.sources.iter().enumerate() {
            let key_of = |chunk| seen_chunk_key(work.prefix, run.number, chunk);
            let within = run.chunks_within(&uppers);
            let mut damaged = None;
            work.store.scan(Table::Seen, &key_of(within.start), &key_of(within.end), &mut |key, value| {
                let Some(chunk) = Chunk::read(value) else {
                    damaged = Some((seen_chunk_parts(key).map_or(0, |(_, _, chunk)| chunk), value.len()));
                    return false;
                };
                let begin = values.len();
                values.extend_from_slice(chunk.values);
                for at in 0..chunk.len() {
                    let key = chunk.key(at);
                    if uppers.contains(&(key >> 64)) {
                        let value = chunk.value_range(at);
                        let len = value.len() as u32;
                        items.push(Item { key, at: begin + value.start, len, source: source as u32 });
                    }
                }
                true
            })?;
            if let Some((chunk, len)) = damaged {
                return Err(unreadable_chunk(run.number, chunk, len));
            }
        }
        let bucket_of = |item: &Item| (work.target.chunk_of((item.key >> 64) as u64) - chunks.start) as usize;
        sorter.sort(items, chunks.len(), bucket_of, |item| (item.key, item.source));
        Ok(())
    }

    /// Writes the chunks; gives the number of keys.
    fn write(&mut self, work: &MergeWork, chunks: Range<u32>, filter: &mut Filter, into: &mut Entries) -> Result<u64> {
        let Stretch { items, values, writer, .. } = self;
        let mut chunk = chunks.start;
        let (mut keys, mut last) = (0, None);
        for item in items.iter() {
            if last.replace(item.key) == Some(item.key) {
                continue;
            }
            let value = &values[item.at..item.at + item.len as usize];
            let newest_ms = newest_ms(value).ok_or_else(|| unreadable_value(item.key, value.len()))?;
            if newest_ms.max(work.floor_ms) < work.horizon_ms {
                continue;
            }
            let chunk_of_key = work.target.chunk_of((item.key >> 64) as u64);
            if chunk_of_key != chunk {
                writer.finish(&seen_chunk_key(work.prefix, work.target.number, chunk), work.floor_ms, into);
                chunk = chunk_of_key;
            }
            writer.push(item.key, newest_ms, |into| into.extend_from_slice(value));
            filter.insert(item.key);
            keys += 1;
        }
        writer.finish(&seen_chunk_key(work.prefix, work.target.number, chunk), work.floor_ms, into);
        Ok(keys)
    }
}
