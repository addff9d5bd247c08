//! The dedup table: which keys a task's step has already let through.
//!
//! Owns the `seen` keys of one task and step. Promises the verdicts that the definition gives record by record, in
//! the order given, however the records were cut into batches and epochs. Never reads a clock, never writes: what
//! changed leaves with the epoch.
//!
//! Keys that changed lately are in the overlay, and in a journal of each epoch. When they are many, a seal writes
//! them as a run, sorted by hash, and runs are merged into larger ones, a stretch with each seal: all of it is part
//! of the epoch's one batch, so whatever a crash leaves behind is whole. A batch of records is sorted by key, looked
//! up in the overlay, then in the runs' filters in memory; only what may be in a run is asked for in the store.
//!
//! ```text
//! seen │ task u32 │ step u16 │ 0 │                       → which runs there are           (manifest.rs)
//!      │ task u32 │ step u16 │ 1 │ number u64 │          → what an epoch changed           (journal.rs)
//!      │ task u32 │ step u16 │ 2 │ run u64 │ chunk u32 │ → some hundred keys of a run      (chunk.rs)
//! ```

mod chunk;
mod filter;
mod journal;
mod load;
mod lookup;
mod manifest;
mod merge;
mod order;
mod overlay;
mod rule;
mod run;
mod runs;
mod shape;
mod upkeep;

use super::keys::{SEEN_PREFIX_LEN, seen_journal_key, seen_prefix};
use super::{StateStore, WriteBatch};
use crate::error::Result;
use crate::types::TaskNo;
pub(in crate::state) use chunk::newest_ms;
use load::{Loaded, load};
use lookup::{Lookup, unreadable_value};
use manifest::Manifest;
use order::{Sorter, share_of};
pub use overlay::Mark;
use overlay::Overlay;
use rule::{Changes, First, Latest, Rule, Window};
use runs::Runs;
pub use shape::Shape;
use std::collections::VecDeque;
use upkeep::Upkeep;

/// Memory that an open journal keeps, for each key of a run.
const JOURNAL_ENTRY_BYTES: usize = 25;
/// Journals as long as this many runs make a run of the recent keys, however few those are: a few keys that change
/// all the time would else fill the disk, and the next start would read all of it.
const JOURNAL_RUNS_MAX: usize = 4;

/// A record to be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// A hash whose bits are evenly spread.
    pub key: u128,
    pub time_ms: i64,
    /// The task's watermark, this record included; never lower than that of the candidate before.
    pub watermark_ms: i64,
    /// Hash of the compared fields; only looked at by [`Memory::Changes`].
    pub content: u128,
}

/// What the table says about a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    Duplicate,
    /// The watermark has passed its window: it cannot be judged any more.
    Late,
}

/// What is remembered of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Every accepted time that still matters; with `renew`, duplicates extend it.
    First { renew: bool },
    /// The last passed time: what is older does not pass.
    Latest,
    /// The last passed time and content: what is equal does not pass.
    Changes,
}

/// What a table is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeenOptions {
    pub memory: Memory,
    /// `None`: forever.
    pub window_ms: Option<i64>,
    /// Bound of the filters and the recent keys; about two bytes for each stored key are enough, with less the
    /// store is asked more often.
    pub filter_bytes_max: usize,
}

/// The dedup table of one task and step.
pub struct Seen(Choice);

enum Choice {
    First(TableOf<First>),
    Latest(TableOf<Latest>),
    Changes(TableOf<Changes>),
}

/// Runs the same line for each kind of table.
macro_rules! each {
    ($seen:expr, $table:ident => $do:expr) => {
        match $seen {
            Choice::First($table) => $do,
            Choice::Latest($table) => $do,
            Choice::Changes($table) => $do,
        }
    };
}

impl Seen {
    pub fn new(task: TaskNo, step: u16, options: SeenOptions) -> Seen {
        Seen::with_shape(task, step, options, Shape::within(options.filter_bytes_max))
    }

    /// A table of other sizes than the usual ones; it reads what was written under any.
    pub fn with_shape(task: TaskNo, step: u16, options: SeenOptions, shape: Shape) -> Seen {
        let window = Window(options.window_ms);
        let prefix = seen_prefix(task, step);
        Seen(match options.memory {
            Memory::First { renew } => Choice::First(TableOf::new(First { window, renew }, window, prefix, shape)),
            Memory::Latest => Choice::Latest(TableOf::new(Latest { window }, window, prefix, shape)),
            Memory::Changes => Choice::Changes(TableOf::new(Changes { window }, window, prefix, shape)),
        })
    }

    /// Judges a batch in the order given, each record as if all before it had been judged alone. `out` gets one
    /// verdict for each. After an error nothing has changed.
    pub fn judge(&mut self, store: &dyn StateStore, batch: &[Candidate], out: &mut Vec<Verdict>) -> Result<()> {
        each!(&mut self.0, table => table.judge(store, batch, out))
    }

    /// A moment to go back to, until the next `forget_marks`, `seal` or `stored`; marks lie one inside the other.
    pub fn mark(&mut self) -> Mark {
        each!(&mut self.0, table => table.overlay.mark())
    }

