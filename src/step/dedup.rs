//! The dedup step: of records with one key, the first in its window stays.
//!
//! Owns what happens to rows without a key and to late ones, and counts. Which keys were seen is `state/seen.rs`.
//! Never sees Kafka, a thread or a clock.

mod sample;

use crate::codec::key::{Key, KeyHasher};
use crate::codec::rows::{BadRow, Rows};
use crate::config::plan::{DedupPlan, Keep, Late, MissingKey};
use crate::error::Result;
use crate::state::seen::{Candidate, Mark, Memory, Seen, SeenOptions, Verdict};
use crate::state::{StateStore, WriteBatch};
use crate::types::TaskNo;
use sample::KeySample;

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
    key: KeyHasher,
    /// The compared fields of `keep: changes`.
    content: Option<KeyHasher>,
    missing_key: MissingKey,
    late: Late,
    /// The key as it is written in the file.
    key_text: String,
    seen: Seen,
    counts: DedupCounts,
    sample: KeySample,
    batch: Batch,
}

/// Where a batch stands; the memory is kept for the next.
#[derive(Default)]
struct Batch {
    candidates: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    /// What happens to each row of `alive`.
    fates: Vec<Fate>,
    /// Rows whose key is missing or cannot be read.
    bad: Vec<BadRow>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The next verdict decides.
    Judged,
    Stays,
    Dropped,
    Bad,
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
        key: KeyHasher,
        content: Option<KeyHasher>,
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
            sample: KeySample::new(),
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
        self.prepare(rows, alive);
        let Batch { candidates, verdicts, .. } = &mut self.batch;
        self.seen.judge(store, candidates, verdicts)?;
        self.decide(rows, alive, bad);
        Ok(())
    }

    /// Hashes the keys and settles the rows that have none.
    fn prepare(&mut self, rows: &Rows, alive: &[u32]) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.candidates.clear();
        batch.fates.clear();
        batch.bad.clear();
        for &row in alive {
            let hashed = self.key.hash(rows, row).and_then(|key| match key {
                Key::Hash(key) => Ok(Some((key, self.content_of(rows, row)?))),
                Key::Missing => Ok(None),
            });
            let fate = match hashed {
                Ok(Some((key, content))) => {
                    let meta = &rows.meta[row as usize];
                    let (time_ms, watermark_ms) = (meta.time_ms, meta.watermark_ms);
                    self.sample.meet(key);
                    batch.candidates.push(Candidate { key, time_ms, watermark_ms, content });
                    Fate::Judged
                }
                Ok(None) if self.missing_key == MissingKey::Pass => Fate::Stays,
                Ok(None) if self.missing_key == MissingKey::Drop => Fate::Dropped,
                Ok(None) => {
                    batch.bad.push(missing_key(row, &self.key_text));
                    Fate::Bad
                }
                Err(row) => {
                    batch.bad.push(row);
                    Fate::Bad
                }
            };
            batch.fates.push(fate);
        }
        self.batch = batch;
    }

    /// The hash of the compared fields; null is a value there like any other.
    fn content_of(&self, rows: &Rows, row: u32) -> Result<u128, BadRow> {
        self.content.as_ref().map_or(Ok(0), |content| content.hash_values(rows, row))
    }

    /// Carries the verdicts out, in processing order.
    fn decide(&mut self, rows: &Rows, alive: &mut Vec<u32>, bad: &mut Vec<BadRow>) {
        let Dedup { batch, counts, late, .. } = self;
        let mut verdicts = batch.verdicts.iter();
        let mut fates = batch.fates.iter();
        let mut keyless = batch.bad.drain(..);
        alive.retain(|&row| {
            let fate = match fates.next().expect("every row has a fate") {
                Fate::Judged => match verdicts.next().expect("every candidate has a verdict") {
                    Verdict::Pass => Fate::Stays,
                    Verdict::Duplicate => {
                        counts.duplicates += 1;
                        return false;
                    }
                    Verdict::Late => {
                        counts.late += 1;
                        late_fate(*late, rows, row, bad)
                    }
                },
                Fate::Bad => {
                    bad.extend(keyless.next());
                    Fate::Bad
                }
                fate => *fate,
            };
            counts.passed += (fate == Fate::Stays) as u64;
            counts.dropped += (fate == Fate::Dropped) as u64;
            fate == Fate::Stays
        });
    }

    /// The counts since the task began.
    pub fn counts(&self) -> DedupCounts {
        self.counts
    }

    /// A sample of the keys met since the last call, by the upper half of their hashes.
    pub fn take_sample(&mut self) -> Vec<u64> {
        self.sample.take()
    }

    /// The table behind the step: horizon and memory.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub fn mark(&mut self) -> DedupMark {
        DedupMark { seen: self.seen.mark(), counts: self.counts }
    }

    /// Forgets the rows since the mark; marks lie one inside the other.
    pub fn rollback(&mut self, mark: DedupMark) {
        self.seen.rollback(mark.seen);
        self.counts = mark.counts;
    }

    /// Nobody goes back any more.
    pub fn forget_marks(&mut self) {
        self.seen.forget_marks();
    }

    /// Ends the epoch: its changes go into the write that also stores this watermark.
    pub fn seal(&mut self, store: &dyn StateStore, watermark_ms: i64, batch: &mut WriteBatch) -> Result<()> {
        self.seen.seal(store, watermark_ms, batch)
    }

    /// The oldest sealed epoch is stored.
    pub fn stored(&mut self) {
        self.seen.stored();
    }
}

