//! The stored runs of a table as lookups see them: the manifest, the filters, and who is asked for which key.
//!
//! Promises that lookups go by the stored manifest until the store has the next one.

use super::chunk::Chunk;
use super::filter::Filter;
use super::lookup::unreadable_chunk;
use super::manifest::{Manifest, Merge};
use super::run::{END, Run};
use crate::error::Result;
use crate::state::keys::{SEEN_PREFIX_LEN, seen_chunk_key, seen_chunk_parts};
use crate::state::{StateStore, Table};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Chunks that one batch of records reads for the filters after a start: 16 MiB, so that no worker is long away.
const FILL_CHUNKS: u32 = 4096;

/// The runs of a table.
pub(super) struct Runs {
    stored: Manifest,
    /// What a sealed epoch makes of it.
    staged: Option<Manifest>,
    /// By the number of the run.
    filters: BTreeMap<u64, Filter>,
    /// Runs of before the start whose filters are still being made, with the chunks to be read.
    unfilled: VecDeque<(Run, Range<u32>)>,
    filter_bytes_max: usize,
    slots: Vec<Slot>,
}

/// A run and the keys that it is asked for, by their upper half.
pub(super) struct Slot {
    pub run: Run,
    pub uppers: Range<u128>,
}

impl Runs {
    pub fn new(stored: Manifest, filter_bytes_max: usize) -> Runs {
        let slots = slots_of(&stored);
        let (filters, unfilled) = (BTreeMap::new(), VecDeque::new());
        Runs { stored, staged: None, filters, unfilled, filter_bytes_max, slots }
    }

    /// After a start: an empty filter for every run, which lets every key through until it is filled.
    pub fn begin_filters(&mut self) {
        let manifest = self.stored.clone();
        for run in &manifest.runs {
            let done = manifest.merge_from(run.number).map_or(0, |merge| merge.target.start_of(merge.cursor));
            self.begin_filter(&manifest, run.number, run.keys, run.level);
            self.begin_filling(run, run.chunk_of(done as u64)..run.chunks);
            self.filter_mut(run).give_back(done);
        }
        for Merge { sources, target, cursor } in &manifest.merges {
            let keys = manifest.runs.iter().filter(|run| sources.contains(&run.number)).map(|run| run.keys).sum();
            self.begin_filter(&manifest, target.number, keys, target.level);
            self.begin_filling(target, 0..*cursor);
        }
    }

    fn begin_filling(&mut self, run: &Run, chunks: Range<u32>) {
        let filter = self.filter_mut(run);
        if filter.is_any() && !chunks.is_empty() {
            filter.knows_below(run.start_of(chunks.start));
            self.unfilled.push_back((run.clone(), chunks));
        }
    }

    /// Goes on filling the filters, a stretch at a time.
    pub fn fill(&mut self, store: &dyn StateStore, prefix: [u8; SEEN_PREFIX_LEN]) -> Result<()> {
        let mut left = FILL_CHUNKS;
        while left > 0
            && let Some((run, chunks)) = self.unfilled.front_mut()
        {
            let Some(filter) = self.filters.get_mut(&run.number) else {
                self.unfilled.pop_front();
                continue;
            };
            let now = chunks.start..chunks.end.min(chunks.start.saturating_add(left));
            fill_filter(store, prefix, filter, run, now.clone())?;
            left -= now.len() as u32;
            chunks.start = now.end;
            if chunks.start == chunks.end {
                filter.knows_below(END);
                self.unfilled.pop_front();
            } else {
                filter.knows_below(run.start_of(now.end));
            }
        }
        Ok(())
    }

    /// Who is asked, the newest first.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub fn stored(&self) -> &Manifest {
        &self.stored
    }

    /// Whether the store has all that was sealed.
    pub fn is_settled(&self) -> bool {
        self.staged.is_none()
    }

    pub fn filter(&self, run: &Run) -> &Filter {
        self.filters.get(&run.number).expect("a run has its filter")
    }

    pub fn filter_mut(&mut self, run: &Run) -> &mut Filter {
        self.filters.get_mut(&run.number).expect("a run has its filter")
    }

    /// Makes the empty filter of a run of `manifest` that will have so many keys.
    pub fn begin_filter(&mut self, manifest: &Manifest, number: u64, keys: u64, level: u8) {
        // A merge's sources give their room back while its target takes it.
        let is_leaving = |number: u64| manifest.merge_from(number).is_some();
        let taken = self.filters.iter().filter(|(number, _)| !is_leaving(**number));
        let taken: usize = taken.map(|(_, filter)| filter.bytes_whole()).sum();
        let free = self.filter_bytes_max.saturating_sub(taken);
        self.filters.insert(number, Filter::new(keys, level, free));
    }

    /// A sealed epoch has this manifest.
    pub fn stage(&mut self, manifest: Manifest) {
        assert!(self.staged.is_none(), "one manifest is on its way at a time");
        self.staged = Some(manifest);
    }

    /// The store has it.
    pub fn settle(&mut self) {
        self.stored = self.staged.take().expect("a manifest is staged before it is stored");
        self.slots = slots_of(&self.stored);
        let Runs { stored, filters, .. } = self;
        filters.retain(|&number, _| stored.all().any(|run| run.number == number));
        for merge in &stored.merges {
            let end = merge.target.start_of(merge.cursor);
            for source in &merge.sources {
                filters.get_mut(source).expect("a source has its filter").give_back(end);
            }
        }
    }

    pub fn keys(&self) -> u64 {
        self.stored.runs.iter().map(|run| run.keys).sum()
    }

    pub fn filter_bytes(&self) -> usize {
        self.filters.values().map(Filter::bytes).sum()
    }
}

fn fill_filter(
    store: &dyn StateStore,
    prefix: [u8; SEEN_PREFIX_LEN],
    filter: &mut Filter,
    run: &Run,
    chunks: Range<u32>,
) -> Result<()> {
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

/// A merge's target has the keys below its cursor, its sources all others.
fn slots_of(manifest: &Manifest) -> Vec<Slot> {
    let mut slots = Vec::new();
    for run in &manifest.runs {
        let Some(merge) = manifest.merge_from(run.number) else {
            slots.push(Slot { run: run.clone(), uppers: 0..END });
            continue;
        };
        let end = merge.target.start_of(merge.cursor);
        if merge.sources.first() == Some(&run.number) {
            slots.push(Slot { run: merge.target.clone(), uppers: 0..end });
        }
        slots.push(Slot { run: run.clone(), uppers: end..END });
    }
    slots
}
