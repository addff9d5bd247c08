//! The dedup table: which keys a task's step has already let through.
//!
//! Owns the `seen` keys of one task and step. Promises the verdicts that the definition gives record by record, in
//! the order given, however the records were cut into batches and epochs. Never reads a clock, never writes: what
//! changed leaves with the epoch.
//!
//! A batch is sorted by key, looked up in the overlay (changes on their way to the disk), then in a filter in
//! memory, and only what may be in the store is asked for there, with one lookup for all.
//!
//! ```text
//! seen │ task u32 │ step u16 │ key hash 16 │ → what `rule.rs` remembers
//! ```

mod filter;
mod overlay;
mod rule;

use super::keys::{SEEN_KEY_LEN, SEEN_PREFIX_LEN, seen_key, seen_prefix};
use super::{Entries, StateStore, Table};
use crate::error::{Error, Result};
use crate::types::TaskNo;
use filter::Filter;
pub use overlay::Mark;
use overlay::Overlay;
pub(in crate::state) use rule::newest_ms;
use rule::{Changes, First, Latest, Rule, Window};

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
    /// Bound of the filter; about two bytes a key are enough, with less the store is asked more often.
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
        let window = Window(options.window_ms);
        let prefix = seen_prefix(task, step);
        let bytes_max = options.filter_bytes_max;
        Seen(match options.memory {
            Memory::First { renew } => Choice::First(TableOf::new(First { window, renew }, window, prefix, bytes_max)),
            Memory::Latest => Choice::Latest(TableOf::new(Latest { window }, window, prefix, bytes_max)),
            Memory::Changes => Choice::Changes(TableOf::new(Changes { window }, window, prefix, bytes_max)),
        })
    }

    /// Judges a batch in the order given, each record as if all before it had been judged alone. `out` gets one
    /// verdict for each. After an error nothing has changed.
    pub fn judge(&mut self, store: &dyn StateStore, batch: &[Candidate], out: &mut Vec<Verdict>) -> Result<()> {
        each!(&mut self.0, table => table.judge(store, batch, out))
    }

    /// A moment to go back to, until the next `mark`, `seal` or `stored`.
    pub fn mark(&mut self) -> Mark {
        each!(&mut self.0, table => table.overlay.mark())
    }

    /// Forgets what was judged since the mark, which must be the latest one.
    pub fn rollback(&mut self, mark: Mark) {
        each!(&mut self.0, table => table.overlay.rollback(mark))
    }

    /// Ends the open epoch: its changes go `into` a write batch, sorted by key. They stay visible here.
    pub fn seal(&mut self, into: &mut Entries) {
        each!(&mut self.0, table => table.seal(into))
    }

    /// The store has written the oldest sealed epoch.
    pub fn stored(&mut self) {
        each!(&mut self.0, table => table.stored())
    }

    /// Times below this do not matter once the watermark is stored; for [`StateStore::set_horizon`].
    pub fn horizon_ms(&self, watermark_ms: i64) -> Option<i64> {
        each!(&self.0, table => table.horizon_ms(watermark_ms))
    }

    /// Memory of the changes that are not stored yet.
    pub fn overlay_bytes(&self) -> usize {
        each!(&self.0, table => table.overlay.bytes())
    }

    /// Memory of the filter.
    pub fn filter_bytes(&self) -> usize {
        each!(&self.0, table => table.filter.bytes())
    }
}

/// A table with one rule.
struct TableOf<R: Rule> {
    rule: R,
    window: Window,
    prefix: [u8; SEEN_PREFIX_LEN],
    overlay: Overlay<R::Known>,
    filter: Filter,
    work: Work<R::Known>,
    value: Vec<u8>,
}

/// What one batch needs; kept for the next.
struct Work<K> {
    /// Upper half of the key, and which candidate: sorted.
    order: Vec<(u64, u32)>,
    /// The different keys of the batch, ascending.
    groups: Vec<Group<K>>,
    /// Groups that the overlay does not know.
    unknown: Vec<u32>,
    /// Those of them that the store is asked for, and their keys.
    asked: Vec<u32>,
    asked_keys: Vec<u8>,
}