fn late_fate(late: Late, rows: &Rows, row: u32, bad: &mut Vec<BadRow>) -> Fate {
    match late {
        Late::Pass => Fate::Stays,
        Late::Drop => Fate::Dropped,
        Late::DeadLetter => {
            let meta = &rows.meta[row as usize];
            let message = format!(
                "the record's time {} ms plus the dedup window lies before the watermark {} ms: \
                 it is too late to be judged",
                meta.time_ms, meta.watermark_ms
            );
            bad.push(BadRow { row, reason: "late", message });
            Fate::Bad
        }
    }
}

fn missing_key(row: u32, key_text: &str) -> BadRow {
    let message = format!("the dedup key `{key_text}` is absent or null; missing_key: pass or drop lets it be");
    BadRow { row, reason: "missing_key", message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::key::KeyPart;
    use crate::codec::rows::{Field, RowMeta, Slot};
    use crate::config::plan::{FieldPath, KeyPlan};
    use crate::error::Place;
    use crate::state::memory::MemoryStore;

    const KEY: Slot = Slot(0);
    const CONTENT: Slot = Slot(1);

    fn plan(keep: Keep, missing_key: MissingKey, late: Late) -> DedupPlan {
        let path = FieldPath { text: "session_id".into(), at: Place::default() };
        DedupPlan {
            at: Place::default(),
            key: vec![KeyPlan { path, cast: None }],
            window_ms: Some(10),
            keep,
            renew: false,
            missing_key,
            late,
        }
    }

    fn of(slot: Slot) -> KeyHasher {
        KeyHasher::new([7; 16], vec![KeyPart { slot, cast: None, path: "session_id".into() }])
    }

    fn step(plan: DedupPlan) -> Dedup {
        let content = matches!(plan.keep, Keep::Changes(_)).then(|| of(CONTENT));
        Dedup::new(&plan, TaskNo(1), 0, of(KEY), content, 1 << 20)
    }

    /// Rows of (key, content, time); the watermark follows the highest time.
    fn rows(of: &[(Option<i64>, i64, i64)]) -> Rows {
        let mut rows = Rows { width: 2, ..Rows::default() };
        let mut watermark_ms = i64::MIN;
        for &(key, content, time_ms) in of {
            watermark_ms = watermark_ms.max(time_ms);
            rows.fields.extend([key.map_or(Field::NULL, Field::int), Field::int(content)]);
            rows.meta.push(RowMeta { time_ms, watermark_ms, ..RowMeta::default() });
        }
        rows
    }

    fn apply(step: &mut Dedup, rows: &mut Rows) -> (Vec<u32>, Vec<BadRow>) {
        let (mut alive, mut bad) = ((0..rows.len() as u32).collect(), Vec::new());
        step.apply(&MemoryStore::new(), rows, &mut alive, &mut bad).unwrap();
        (alive, bad)
    }

    fn reasons(bad: &[BadRow]) -> Vec<(u32, &'static str)> {
        bad.iter().map(|bad| (bad.row, bad.reason)).collect()
    }

    #[test]
    fn duplicates_leave_and_the_rest_keeps_its_order() {
        let mut step = step(plan(Keep::First, MissingKey::DeadLetter, Late::Pass));
        let (alive, bad) =
            apply(&mut step, &mut rows(&[(Some(9), 0, 0), (Some(1), 0, 1), (Some(9), 0, 2), (Some(2), 0, 3)]));
        assert_eq!((alive, bad), (vec![0, 1, 3], vec![]));
        assert_eq!(step.counts(), DedupCounts { passed: 3, duplicates: 1, late: 0, dropped: 0 });
    }

    #[test]
    fn a_missing_key_is_what_the_plan_says() {
        let input = [(None, 0, 0), (Some(1), 0, 1), (None, 0, 2)];
        let mut dead = step(plan(Keep::First, MissingKey::DeadLetter, Late::Pass));
        let (alive, bad) = apply(&mut dead, &mut rows(&input));
        assert_eq!((alive, reasons(&bad)), (vec![1], vec![(0, "missing_key"), (2, "missing_key")]));
        assert!(bad[0].message.contains("`session_id`"));

        let mut pass = step(plan(Keep::First, MissingKey::Pass, Late::Pass));
        assert_eq!(apply(&mut pass, &mut rows(&input)).0, vec![0, 1, 2]);

        let mut drop = step(plan(Keep::First, MissingKey::Drop, Late::Pass));
        assert_eq!(apply(&mut drop, &mut rows(&input)).0, vec![1]);
        assert_eq!(drop.counts(), DedupCounts { passed: 1, duplicates: 0, late: 0, dropped: 2 });
    }

    #[test]
    fn a_late_row_is_what_the_plan_says_and_is_counted() {
        let input = [(Some(1), 0, 100), (Some(1), 0, 89), (Some(2), 0, 90)];
        let late = |late| {
            let mut step = step(plan(Keep::First, MissingKey::DeadLetter, late));
            let (alive, bad) = apply(&mut step, &mut rows(&input));
            (alive, reasons(&bad), step.counts())
        };
        let counts = DedupCounts { passed: 2, duplicates: 0, late: 1, dropped: 0 };
        assert_eq!(late(Late::Pass), (vec![0, 1, 2], vec![], DedupCounts { passed: 3, ..counts }));
        assert_eq!(late(Late::Drop), (vec![0, 2], vec![], DedupCounts { dropped: 1, ..counts }));
        assert_eq!(late(Late::DeadLetter), (vec![0, 2], vec![(1, "late")], counts));
    }

    #[test]
    fn bad_rows_stand_in_processing_order() {
        let mut step = step(plan(Keep::First, MissingKey::DeadLetter, Late::DeadLetter));
        let input = [(Some(1), 0, 100), (Some(1), 0, 5), (None, 0, 100), (Some(1), 0, 6), (None, 0, 100)];
        let (_, bad) = apply(&mut step, &mut rows(&input));
        assert_eq!(reasons(&bad), [(1, "late"), (2, "missing_key"), (3, "late"), (4, "missing_key")]);
    }

    #[test]
    fn only_changes_pass_where_changes_are_kept() {
        let mut step = step(plan(Keep::Changes(vec![]), MissingKey::DeadLetter, Late::Pass));
        let input = [(Some(1), 7, 0), (Some(1), 7, 1), (Some(1), 8, 2), (Some(1), 7, 3)];
        assert_eq!(apply(&mut step, &mut rows(&input)).0, vec![0, 2, 3]);
    }

    #[test]
    fn a_late_row_of_a_key_that_is_forgotten_or_was_never_seen_is_what_the_plan_says_whatever_is_kept() {
        // At the watermark 110 the key 1 of 100 is forgotten; 2 was never seen; 3 is remembered.
        let input = [(Some(1), 0, 100), (Some(3), 0, 110), (Some(1), 1, 99), (Some(2), 0, 99), (Some(3), 1, 99)];
        for keep in [Keep::Latest, Keep::Changes(vec![])] {
            // Older than the last one, or another one.
            let of_remembered = if keep == Keep::Latest { vec![] } else { vec![4] };
            let late = |late| {
                let mut step = step(plan(keep.clone(), MissingKey::DeadLetter, late));
                let (alive, bad) = apply(&mut step, &mut rows(&input));
                assert_eq!(step.counts().late, 2);
                (alive, reasons(&bad))
            };
            let with = |rows: &[u32]| [rows, &of_remembered].concat();
            assert_eq!(late(Late::Pass), (with(&[0, 1, 2, 3]), vec![]));
            assert_eq!(late(Late::Drop), (with(&[0, 1]), vec![]));
            assert_eq!(late(Late::DeadLetter), (with(&[0, 1]), vec![(2, "late"), (3, "late")]));
        }
    }

    #[test]
    fn a_batch_taken_back_leaves_no_key_and_no_count() {
        let mut step = step(plan(Keep::First, MissingKey::DeadLetter, Late::Pass));
        let mark = step.mark();
        apply(&mut step, &mut rows(&[(Some(1), 0, 0), (Some(2), 0, 1)]));
        step.rollback(mark);
        assert_eq!(step.counts(), DedupCounts::default());
        assert_eq!(apply(&mut step, &mut rows(&[(Some(1), 0, 0)])).0, vec![0]);
    }
}
