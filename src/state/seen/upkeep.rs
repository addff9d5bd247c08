//! What a seal does to the runs: recent keys become one, merges go on and begin, what the window has passed goes.
//!
//! Owns when. Everything goes into the epoch's batch, in amounts that follow the epoch's own, so that no seal does
//! much and no thread or clock is needed. Promises that the runs read the same before the batch is stored, and that
//! the batch and the staged manifest agree.

use super::chunk::ChunkWriter;
use super::manifest::{Manifest, Merge};
use super::merge::{MergeWork, Stretch};
use super::order::Sorter;
use super::overlay::Overlay;
use super::rule::Rule;
use super::run::Run;
use super::runs::Runs;
use super::shape::{MERGED_PER_CHANGED, Shape};
use crate::error::Result;
use crate::state::keys::{SEEN_PREFIX_LEN, seen_chunk_key, seen_journal_key, seen_manifest_key};
use crate::state::{StateStore, Table, WriteBatch};
use std::ops::Range;

/// Runs whose newest times are further apart than this part of what is remembered are not merged: they go whole.
const SPAN_PARTS: i64 = 4;

/// What one seal takes a merge on by at most: 25 MB of the batch. An epoch of more keys is followed by others.
const MERGED_MAX: u64 = 1 << 20;

/// One seal's work on the runs.
pub(super) struct Upkeep<'a> {
    pub store: &'a dyn StateStore,
    pub prefix: [u8; SEEN_PREFIX_LEN],
    pub shape: &'a Shape,
    /// Times below it are passed, once this batch is stored.
    pub horizon_ms: i64,
    pub runs: &'a mut Runs,
    pub batch: &'a mut WriteBatch,
}

