//! Looking up the keys of a batch in the runs: the filters first, then the chunks of those that may hold a key.
//!
//! Promises the newest state that the runs have of a key. A key is looked for in one run after the other, the newest
//! first; all keys go side by side, so that each round is one call of the store, and nearly always there is one.

use super::chunk::Chunk;
use super::filter::Probe;
use super::runs::Runs;
use crate::error::{Error, Result};
use crate::state::keys::{SEEN_CHUNK_KEY_LEN, SEEN_PREFIX_LEN, seen_chunk_key};
use crate::state::{StateStore, Table};

/// What one lookup needs; kept for the next.
#[derive(Default)]
pub(super) struct Lookup {
    probes: Vec<Probe>,
    hits: Vec<Hit>,
    /// Sorted by run and chunk.
    asks: Vec<Ask>,
    next_asks: Vec<Ask>,
    /// Where in `asks` each different chunk begins.
    chunks: Vec<u32>,
    chunk_keys: Vec<u8>,
}

/// A key that a filter lets through: which one, and the place of the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    key: u32,
    slot: u32,
}

/// A chunk that is read for a hit.
#[derive(Clone, Copy)]
struct Ask {
    run: u64,
    chunk: u32,
    hit: u32,
}

/// In `Ask::hit`: the key was found.
const FOUND: u32 = u32::MAX;

impl Lookup {
    /// Calls `found(index, value)` for each of the ascending `keys` that a run has.
    pub fn look_up(
        &mut self,
        store: &dyn StateStore,
        prefix: [u8; SEEN_PREFIX_LEN],
        runs: &Runs,
        keys: &[u128],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.filter(runs, keys);
        let Lookup { hits, asks, .. } = self;
        asks.clear();
        let ask = |(at, hit): (usize, &Hit)| ask(runs, keys, *hit, at);
        let is_first = |&(at, hit): &(usize, &Hit)| at == 0 || hits[at - 1].key != hit.key;
        asks.extend(hits.iter().enumerate().filter(is_first).map(ask));
        while !self.asks.is_empty() {
            self.read(store, prefix, runs, keys, found)?;
            self.go_on(runs, keys);
        }
        Ok(())
    }

    /// Finds the runs that may hold each key: run by run, so that each filter is walked through in order.
    fn filter(&mut self, runs: &Runs, keys: &[u128]) {
        let Lookup { hits, probes, .. } = self;
        hits.clear();
        probes.clear();
        probes.extend(keys.iter().map(|&key| Probe::of(key)));
        for (slot, place) in runs.slots().iter().enumerate() {
            let first_not_below = |end: u128| keys.partition_point(|key| key >> 64 < end);
            let within = first_not_below(place.uppers.start)..first_not_below(place.uppers.end);
            let filter = runs.filter(&place.run);
            for (probe, key) in probes[within.clone()].iter().zip(within) {
                if filter.may_hold(probe) {
                    hits.push(Hit { key: key as u32, slot: slot as u32 });
                }
            }
        }
        hits.sort_unstable();
    }

    /// Reads every chunk that is asked for, once.
    fn read(
        &mut self,
        store: &dyn StateStore,
        prefix: [u8; SEEN_PREFIX_LEN],
        runs: &Runs,
        keys: &[u128],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Lookup { hits, asks, chunks, chunk_keys, .. } = self;
        asks.sort_unstable_by_key(|ask| (ask.run, ask.chunk));
        chunks.clear();
        chunk_keys.clear();
        for (at, ask) in asks.iter().enumerate() {
            if at == 0 || (asks[at - 1].run, asks[at - 1].chunk) != (ask.run, ask.chunk) {
                chunks.push(at as u32);
                chunk_keys.extend_from_slice(&seen_chunk_key(prefix, ask.run, ask.chunk));
            }
        }
        let mut result = Ok(());
        store.multi_get(Table::Seen, chunk_keys, SEEN_CHUNK_KEY_LEN, &mut |index, value| {
            let end = chunks.get(index + 1).map_or(asks.len(), |&end| end as usize);
            let of_chunk = &mut asks[chunks[index] as usize..end];
            let Some(chunk) = Chunk::read(value) else {
                let first = of_chunk.first().expect("a chunk is read because a key asks for it");
                result = Err(unreadable_chunk(first.run, first.chunk, value.len()));
                return;
            };
            for ask in of_chunk {
                let Hit { key, slot } = hits[ask.hit as usize];
                let run = &runs.slots()[slot as usize].run;
                let key_of_ask = keys[key as usize];
                if let Some(value) = chunk.find(key_of_ask, run.share_in_chunk((key_of_ask >> 64) as u64)) {
                    ask.hit = FOUND;
                    if result.is_ok() {
                        result = found(key as usize, value);
                    }
                }
            }
        })?;
        result
    }

    /// Who was not found goes on to the next run that may hold it. A chunk that is gone was empty.
    fn go_on(&mut self, runs: &Runs, keys: &[u128]) {
        let Lookup { hits, asks, next_asks, .. } = self;
        next_asks.clear();
        for missed in asks.iter().filter(|ask| ask.hit != FOUND) {
            let at = missed.hit as usize;
            let next = hits.get(at + 1).filter(|next| next.key == hits[at].key);
            next_asks.extend(next.map(|&next| ask(runs, keys, next, at + 1)));
        }
        std::mem::swap(asks, next_asks);
    }
}

fn ask(runs: &Runs, keys: &[u128], hit: Hit, at: usize) -> Ask {
    let run = &runs.slots()[hit.slot as usize].run;
    let upper = (keys[hit.key as usize] >> 64) as u64;
    Ask { run: run.number, chunk: run.chunk_of(upper), hit: at as u32 }
}

pub(super) fn unreadable_chunk(run: u64, chunk: u32, len: usize) -> Error {
    let message = format!(
        "chunk {chunk} of run {run} of the dedup state has {len} bytes that weir did not write; \
         the state directory is damaged: set it aside, Kafka still has the records"
    );
    Error::stop("corrupt", message)
}

pub(super) fn unreadable_value(key: u128, len: usize) -> Error {
    let message = format!(
        "the dedup state holds {len} bytes of key {key:032x} that weir did not write; \
         the state directory is damaged: set it aside, Kafka still has the records"
    );
    Error::stop("corrupt", message)
}