    /// Forgets what was judged since the mark.
    pub fn rollback(&mut self, mark: Mark) {
        each!(&mut self.0, table => table.overlay.rollback(mark))
    }

    /// Nobody goes back any more.
    pub fn forget_marks(&mut self) {
        each!(&mut self.0, table => table.overlay.forget_marks())
    }

    /// Ends the open epoch: its changes go into the batch that also stores this watermark, and with them what the
    /// runs need. They stay visible here. After an error the table and the batch are of no more use.
    pub fn seal(&mut self, store: &dyn StateStore, watermark_ms: i64, batch: &mut WriteBatch) -> Result<()> {
        each!(&mut self.0, table => table.seal(store, watermark_ms, batch))
    }

    /// The store has written the oldest sealed epoch.
    pub fn stored(&mut self) {
        each!(&mut self.0, table => table.stored())
    }

    /// Times below this do not matter once the watermark is stored; for [`StateStore::set_horizon`].
    pub fn horizon_ms(&self, watermark_ms: i64) -> Option<i64> {
        each!(&self.0, table => table.horizon_ms(watermark_ms))
    }

    /// Memory of the open epoch's changes.
    pub fn overlay_bytes(&self) -> usize {
        each!(&self.0, table => table.overlay.open_bytes())
    }

    /// Memory of the filters.
    pub fn filter_bytes(&self) -> usize {
        each!(&self.0, table => table.runs.filter_bytes())
    }

    /// How many keys are remembered: those that were changed or passed since they were written count as well.
    /// Zero until the first record after a start.
    pub fn keys_estimate(&self) -> u64 {
        each!(&self.0, table => table.overlay.recent_len() as u64 + table.runs.keys())
    }
}

/// A table with one rule.
struct TableOf<R: Rule> {
    rule: R,
    window: Window,
    prefix: [u8; SEEN_PREFIX_LEN],
    shape: Shape,
    /// What the store has was read.
    is_loaded: bool,
    overlay: Overlay<R>,
    runs: Runs,
    next_journal: u64,
    /// Length of the journals that no run holds.
    journal_bytes: usize,
    /// Keys that changed since merges went on.
    changed: u64,
    /// Epochs on their way to the store, the oldest first.
    sealed: VecDeque<Sealed>,
    work: Work<R::Known>,
}

/// What the write of an epoch ends, besides.
struct Sealed {
    /// The staged manifest is its own.
    is_staged: bool,
    /// What leaves the overlay is in its run.
    leaves: bool,
}

/// What one batch needs; kept for the next.
struct Work<K> {
    /// Upper half of the key, and which candidate: sorted.
    order: Vec<(u64, u32)>,
    sorter: Sorter<(u64, u32)>,
    /// The different keys of the batch, ascending.
    groups: Vec<Group<K>>,
    /// Groups that the overlay does not know, and their keys.
    unknown: Vec<u32>,
    unknown_keys: Vec<u128>,
    lookup: Lookup,
    /// Groups of which another state is remembered now.
    changed: Vec<u32>,
}

/// All candidates of one key.
struct Group<K> {
    key: u128,
    /// Where they begin in `order`; they end where the next group begins.
    start: u32,
    known: Option<K>,
}

impl<R: Rule> TableOf<R> {
    fn new(rule: R, window: Window, prefix: [u8; SEEN_PREFIX_LEN], shape: Shape) -> TableOf<R> {
        TableOf {
            rule,
            window,
            prefix,
            shape,
            is_loaded: false,
            overlay: Overlay::new(),
            runs: Runs::new(Manifest::default(), shape.filter_bytes_max()),
            next_journal: 0,
            journal_bytes: 0,
            changed: 0,
            sealed: VecDeque::new(),
            work: Work {
                order: vec![],
                sorter: Sorter::new(),
                groups: vec![],
                unknown: vec![],
                unknown_keys: vec![],
                lookup: Lookup::default(),
                changed: vec![],
            },
        }
    }

    fn load(&mut self, store: &dyn StateStore) -> Result<()> {
        // A mark may be set already: it notes an empty overlay, and holds for the one that is filled here.
        let Loaded { overlay, runs, next_journal, journal_bytes } = load::<R>(store, self.prefix, &self.shape)?;
        self.overlay.take_stored(overlay);
        (self.runs, self.is_loaded) = (runs, true);
        (self.next_journal, self.journal_bytes) = (next_journal, journal_bytes);
        Ok(())
    }