impl Upkeep<'_> {
    /// Takes merges on for so many changed keys and lets go what is passed. With `leaving` the recent keys become a
    /// run, and their journals, which are given, go. Answers whether a manifest was staged.
    pub fn work<R: Rule>(mut self, changed: u64, leaving: Option<(&Overlay<R>, Range<u64>)>) -> Result<bool> {
        let leaves = leaving.is_some();
        let mut manifest = self.runs.stored().clone();
        self.clear_dropped(&mut manifest);
        self.expire(&mut manifest);
        let keys_max = (changed * MERGED_PER_CHANGED + self.shape.stretch_keys).min(MERGED_MAX);
        self.advance_merges::<R>(&mut manifest, keys_max)?;
        if let Some((overlay, journals)) = leaving {
            self.write_run(&mut manifest, overlay);
            manifest.first_journal = journals.end;
            journals.for_each(|number| self.batch.seen.delete(&seen_journal_key(self.prefix, number)));
        }
        while self.begin_merge(&mut manifest) {}
        if !leaves && manifest == *self.runs.stored() {
            return Ok(false);
        }
        self.batch.seen.put(&seen_manifest_key(self.prefix), &manifest.encode());
        self.runs.stage(manifest);
        Ok(true)
    }

    /// Deletes what the stored manifest says that nobody reads.
    fn clear_dropped(&mut self, manifest: &mut Manifest) {
        for number in manifest.dropped.drain(..) {
            let key_of = |chunk| seen_chunk_key(self.prefix, number, chunk);
            self.batch.delete_range(Table::Seen, key_of(0), [&key_of(u32::MAX)[..], &[0]].concat());
        }
    }

    /// Drops runs that are passed as a whole; a merge's sources only together.
    fn expire(&self, manifest: &mut Manifest) {
        let is_passed = |run: &Run| run.newest_ms < self.horizon_ms;
        let merges = manifest.merges.clone();
        let ended = |merge: &&Merge| is_passed(&merge.target);
        for merge in merges.iter().filter(ended) {
            manifest.merges.retain(|other| other != merge);
            manifest.dropped.push(merge.target.number);
        }
        let passed: Vec<u64> = manifest.runs.iter().filter(|run| is_passed(run)).map(|run| run.number).collect();
        for number in passed {
            if manifest.merge_from(number).is_none() {
                manifest.drop_run(number);
            }
        }
    }

    fn advance_merges<R: Rule>(&mut self, manifest: &mut Manifest, keys_max: u64) -> Result<()> {
        let mut stretch = Stretch::new();
        let mut at = 0;
        while at < manifest.merges.len() {
            let merge = &manifest.merges[at];
            let first = manifest.place_of(merge.sources[0]).expect("a merge has its sources");
            let end = first + merge.sources.len();
            let work = MergeWork {
                store: self.store,
                prefix: self.prefix,
                sources: manifest.runs[first..end].to_vec(),
                target: merge.target.clone(),
                floor_ms: floor_ms::<R>(manifest, end),
                horizon_ms: self.horizon_ms,
            };
            let filter = self.runs.filter_mut(&merge.target);
            let progress = stretch.advance(&work, merge.cursor, keys_max, filter, &mut self.batch.seen)?;
            let merge = &mut manifest.merges[at];
            merge.cursor = progress.cursor;
            merge.target.keys += progress.keys;
            match merge.cursor == merge.target.chunks {
                true => manifest.end_merge(at),
                false => at += 1,
            }
        }
        Ok(())
    }

    /// The recent keys become the newest run, without what is passed.
    fn write_run<R: Rule>(&mut self, manifest: &mut Manifest, overlay: &Overlay<R>) {
        let floor_ms = floor_ms::<R>(manifest, 0);
        let is_live = |known: &R::Known| R::newest_ms(known).max(floor_ms) >= self.horizon_ms;
        let mut entries: Vec<(u128, &R::Known)> = Vec::with_capacity(overlay.recent_len());
        entries.extend(overlay.recent().filter(|(_, known)| is_live(known)));
        let Some(newest_ms) = entries.iter().map(|(_, known)| R::newest_ms(known)).max() else { return };
        let newest_ms = newest_ms.max(floor_ms);
        let keys = entries.len() as u64;
        let chunks = Run::chunks_of(keys, self.shape.chunk_keys);
        let number = manifest.draw_run();
        let run = Run { number, level: 0, chunks, keys, first_ms: newest_ms, newest_ms };
        let chunk_of = |key: u128| run.chunk_of((key >> 64) as u64);
        Sorter::new().sort(&mut entries, chunks as usize, |&(key, _)| chunk_of(key) as usize, |&(key, _)| key);

        self.runs.begin_filter(manifest, number, keys, 0);
        let filter = self.runs.filter_mut(&run);
        let mut writer = ChunkWriter::default();
        for of_chunk in entries.chunk_by(|a, b| chunk_of(a.0) == chunk_of(b.0)) {
            for &(key, known) in of_chunk {
                writer.push(key, R::newest_ms(known), |into| R::encode(known, into));
                filter.insert(key);
            }
            let key = seen_chunk_key(self.prefix, number, chunk_of(of_chunk[0].0));
            writer.finish(&key, floor_ms, &mut self.batch.seen);
        }
        manifest.runs.insert(0, run);
    }

    /// Begins a merge where a level is full; one of each level goes on at a time.
    fn begin_merge(&mut self, manifest: &mut Manifest) -> bool {
        let newest_ms = manifest.newest_ms_from(0);
        let span_ms = match self.horizon_ms {
            i64::MIN => i64::MAX,
            horizon_ms => newest_ms.saturating_sub(horizon_ms) / SPAN_PARTS,
        };
        let Some(places) = full_level(manifest, self.shape.fanout, span_ms) else { return false };
        let sources = &manifest.runs[places];
        let keys = sources.iter().map(|run| run.keys).sum();
        let level = sources[0].level.saturating_add(1);
        let first_ms = sources.iter().map(|run| run.first_ms).min().expect("a merge has sources");
        let newest_ms = sources.iter().map(|run| run.newest_ms).max().expect("a merge has sources");
        let sources = sources.iter().map(|run| run.number).collect();
        let (number, chunks) = (manifest.draw_run(), Run::chunks_of(keys, self.shape.chunk_keys));
        let target = Run { number, level, chunks, keys: 0, first_ms, newest_ms };
        manifest.merges.push(Merge { sources, target, cursor: 0 });
        self.runs.begin_filter(manifest, number, keys, level);
        true
    }
}

