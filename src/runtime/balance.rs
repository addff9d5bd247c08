//! Where every record of a task went since its state began, and whether the sums agree.
//!
//! Owns the arithmetic of `GET …/ledger`. Records, each as often as it has sides to go to, are tombstones, broken, rows of
//! the first step, and rows of right sides. What comes into a step goes out, is dropped, or is a dead letter; a left row
//! that comes into a join is decided, a dead letter, or waits. What the last step lets out is written, in the outbox, or
//! was discarded by hand. Reads what was stored, so the numbers belong to one epoch's end.

use crate::error::Result;
use crate::metrics::{StepKind, StepName};
use crate::state::StateStore;
use crate::state::ledger::{self, Ledger, StepCounts};

/// A partition's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balance {
    pub partition: i32,
    pub records: u64,
    pub tombstones: u64,
    /// Payloads that could not be decoded (and, in a pipeline without steps, rows that did not fit the table).
    pub broken: u64,
    /// Rows of right sides, less what records that went to several sides add.
    pub aside: i64,
    /// In the written order; those of right sides behind them.
    pub steps: Vec<StepBalance>,
    /// Acknowledged rows.
    pub written: u64,
    /// Rows that are stored and not acknowledged.
    pub outbox: u64,
    /// Rows of blocks that were taken out of the outbox by hand.
    pub discarded: u64,
    /// Where sums differ: a place each.
    pub differs: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepBalance {
    pub step: StepName,
    pub rows_in: u64,
    pub rows_out: u64,
    pub dropped: u64,
    /// Of a dedup.
    pub unjudged: u64,
    /// Those of the last step include rows that did not fit the table.
    pub dead_letters: u64,
    /// Of a join.
    pub matched: u64,
    pub waiting: u64,
    /// What became of the rows that came in.
    pub accounted: u64,
}

/// The balance of a partition that runs here. `acknowledged`: its last acknowledged epoch as its task knows it;
/// `is_row`: whether a token is one of the sink's table (and not of dead letters).
pub fn of_partition(
    store: &dyn StateStore,
    partition: i32,
    steps: &[StepName],
    acknowledged: u64,
    is_row: impl Fn(&str) -> bool,
) -> Result<Option<Balance>> {
    let Some(ledger) = ledger::load(store, partition)? else { return Ok(None) };
    let discarded = ledger::discarded_rows(store, ledger.task)?;
    Ok(Some(balance(partition, &ledger, discarded, steps, acknowledged, is_row)))
}

fn balance(
    partition: i32,
    ledger: &Ledger,
    discarded: u64,
    steps: &[StepName],
    acknowledged: u64,
    is_row: impl Fn(&str) -> bool,
) -> Balance {
    let counts = &ledger.checkpoint.counts;
    let acknowledged = acknowledged.max(ledger.accepted.acknowledged.epoch.0);
    // One that was stored while this was read is behind the checkpoint.
    let last = ledger.checkpoint.moment.epoch.0;
    let waiting = ledger.epochs.iter().filter(|epoch| (acknowledged + 1..=last).contains(&epoch.after.epoch.0));
    let rows = waiting.flat_map(|epoch| &epoch.outputs).filter(|output| is_row(&output.token));
    let outbox: u64 = rows.map(|output| output.rows).sum();
    let mut steps: Vec<StepBalance> = steps.iter().zip(&counts.steps).map(step_balance).collect();
    let mut broken = counts.broken;
    match steps.iter_mut().rfind(|step| !step.is_of_right_side()) {
        Some(last) => {
            last.rows_out -= counts.unfit.min(last.rows_out);
            last.dead_letters += counts.unfit;
        }
        None => broken += counts.unfit,
    }
    let mut balance = Balance {
        partition,
        records: counts.records,
        tombstones: counts.tombstones,
        broken,
        aside: counts.right_rows as i64 - counts.again as i64,
        steps,
        written: counts.written.saturating_sub(outbox + discarded),
        outbox,
        discarded,
        differs: vec![],
    };
    balance.differs = balance.differences();
    balance
}

