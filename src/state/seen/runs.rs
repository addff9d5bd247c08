//! The stored runs of a table as lookups see them: the manifest, the filters, and who is asked for which key.
//!
//! Promises that lookups go by the stored manifest until the store has the next one.

use super::filter::Filter;
use super::manifest::Manifest;
use super::run::{END, Run};
use std::collections::BTreeMap;
use std::ops::Range;

/// The runs of a table.
pub(super) struct Runs {
    stored: Manifest,
    /// What a sealed epoch makes of it.
    staged: Option<Manifest>,
    /// By the number of the run.
    filters: BTreeMap<u64, Filter>,
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
        Runs { stored, staged: None, filters: BTreeMap::new(), filter_bytes_max, slots }
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