/// The newest time of the runs from `place` on, where a newer state may have an earlier time than an older one.
fn floor_ms<R: Rule>(manifest: &Manifest, place: usize) -> i64 {
    if R::TIMES_ONLY_RISE { i64::MIN } else { manifest.newest_ms_from(place) }
}

/// The oldest neighbours of a level that has enough runs and no merge, as many as lie within the span.
fn full_level(manifest: &Manifest, fanout: usize, span_ms: i64) -> Option<Range<usize>> {
    let is_merging = |level: u8| manifest.merges.iter().any(|merge| merge.target.level == level.saturating_add(1));
    let levels_max = manifest.runs.iter().map(|run| run.level).max()?;
    let full = |&level: &u8| {
        let runs = manifest.runs.iter().filter(|run| run.level == level).count();
        runs >= fanout && !is_merging(level)
    };
    (0..=levels_max).filter(full).find_map(|level| neighbours(&manifest.runs, level, fanout, span_ms))
}

fn neighbours(runs: &[Run], level: u8, fanout: usize, span_ms: i64) -> Option<Range<usize>> {
    let groups = (2..=runs.len()).rev().map(|end| {
        let mut first = end;
        let (mut first_ms, mut newest_ms) = (i64::MAX, i64::MIN);
        while first > 0 && end - first < fanout && runs[first - 1].level == level {
            first_ms = first_ms.min(runs[first - 1].first_ms);
            newest_ms = newest_ms.max(runs[first - 1].newest_ms);
            if newest_ms.saturating_sub(first_ms) > span_ms {
                break;
            }
            first -= 1;
        }
        first..end
    });
    groups.into_iter().find(|group| group.len() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(of: &[(u8, i64, i64)]) -> Vec<Run> {
        let run = |(at, &(level, first_ms, newest_ms)): (usize, &(u8, i64, i64))| Run {
            number: at as u64,
            level,
            chunks: 1,
            keys: 1,
            first_ms,
            newest_ms,
        };
        of.iter().enumerate().map(run).collect()
    }

    #[test]
    fn the_oldest_neighbours_of_a_level_within_the_span_are_merged() {
        let of = runs(&[(0, 9, 9), (0, 8, 8), (0, 5, 5), (0, 4, 4), (1, 0, 3), (1, 0, 1)]);
        assert_eq!(neighbours(&of, 0, 4, 100), Some(0..4));
        assert_eq!(neighbours(&of, 0, 3, 100), Some(1..4));
        assert_eq!(neighbours(&of, 0, 4, 1), Some(2..4));
        assert_eq!(neighbours(&of, 0, 4, 0), None);
        assert_eq!(neighbours(&of, 1, 4, 3), Some(4..6));
        assert_eq!(neighbours(&of, 1, 4, 2), None);
        assert_eq!(neighbours(&of, 2, 4, 100), None);
    }

    #[test]
    fn a_level_with_a_merge_waits() {
        let of = runs(&[(0, 9, 9), (0, 8, 8), (0, 7, 7), (0, 6, 6)]);
        let mut manifest = Manifest { runs: of, next_run: 9, ..Manifest::default() };
        assert_eq!(full_level(&manifest, 4, 100), Some(0..4));
        assert_eq!(full_level(&manifest, 5, 100), None);
        let target = Run { number: 8, level: 1, ..manifest.runs[0].clone() };
        manifest.merges.push(Merge { sources: vec![2, 3], target, cursor: 0 });
        assert_eq!(full_level(&manifest, 2, 100), None);
    }
}
