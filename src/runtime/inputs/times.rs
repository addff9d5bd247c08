//! The times of a task: what pushes its watermark, what holds it, and how far `exact` tables have come.
//!
//! Promises: the watermark never goes back; with the same highs, idle set and noted clock it is the same on every
//! instance. Reads no clock.

use super::{Feeds, Pass, TableLow, TaskInput, TaskInputs};
use crate::codec::rows::RowMeta;

/// What pushes the watermark and what holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    pub watermark_ms: i64,
    /// Inputs set aside, one bit each.
    pub idle: u64,
    /// It never rises above this (re-reading state-only); `i64::MAX` otherwise.
    pub cap_ms: i64,
    /// The epoch's noted wall clock.
    pub note_ms: i64,
}

/// A join that waits for its table, and the inputs of that, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExactTable {
    join: u16,
    inputs: u64,
}

/// The `exact` tables that these inputs feed, in the order of their joins.
pub(super) fn exact_tables(inputs: &[TaskInput]) -> Vec<ExactTable> {
    let mut tables: Vec<ExactTable> = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let exact = input.sides().filter_map(|side| match side.feeds {
            Feeds::Table { join, exact: true } => Some(join),
            _ => None,
        });
        for join in exact {
            match tables.iter_mut().find(|table| table.join == join) {
                Some(table) => table.inputs |= 1 << index,
                None => tables.push(ExactTable { join, inputs: 1 << index }),
            }
        }
    }
    tables.sort_by_key(|table| table.join);
    tables
}

impl Times {
    /// A record pushes the watermark no further than its own Kafka timestamp and the noted wall clock.
    #[inline]
    pub(super) fn pushes_to(&self, meta: &RowMeta) -> i64 {
        let known = if meta.timestamp_ms >= 0 { meta.timestamp_ms.min(self.note_ms) } else { self.note_ms };
        meta.time_ms.min(known)
    }

    #[inline]
    pub(super) fn rise_to(&mut self, low_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(low_ms.min(self.cap_ms));
    }
}

impl TaskInputs {
    /// An epoch begins: its noted clock, and who is set aside from its start on, which raises the watermark before the
    /// first row. True when it has risen, or what a join takes for it: then rows that wait may go although no record
    /// came. Who finds that there is no epoch to be made sets `times` back.
    pub fn begin_epoch(&mut self, idle: u64, note_ms: i64) -> bool {
        self.times.note_ms = note_ms;
        if !self.is_merged {
            self.times.idle = idle;
            return false;
        }
        let before = self.clocks();
        (0..self.inputs.len()).filter(|index| idle & 1 << index == 0).for_each(|index| self.leave_idle(index));
        self.times.idle = idle;
        self.raise();
        self.clocks().any_above(&before)
    }

    /// The watermark, and that of each join with an `exact` table.
    fn clocks(&self) -> Clocks {
        let of_table = |table: &ExactTable| self.times.watermark_ms.min(self.low_of(table));
        Clocks(std::iter::once(self.times.watermark_ms).chain(self.exact_tables.iter().map(of_table)).collect())
    }

    /// Lets the watermark rise to the lowest of the active inputs that count. With none it stands still.
    #[inline]
    pub(super) fn raise(&mut self) {
        let low = self.lowest(|index, input| input.counts() && self.times.idle & 1 << index == 0);
        self.times.rise_to(low.unwrap_or(i64::MIN));
    }

    fn low_of(&self, table: &ExactTable) -> i64 {
        self.lowest(|index, _| table.inputs & !self.times.idle & 1 << index != 0).unwrap_or(i64::MAX)
    }

    #[inline]
    fn lowest(&self, picks: impl Fn(usize, &TaskInput) -> bool) -> Option<i64> {
        let picked = self.inputs.iter().enumerate().filter(|(index, input)| picks(*index, input));
        picked.map(|(_, input)| input.low_ms()).min()
    }

    /// An input that was set aside is so no more: it has a record again. For its table's join the watermark was that of the others
    /// meanwhile, and does not go back: the table counts as having come that far.
    #[inline]
    pub(super) fn leave_idle(&mut self, index: usize) {
        if self.times.idle & 1 << index == 0 {
            return;
        }
        let of_input = self.exact_tables.iter().find(|table| table.inputs & 1 << index != 0);
        let reached_ms = of_input.map(|table| self.times.watermark_ms.min(self.low_of(table)));
        self.times.idle &= !(1 << index);
        if let Some(reached_ms) = reached_ms.filter(|ms| *ms != i64::MIN) {
            self.inputs[index].lift_to(reached_ms);
        }
    }

    /// What a pass says about the times before its first row.
    pub(super) fn begin_pass(&self, pass: &mut Pass) {
        pass.rows.clear(self.width);
        pass.watermark_before_ms = self.times.watermark_ms;
        let low = |table: &ExactTable| TableLow { join: table.join, before_ms: self.low_of(table), behind_ms: vec![] };
        pass.table_lows.extend(self.exact_tables.iter().map(low));
    }

    /// Writes the times behind a record to its rows.
    #[inline]
    pub(super) fn stamp(&self, first_row: usize, pass: &mut Pass) {
        let rows = pass.rows.len();
        pass.rows.meta[first_row..].iter_mut().for_each(|meta| meta.watermark_ms = self.times.watermark_ms);
        for (low, table) in pass.table_lows.iter_mut().zip(&self.exact_tables) {
            low.behind_ms.resize(rows, self.low_of(table));
        }
    }
}

/// Watermarks that are compared one by one.
struct Clocks(Vec<i64>);

impl Clocks {
    fn any_above(&self, before: &Clocks) -> bool {
        self.0.iter().zip(&before.0).any(|(now, before)| now > before)
    }
}
