//! What a batch of probes needs of stored segments, read with two lookups for all of it.
//!
//! Owns the index chunks and pages that were read. Stored segments do not change while a batch is processed, so
//! what was read stays true until the epoch is sealed. Bounded: a batch that needs more is answered in part.

use super::layout::{Chunk, KEY_LEN, PAGE_ROWS, Page, Part, Prefix, chunk_of, corrupt};
use super::postings::Posting;
use super::segment::Segment;
use super::{Probe, Take};
use crate::error::Result;
use crate::state::{StateStore, Table};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Lookups of one batch; with 4 KiB a chunk, 8 MiB.
const ASKS_MAX: usize = 2048;
/// Pages read ahead for one batch, and how many are kept: 4 and 16 MiB of small rows.
const PAGES_AHEAD_MAX: usize = 1024;
const PAGES_KEPT_MAX: usize = 4096;

/// What was read for some probes.
#[derive(Default)]
pub struct Ahead {
    /// In the order of the probes.
    asks: Vec<Ask>,
    chunks: Vec<Chunk>,
}

/// Pages that were read, for as long as there is room.
#[derive(Default)]
pub(super) struct Pages(BTreeMap<PartKey, Page>);

/// One probe that a stored segment may have rows for.
#[derive(Clone, Copy)]
struct Ask {
    probe: u32,
    /// First arrival of the segment.
    segment: u64,
    /// Its place in `chunks`.
    chunk: u32,
}

/// First arrival of a segment, number of a page or chunk.
type PartKey = (u64, u32);

impl Ahead {
    /// Forgets what was read and reads for these probes; answers how many of them are served, one at least.
    pub(super) fn look(
        &mut self,
        store: &dyn StateStore,
        prefix: Prefix,
        segments: &[Segment],
        probes: &[Probe],
        pages: &mut Pages,
    ) -> Result<usize> {
        self.asks.clear();
        self.chunks.clear();
        let stored: Vec<&Segment> = segments.iter().filter(|segment| segment.resident.is_none()).collect();
        if stored.is_empty() {
            return Ok(probes.len());
        }
        let mut wanted: Vec<PartKey> = Vec::new();
        let mut served = 0;
        for (number, probe) in probes.iter().enumerate() {
            let asks_before = self.asks.len();
            for segment in &stored {
                if probe.may_hit(segment) {
                    let chunk = chunk_of(probe.key, segment.record.chunks);
                    self.asks.push(Ask { probe: number as u32, segment: segment.record.first, chunk });
                }
            }
            if self.asks.len() > ASKS_MAX && served > 0 {
                self.asks.truncate(asks_before);
                break;
            }
            served += 1;
        }
        wanted.extend(self.asks.iter().map(|ask| (ask.segment, ask.chunk)));
        wanted.sort_unstable();
        wanted.dedup();
        self.read_chunks(store, prefix, &wanted)?;
        for ask in &mut self.asks {
            let at = wanted.binary_search(&(ask.segment, ask.chunk)).expect("every chunk that is asked is wanted");
            ask.chunk = at as u32;
        }
        let wanted = self.pages_of(probes);
        pages.read(store, prefix, wanted)?;
        Ok(served)
    }

    /// For each stored segment that may have rows of this probe: its first arrival and the chunk to look into.
    pub(super) fn chunks_of(&self, probe: usize) -> impl Iterator<Item = (u64, &Chunk)> {
        let from = self.asks.partition_point(|ask| (ask.probe as usize) < probe);
        let asks = self.asks[from..].iter().take_while(move |ask| ask.probe as usize == probe);
        asks.map(|ask| (ask.segment, &self.chunks[ask.chunk as usize]))
    }

    fn read_chunks(&mut self, store: &dyn StateStore, prefix: Prefix, wanted: &[PartKey]) -> Result<()> {
        let mut read: Vec<Option<Chunk>> = vec![None; wanted.len()];
        let keys: Vec<u8> =
            wanted.iter().flat_map(|(segment, chunk)| prefix.key(*segment, Part::Index, *chunk)).collect();
        store.multi_get(Table::Buffer, &keys, KEY_LEN, &mut |index, value| {
            read[index] = Chunk::decode(value.to_vec());
        })?;
        self.chunks = read.into_iter().collect::<Option<_>>().ok_or_else(corrupt)?;
        Ok(())
    }

    /// The pages of what the chunks say, as far as there is room.
    fn pages_of(&self, probes: &[Probe]) -> Vec<PartKey> {
        let mut wanted: Vec<PartKey> = Vec::new();
        for ask in &self.asks {
            if wanted.len() > PAGES_AHEAD_MAX {
                break;
            }
            let probe = &probes[ask.probe as usize];
            let hits = self.chunks[ask.chunk as usize].between(probe.key, probe.from_ms, probe.to_ms);
            let page = |(_, row): Posting| (ask.segment, row / PAGE_ROWS);
            match probe.take {
                Take::All => wanted.extend(hits.take(PAGES_AHEAD_MAX).map(page)),
                Take::Count => {}
                Take::Nearest { at_ms } => wanted.extend(nearest(hits, at_ms).map(page)),
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

impl Pages {
    /// The page of a stored row, read now if it was not read ahead.
    pub fn page(&mut self, store: &dyn StateStore, prefix: Prefix, segment: u64, row: u32) -> Result<&Page> {
        let number = row / PAGE_ROWS;
        if self.0.len() > 2 * PAGES_KEPT_MAX {
            self.tidy();
        }
        match self.0.entry((segment, number)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let bytes = store.get(Table::Buffer, &prefix.key(segment, Part::Page, number))?;
                let page = bytes.and_then(Page::decode).ok_or_else(corrupt)?;
                Ok(vacant.insert(page))
            }
        }
    }

    /// What was read so far may go, if it is much.
    pub fn tidy(&mut self) {
        if self.0.len() > PAGES_KEPT_MAX {
            self.0.clear();
        }
    }

    fn read(&mut self, store: &dyn StateStore, prefix: Prefix, mut wanted: Vec<PartKey>) -> Result<()> {
        wanted.retain(|page| !self.0.contains_key(page));
        let keys: Vec<u8> = wanted.iter().flat_map(|(segment, page)| prefix.key(*segment, Part::Page, *page)).collect();
        let mut is_whole = true;
        store.multi_get(Table::Buffer, &keys, KEY_LEN, &mut |index, value| match Page::decode(value.to_vec()) {
            Some(page) => drop(self.0.insert(wanted[index], page)),
            None => is_whole = false,
        })?;
        if is_whole { Ok(()) } else { Err(corrupt()) }
    }
}

/// Of postings in order: the newest at or before `at_ms`, else the oldest after it.
pub(super) fn nearest(postings: impl Iterator<Item = Posting>, at_ms: i64) -> Option<Posting> {
    let mut newest = None;
    for posting in postings {
        if posting.0 > at_ms {
            return newest.or(Some(posting));
        }
        newest = Some(posting);
    }
    newest
}