/// All candidates of one key.
struct Group<K> {
    key: u128,
    /// Where they begin in `order`; they end where the next group begins.
    start: u32,
    known: Option<K>,
}

impl<R: Rule> TableOf<R> {
    fn new(rule: R, window: Window, prefix: [u8; SEEN_PREFIX_LEN], filter_bytes_max: usize) -> TableOf<R> {
        let work = Work { order: vec![], groups: vec![], unknown: vec![], asked: vec![], asked_keys: vec![] };
        let filter = Filter::new(prefix, filter_bytes_max);
        TableOf { rule, window, prefix, overlay: Overlay::new(R::heap_bytes), filter, work, value: Vec::new() }
    }

    fn judge(&mut self, store: &dyn StateStore, batch: &[Candidate], out: &mut Vec<Verdict>) -> Result<()> {
        out.clear();
        // The lowest watermark of the batch: what it still remembers, the filter must know.
        let Some(first) = batch.first() else { return Ok(()) };
        let horizon_ms = self.horizon_ms(first.watermark_ms).unwrap_or(i64::MIN);
        self.filter.walk(store, 2 * batch.len() + 1024, horizon_ms)?;
        self.sort(batch);
        self.look_up(store)?;

        out.resize(batch.len(), Verdict::Pass);
        let Work { order, groups, .. } = &mut self.work;
        for at in 0..groups.len() {
            let end = groups.get(at + 1).map_or(order.len(), |next| next.start as usize);
            let Group { key, start, known } = &mut groups[at];
            let mut changed = false;
            for &(_, row) in &order[*start as usize..end] {
                let outcome = self.rule.judge(known, &batch[row as usize]);
                out[row as usize] = outcome.verdict;
                changed |= outcome.changed;
            }
            if changed && let Some(known) = known.take() {
                self.overlay.set(*key, known);
            }
        }
        Ok(())
    }

    /// Brings equal keys together, in processing order, and the keys in theirs.
    fn sort(&mut self, batch: &[Candidate]) {
        let Work { order, groups, .. } = &mut self.work;
        order.clear();
        order.extend(batch.iter().enumerate().map(|(row, candidate)| ((candidate.key >> 64) as u64, row as u32)));
        order.sort_unstable();
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
        let Work { groups, unknown, asked, asked_keys, .. } = &mut self.work;
        unknown.clear();
        for (at, group) in groups.iter_mut().enumerate() {
            group.known = self.overlay.get(group.key).cloned();
            if group.known.is_none() {
                unknown.push(at as u32);
            }
        }
        asked.clear();
        asked.extend(unknown.iter().filter(|&&at| self.filter.may_hold(groups[at as usize].key)));
        if asked.is_empty() {
            return Ok(());
        }
        asked_keys.clear();
        for &at in asked.iter() {
            asked_keys.extend_from_slice(&seen_key(self.prefix, groups[at as usize].key));
        }
        let mut unreadable = None;
        store.multi_get(Table::Seen, asked_keys, SEEN_KEY_LEN, &mut |index, value| {
            let group = &mut groups[asked[index] as usize];
            group.known = R::decode(value);
            if group.known.is_none() {
                unreadable = Some((group.key, value.len()));
            }
        })?;
        unreadable.map_or(Ok(()), |(key, len)| Err(unreadable_value(key, len)))
    }

    fn seal(&mut self, into: &mut Entries) {
        let TableOf { overlay, prefix, value, .. } = self;
        overlay.seal(|key, known| {
            value.clear();
            R::encode(known, value);
            into.put(&seen_key(*prefix, key), value);
        });
    }

    fn stored(&mut self) {
        let TableOf { overlay, filter, .. } = self;
        overlay.stored(|key| filter.insert(key));
    }

    fn horizon_ms(&self, watermark_ms: i64) -> Option<i64> {
        self.window.0.map(|window_ms| watermark_ms.saturating_sub(window_ms))
    }
}

fn unreadable_value(key: u128, len: usize) -> Error {
    let message = format!(
        "the dedup state holds {len} bytes under key {key:032x} that weir did not write; \
         the state directory is damaged or belongs to a newer version"
    );
    Error::stop("corrupt", message)
}