    fn judge(&mut self, store: &dyn StateStore, batch: &[Candidate], out: &mut Vec<Verdict>) -> Result<()> {
        out.clear();
        if batch.is_empty() {
            return Ok(());
        }
        if !self.is_loaded {
            self.load(store)?;
        }
        self.runs.fill(store, self.prefix)?;
        self.sort(batch);
        self.look_up(store)?;

        out.resize(batch.len(), Verdict::Pass);
        let Work { order, groups, changed: changed_groups, .. } = &mut self.work;
        changed_groups.clear();
        for at in 0..groups.len() {
            let end = groups.get(at + 1).map_or(order.len(), |next| next.start as usize);
            let Group { start, known, .. } = &mut groups[at];
            let mut changed = false;
            for &(_, row) in &order[*start as usize..end] {
                let outcome = self.rule.judge(known, &batch[row as usize]);
                out[row as usize] = outcome.verdict;
                changed |= outcome.changed;
            }
            if changed {
                changed_groups.push(at as u32);
            }
        }
        // Not in the loop above: what was just written would be read back behind the map's writes, which wait for
        // memory; that took 100 ns a record.
        for &at in changed_groups.iter() {
            let Group { key, known, .. } = &mut groups[at as usize];
            self.overlay.set(*key, known.take().expect("a key that changed is known"));
        }
        Ok(())
    }

    /// Brings equal keys together, in processing order, and the keys in theirs.
    fn sort(&mut self, batch: &[Candidate]) {
        let Work { order, sorter, groups, .. } = &mut self.work;
        order.clear();
        order.extend(batch.iter().enumerate().map(|(row, candidate)| ((candidate.key >> 64) as u64, row as u32)));
        let bucket_of = |&(upper, _): &(u64, u32)| share_of(upper, batch.len() as u64);
        sorter.sort(order, batch.len(), bucket_of, |&item| item);
        order
            .chunk_by_mut(|a, b| a.0 == b.0)
            .filter(|run| run.len() > 1)
            .for_each(|run| run.sort_unstable_by_key(|&(_, row)| (batch[row as usize].key, row)));

        groups.clear();
        for (start, &(_, row)) in order.iter().enumerate() {
            let key = batch[row as usize].key;
            if groups.last().is_none_or(|group| group.key != key) {
                groups.push(Group { key, start: start as u32, known: None });
            }
        }
    }

    /// Finds what is known of each key.
    fn look_up(&mut self, store: &dyn StateStore) -> Result<()> {
        let Work { groups, unknown, unknown_keys, lookup, .. } = &mut self.work;
        unknown.clear();
        unknown_keys.clear();
        for (at, group) in groups.iter_mut().enumerate() {
            group.known = self.overlay.get(group.key).cloned();
            if group.known.is_none() {
                unknown.push(at as u32);
                unknown_keys.push(group.key);
            }
        }
        lookup.look_up(store, self.prefix, &self.runs, unknown_keys, &mut |index, value| {
            let group = &mut groups[unknown[index] as usize];
            group.known = R::decode(value);
            group.known.as_ref().map_or_else(|| Err(unreadable_value(group.key, value.len())), |_| Ok(()))
        })
    }

    fn seal(&mut self, store: &dyn StateStore, watermark_ms: i64, batch: &mut WriteBatch) -> Result<()> {
        if !self.is_loaded {
            // Nothing was judged since the start.
            self.sealed.push_back(Sealed { is_staged: false, leaves: false });
            return Ok(());
        }
        let changed = self.overlay.journal().entries();
        self.changed += changed;
        // The runs change only when the store has their last change: there is one truth to read by.
        let is_settled = self.runs.is_settled();
        let leaves = is_settled && self.is_overlay_full();
        let is_staged = is_settled && self.keep_up(store, watermark_ms, leaves, batch)?;
        if leaves {
            self.journal_bytes = 0;
        } else if changed > 0 {
            let journal = self.overlay.journal().bytes();
            batch.seen.put(&seen_journal_key(self.prefix, self.next_journal), journal);
            self.next_journal += 1;
            self.journal_bytes += journal.len();
        }
        self.overlay.seal(leaves, self.shape.run_keys * JOURNAL_ENTRY_BYTES);
        self.sealed.push_back(Sealed { is_staged, leaves });
        Ok(())
    }

    fn is_overlay_full(&self) -> bool {
        self.overlay.recent_len() >= self.shape.run_keys
            || self.overlay.heap_bytes() >= self.shape.heap_bytes_max()
            || self.journal_bytes >= JOURNAL_RUNS_MAX * self.shape.run_keys * JOURNAL_ENTRY_BYTES
    }

    fn keep_up(
        &mut self,
        store: &dyn StateStore,
        watermark_ms: i64,
        leaves: bool,
        batch: &mut WriteBatch,
    ) -> Result<bool> {
        let horizon_ms = self.horizon_ms(watermark_ms).unwrap_or(i64::MIN);
        let TableOf { prefix, shape, overlay, runs, next_journal, changed, .. } = self;
        let leaving = leaves.then(|| (&*overlay, runs.stored().first_journal..*next_journal));
        let upkeep = Upkeep { store, prefix: *prefix, shape, horizon_ms, runs, batch };
        upkeep.work(std::mem::take(changed), leaving)
    }

    fn stored(&mut self) {
        let Sealed { is_staged, leaves } = self.sealed.pop_front().expect("an epoch is sealed before it is stored");
        if is_staged {
            self.runs.settle();
        }
        self.overlay.stored(leaves, 2 * self.shape.run_keys);
    }

    fn horizon_ms(&self, watermark_ms: i64) -> Option<i64> {
        self.window.0.map(|window_ms| watermark_ms.saturating_sub(window_ms))
    }
}
