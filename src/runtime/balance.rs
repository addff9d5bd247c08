//! Where every record of a task went since its state began, and whether the sums agree.
//!
//! Owns the arithmetic of `GET …/ledger`: records = tombstones + broken + rows of the first step; each step's rows in =
//! out + dropped + dead letters; what the last step lets out is written, in the outbox, or was discarded by hand. Reads
//! what was stored, so the numbers belong to one epoch's end.

use crate::error::Result;
use crate::metrics::StepKind;
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepBalance {
    pub kind: StepKind,
    pub rows_in: u64,
    pub rows_out: u64,
    pub dropped: u64,
    /// Those of the last step include rows that did not fit the table.
    pub dead_letters: u64,
}

/// The balance of a partition that runs here. `acknowledged`: its last acknowledged epoch as its task knows it;
/// `is_row`: whether a token is one of the sink's table (and not of dead letters).
pub fn of_partition(
    store: &dyn StateStore,
    partition: i32,
    kinds: &[StepKind],
    acknowledged: u64,
    is_row: impl Fn(&str) -> bool,
) -> Result<Option<Balance>> {
    let Some(ledger) = ledger::load(store, partition)? else { return Ok(None) };
    let discarded = ledger::discarded_rows(store, ledger.task)?;
    Ok(Some(balance(partition, &ledger, discarded, kinds, acknowledged, is_row)))
}

fn balance(
    partition: i32,
    ledger: &Ledger,
    discarded: u64,
    kinds: &[StepKind],
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
    let step = |(kind, step): (&StepKind, &StepCounts)| StepBalance {
        kind: *kind,
        rows_in: step.rows_in,
        rows_out: step.rows_out,
        dropped: step.dropped,
        dead_letters: step.dead_letters,
    };
    let mut steps: Vec<StepBalance> = kinds.iter().zip(&counts.steps).map(step).collect();
    let mut broken = counts.broken;
    match steps.last_mut() {
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
        steps,
        written: counts.written.saturating_sub(outbox + discarded),
        outbox,
        discarded,
        differs: vec![],
    };
    balance.differs = balance.differences();
    balance
}

impl Balance {
    fn differences(&self) -> Vec<String> {
        let mut differs = Vec::new();
        // What the part before lets through.
        let mut rows = self.records.wrapping_sub(self.tombstones + self.broken);
        for (place, step) in self.steps.iter().enumerate() {
            let before = if place == 0 { "records".to_owned() } else { format!("step {}", place - 1) };
            if step.rows_in != rows {
                differs.push(format!("{before} to step {place}"));
            }
            if step.rows_in != step.rows_out + step.dropped + step.dead_letters {
                differs.push(format!("step {place}"));
            }
            rows = step.rows_out;
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

    fn step(kind: StepKind, rows_in: u64, rows_out: u64, dropped: u64, dead_letters: u64) -> StepBalance {
        StepBalance { kind, rows_in, rows_out, dropped, dead_letters }
    }

    fn good() -> Balance {
        Balance {
            partition: 0,
            records: 100,
            tombstones: 4,
            broken: 6,
            steps: vec![step(StepKind::Filter, 90, 80, 9, 1), step(StepKind::Dedup, 80, 60, 18, 2)],
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
    fn a_row_that_is_missing_anywhere_is_named_by_its_place() {
        let differs = |change: fn(&mut Balance)| {
            let mut balance = good();
            change(&mut balance);
            balance.differences()
        };
        assert_eq!(differs(|balance| balance.broken = 5), ["records to step 0"]);
        assert_eq!(differs(|balance| balance.steps[0].dropped = 8), ["step 0"]);
        assert_eq!(differs(|balance| balance.steps[0].rows_out = 79), ["step 0", "step 0 to step 1"]);
        assert_eq!(differs(|balance| balance.written = 49), ["the last step to the table"]);
    }
}