fn step_balance((name, step): (&StepName, &StepCounts)) -> StepBalance {
    let StepCounts { rows_in, rows_out, dropped, unjudged, dead_letters, matched, waiting, .. } = *step;
    let accounted = match name.kind {
        StepKind::Join => step.left_decided + dead_letters + waiting,
        StepKind::Filter | StepKind::Select | StepKind::Dedup => rows_out + dropped + unjudged + dead_letters,
    };
    StepBalance { step: name.clone(), rows_in, rows_out, dropped, unjudged, dead_letters, matched, waiting, accounted }
}

impl StepBalance {
    fn is_of_right_side(&self) -> bool {
        self.step.name.contains('.')
    }
}

impl Balance {
    fn differences(&self) -> Vec<String> {
        let mut differs = Vec::new();
        // What the part before lets through.
        let mut rows = self.records.wrapping_sub(self.tombstones + self.broken).wrapping_sub_signed(self.aside);
        let mut before = "records".to_owned();
        for step in &self.steps {
            let name = format!("step {}", step.step.name);
            if step.rows_in != step.accounted {
                differs.push(name.clone());
            }
            if step.is_of_right_side() {
                continue;
            }
            if step.rows_in != rows {
                differs.push(format!("{before} to {name}"));
            }
            rows = step.rows_out;
            before = name;
        }
        if rows != self.written + self.outbox + self.discarded {
            differs.push("the last step to the table".to_owned());
        }
        differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, kind: StepKind, counts: StepCounts) -> StepBalance {
        step_balance((&StepName { name: name.to_owned(), kind }, &counts))
    }

    fn counts(rows_in: u64, rows_out: u64, dropped: u64, dead_letters: u64) -> StepCounts {
        StepCounts { rows_in, rows_out, dropped, dead_letters, ..StepCounts::default() }
    }

    fn good() -> Balance {
        Balance {
            partition: 0,
            records: 100,
            tombstones: 4,
            broken: 6,
            aside: 0,
            steps: vec![
                step("0", StepKind::Filter, counts(90, 80, 9, 1)),
                step("1", StepKind::Dedup, counts(80, 60, 18, 2)),
            ],
            written: 45,
            outbox: 10,
            discarded: 5,
            differs: vec![],
        }
    }

    #[test]
    fn sums_that_agree_are_balanced() {
        assert_eq!(good().differences(), Vec::<String>::new());
        let passthrough = Balance { steps: vec![], written: 75, ..good() };
        assert_eq!(passthrough.differences(), Vec::<String>::new());
    }

    #[test]
    fn a_join_is_balanced_by_its_left_rows() {
        let join = StepCounts {
            rows_out: 60,
            matched: 55,
            unmatched: 5,
            left_decided: 30,
            waiting: 8,
            ..counts(40, 60, 0, 2)
        };
        // 100 records, 50 of them of the right side, of which 3 are filtered.
        let joined = Balance {
            aside: 50,
            steps: vec![step("0", StepKind::Join, join), step("0.0", StepKind::Filter, counts(50, 47, 3, 0))],
            ..good()
        };
        assert_eq!(joined.differences(), Vec::<String>::new());
        let lost = StepCounts { left_decided: 29, ..join };
        let steps = vec![step("0", StepKind::Join, lost), joined.steps[1].clone()];
        assert_eq!(Balance { steps, ..joined }.differences(), ["step 0"]);
    }

    #[test]
    fn a_row_that_is_missing_anywhere_is_named_by_its_place() {
        let differs = |change: fn(&mut Balance)| {
            let mut balance = good();
            change(&mut balance);
            balance.differences()
        };
        assert_eq!(differs(|balance| balance.broken = 5), ["records to step 0"]);
        assert_eq!(differs(|balance| balance.steps[0].accounted = 89), ["step 0"]);
        assert_eq!(differs(|balance| balance.steps[0].rows_out = 79), ["step 0 to step 1"]);
        assert_eq!(differs(|balance| balance.written = 49), ["the last step to the table"]);
    }
}
