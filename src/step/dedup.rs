//! The dedup step: of records with one key, the first in its window stays.
//!
//! Owns what happens to rows without a key and to late ones, and counts. Which keys were seen is `state/seen.rs`.
//! Never sees Kafka, a thread or a clock.

use crate::codec::rows::{BadRow, Rows};
use crate::config::plan::{DedupPlan, Keep, Late, MissingKey};
use crate::error::Result;
use crate::state::seen::{Candidate, Mark, Memory, Seen, SeenOptions, Verdict};
use crate::state::{Entries, StateStore};
use crate::types::TaskNo;

/// The hash of some fields of a row; `None` where all of them are null.
pub type HashOf = Box<dyn Fn(&Rows, u32) -> Result<Option<u128>, BadRow> + Send>;

/// What became of the rows. Every row that came in is passed, a duplicate, dropped or bad; a late one is counted
/// besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DedupCounts {
    pub passed: u64,
    pub duplicates: u64,
    pub late: u64,
    /// Without a key or late, where the plan says so.
    pub dropped: u64,
}

/// One dedup step of one task.
pub struct Dedup {
    key: HashOf,
    /// The compared fields of `keep: changes`.
    content: Option<HashOf>,
    missing_key: MissingKey,
    late: Late,
    /// The key as it is written in the file.
    key_text: String,
    seen: Seen,
    counts: DedupCounts,
    batch: Batch,
}

/// Where a batch stands; the memory is kept for the next.
#[derive(Default)]
struct Batch {
    candidates: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    /// What happens to each row of `alive`.
    fates: Vec<Fate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The next verdict decides.
    Judged,
    Stays,
    Gone,
}

/// A moment to which a step can go back, until the next `mark`, `seal` or `stored`.
#[derive(Clone, Copy, Debug)]
pub struct DedupMark {
    seen: Mark,
    counts: DedupCounts,
}

impl Dedup {
    /// The step at place `step` of the plan. `content` hashes the fields of `keep: changes`.
    pub fn new(
        plan: &DedupPlan,
        task: TaskNo,
        step: u16,
        key: HashOf,
        content: Option<HashOf>,
        filter_bytes_max: usize,
    ) -> Dedup {
        let memory = match plan.keep {
            Keep::First => Memory::First { renew: plan.renew },
            Keep::Latest => Memory::Latest,
            Keep::Changes(_) => Memory::Changes,
        };
        let options = SeenOptions { memory, window_ms: plan.window_ms, filter_bytes_max };
        let paths: Vec<&str> = plan.key.iter().map(|key| key.path.text.as_str()).collect();
        Dedup {
            key,
            content,
            missing_key: plan.missing_key,
            late: plan.late,
            key_text: paths.join(", "),
            seen: Seen::new(task, step, options),
            counts: DedupCounts::default(),
            batch: Batch::default(),
        }
    }

    /// Takes duplicates out of `alive` and puts rows that cannot be judged into `bad`, both in processing order.
    /// After an error nothing has changed.
    pub fn apply(
        &mut self,
        store: &dyn StateStore,
        rows: &mut Rows,
        alive: &mut Vec<u32>,
        bad: &mut Vec<BadRow>,
    ) -> Result<()> {
        let (counts, bad_before) = (self.counts, bad.len());
        self.prepare(rows, alive, bad);
        let Batch { candidates, verdicts, .. } = &mut self.batch;
        if let Err(error) = self.seen.judge(store, candidates, verdicts) {
            self.counts = counts;
            bad.truncate(bad_before);
            return Err(error);
        }
        self.decide(rows, alive, bad);
        // Rows without a key went in before late ones did.
        bad[bad_before..].sort_by_key(|row| alive_order(row.row));
        Ok(())
    }

    /// The counts since the task began.
    pub fn counts(&self) -> DedupCounts {
        self.counts
    }

    /// The table behind the step: horizon and memory.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub fn mark(&mut self) -> DedupMark {
        DedupMark { seen: self.seen.mark(), counts: self.counts }
    }

    /// Forgets the rows since the mark, which must be the latest one.
    pub fn rollback(&mut self, mark: DedupMark) {
        self.seen.rollback(mark.seen);
        self.counts = mark.counts;
    }

    /// Ends the epoch: its changes go into the write.
    pub fn seal(&mut self, into: &mut Entries) {
        self.seen.seal(into);
    }

    /// The oldest sealed epoch is stored.
    pub fn stored(&mut self) {
        self.seen.stored();
    }
}
