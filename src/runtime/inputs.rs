//! The inputs of one task: fetching, decoding, and the order between them.
//!
//! Owns positions and times of each input and hands out *passes*: rows in processing order, with the watermark of
//! each. One input without a join: a pass is what was fetched. Else a pass merges what is there, lowest event time
//! first, and its cut is written down, because it decides the interleaving. Never touches state and never commits.

mod held;
mod input;
mod merge;
mod times;

pub use input::{Feeds, InputSide, TaskInput};
pub use times::Times;

use crate::codec::decode::Decoded;
use crate::codec::record::{Record, RecordBatch};
use crate::codec::rows::{BadRow, Rows};
use crate::error::Result;
use crate::metrics::PipelineStats;
use crate::runtime::limits;
use crate::source::FetchLimit;
use crate::state::ledger::{Cuts, Moment, Progress};
use held::Chunk;
use std::sync::atomic::Ordering::Relaxed;
use times::ExactTable;

/// One pass, reused by all tasks of a worker: the memory of the hot path.
#[derive(Default)]
pub struct Pass {
    pub rows: Rows,
    /// Whose each row is; empty where the pipeline has no join: all are the source's.
    pub owners: Vec<Owner>,
    /// The task's watermark before the first row. What a change of the idle set has let it rise to is in it.
    pub watermark_before_ms: i64,
    /// One for each join with an `exact` table.
    pub table_lows: Vec<TableLow>,
    /// Payloads that could not be decoded: input, its record, why.
    pub broken: Vec<(usize, BadRow)>,
    pub tombstones: u64,
    /// Top-level fields that nothing names, of what was fetched.
    pub extra_fields: u64,
    pub records: u64,
    /// Per input: records and bytes fetched.
    pub read: Vec<(u64, u64)>,
    batch: RecordBatch,
    decoded: Decoded,
    /// Its records are not those of the queues: dead letters that are replayed.
    replayed: Option<Chunk>,
}

/// Whose a row is. One record of a topic that feeds several sides is a row of each: right sides in the order of the
/// steps, then the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Left,
    Right {
        /// Its number among the joins of the pipeline.
        join: u16,
        /// A tombstone of a table: only the key's fields are filled.
        deletes: bool,
    },
}

/// How far the table of an `exact` join has come: its highest time − `lateness`, the lowest of its inputs.
/// `i64::MIN` before its first record, `i64::MAX` while it is set aside. It may go back when the table is set aside no
/// more, but never below what the smaller of it and the task's watermark has been.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableLow {
    pub join: u16,
    /// Before the first row of the pass.
    pub before_ms: i64,
    /// Behind each row of the pass.
    pub behind_ms: Vec<i64>,
}

/// What `TaskInputs::next_pass` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The pass has records, or a position moved over markers.
    Pass,
    /// Nothing is there now.
    Nothing,
}

/// How far a pass may go.
#[derive(Clone, Copy, Debug)]
pub struct PassLimit<'a> {
    pub records: usize,
    pub bytes: usize,
    /// Per input: take nothing at or after this offset.
    pub offset_ends: Option<&'a [i64]>,
}

pub struct TaskInputs {
    inputs: Vec<TaskInput>,
    pub times: Times,
    /// Passes are merged and cut; else there is one input, and it is the source.
    is_merged: bool,
    has_joins: bool,
    exact_tables: Vec<ExactTable>,
    /// Fields per row.
    width: usize,
}

impl TaskInputs {
    /// Begins where `moment` stands; the queues must begin there too.
    pub fn new(mut inputs: Vec<TaskInput>, moment: &Moment, cap_ms: i64) -> TaskInputs {
        for (input, progress) in inputs.iter_mut().zip(&moment.inputs) {
            input.begin(*progress);
        }
        let times = Times { watermark_ms: moment.watermark_ms, idle: moment.idle, cap_ms, note_ms: moment.note_ms };
        let sides = || inputs.iter().flat_map(TaskInput::sides);
        let has_joins = sides().any(|side| side.feeds != Feeds::Left);
        let width = sides().map(|side| side.decoder.width()).max().unwrap_or(0);
        let is_merged = has_joins || inputs.len() > 1;
        let exact_tables = times::exact_tables(&inputs);
        TaskInputs { inputs, times, is_merged, has_joins, exact_tables, width }
    }

    /// Re-reading up to there takes no input's time further than it had come: the noted clock is a later one now, and a
    /// table that seems further lets rows go that still waited.
    pub fn cap_highs(&mut self, to: &Moment) {
        if to.has_times() {
            self.inputs.iter_mut().zip(&to.inputs).for_each(|(input, progress)| input.cap_high(progress.high_ms));
        }
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Whether the records of an input are rows of the source, and not of right sides alone.
    pub fn feeds_source(&self, input: usize) -> bool {
        self.inputs[input].sides().any(|side| side.feeds == Feeds::Left)
    }

    /// Whether its passes have cuts: what comes out depends on where they are.
    pub fn is_merged(&self) -> bool {
        self.is_merged
    }

    pub fn progress(&self) -> Vec<Progress> {
        self.inputs.iter().map(|input| input.progress).collect()
    }

    pub fn positions(&self) -> Vec<i64> {
        self.inputs.iter().map(|input| input.progress.position).collect()
    }

    /// Sets positions and times to what a re-read range is known to have ended with. Where no epoch ended there
    /// (somebody moved the offsets), the times that were found stand.
    pub fn set_progress(&mut self, moment: &Moment) {
        let is_known = moment.has_times();
        for (input, progress) in self.inputs.iter_mut().zip(&moment.inputs) {
            let high_ms = if is_known { progress.high_ms } else { input.progress.high_ms };
            input.progress = Progress { high_ms, ..*progress };
            input.cap_high(i64::MAX);
        }
        if is_known {
            self.times.watermark_ms = moment.watermark_ms;
        }
        self.times.idle = moment.idle;
        self.times.cap_ms = i64::MAX;
    }

    /// The last known readable end of each input; -1 before it is known.
    pub fn ends(&self) -> impl Iterator<Item = i64> + '_ {
        self.inputs.iter().map(TaskInput::end)
    }

    /// The inputs that have been at their log end for their `idle` time, one bit each. One that pushes nothing (a table
    /// without `exact`) is never set aside.
    pub fn idle_now(&self, idle_after_ms: &[u64], boot_ms: u64) -> u64 {
        let is_idle = |index: usize| {
            let input = &self.inputs[index];
            let is_long = |at_end_ms: u64| at_end_ms >= idle_after_ms[index];
            (input.counts() || input.exact_table().is_some()) && input.at_end_for_ms(boot_ms).is_some_and(is_long)
        };
        (0..self.inputs.len()).filter(|&index| is_idle(index)).fold(0, |set, index| set | 1 << index)
    }

    /// Takes the next pass. `cuts` gets this pass's cut where passes are merged.
    pub fn next_pass(&mut self, pass: &mut Pass, limit: PassLimit, boot_ms: u64, cuts: &mut Cuts) -> Result<Found> {
        pass.clear();
        match self.is_merged {
            false => self.next_of_one(pass, limit),
            true => self.next_of_many(pass, limit, boot_ms, cuts),
        }
    }

    /// Takes exactly the pass that advances each input by `advance`; `Nothing` until all of it has arrived.
    pub fn exact_pass(&mut self, pass: &mut Pass, advance: &[u64], boot_ms: u64) -> Result<Found> {
        pass.clear();
        let ends: Vec<i64> =
            self.inputs.iter().zip(advance).map(|(input, by)| input.progress.position + *by as i64).collect();
        let mut complete = true;
        for (input, end) in self.inputs.iter_mut().zip(&ends) {
            let limit = FetchLimit { records: usize::MAX, bytes: usize::MAX, offset_end: *end };
            if input.reached() < *end {
                input.fetch(pass, limit, boot_ms)?;
            }
            complete &= input.reached() >= *end;
        }
        if !complete {
            return Ok(Found::Nothing);
        }
        self.merge_exactly(pass, &ends);
        self.count_fetched(pass);
        Ok(Found::Pass)
    }

    /// A pass without a record, where time alone lets something go on.
    pub fn empty_pass(&mut self, pass: &mut Pass) {
        pass.clear();
        self.begin_pass(pass);
    }

    /// Makes a pass of one input's dead letters that are replayed. Positions, times and the watermark stay.
    pub fn replay_pass(&mut self, pass: &mut Pass, input: usize, letters: &RecordBatch) {
        pass.clear();
        self.begin_pass(pass);
        pass.batch.bytes.extend_from_slice(&letters.bytes);
        pass.batch.records.extend_from_slice(&letters.records);
        let mut chunk = Chunk::default();
        let sides = self.inputs[input].sides_mut();
        chunk.decode(sides, &mut pass.batch, &mut pass.decoded);
        while chunk.head().is_some() {
            chunk.take(sides, input, self.times.note_ms, self.has_joins, pass);
        }
        pass.rows.meta.iter_mut().for_each(|meta| meta.watermark_ms = self.times.watermark_ms);
        let rows = pass.rows.len();
        pass.table_lows.iter_mut().for_each(|low| low.behind_ms.resize(rows, low.before_ms));
        pass.replayed = Some(chunk);
    }

    /// The hot path: one input, no copies.
    fn next_of_one(&mut self, pass: &mut Pass, limit: PassLimit) -> Result<Found> {
        let offset_end = limit.offset_ends.map_or(i64::MAX, |ends| ends[0]);
        pass.watermark_before_ms = self.times.watermark_ms;
        self.inputs[0].next_pass(
            &mut self.times,
            pass,
            FetchLimit { records: limit.records, bytes: limit.bytes, offset_end },
        )
    }

    fn next_of_many(&mut self, pass: &mut Pass, limit: PassLimit, boot_ms: u64, cuts: &mut Cuts) -> Result<Found> {
        let before = self.positions();
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let offset_end = limit.offset_ends.map_or(i64::MAX, |ends| ends[index]);
            if input.holds_nothing() && input.reached() < offset_end {
                let limit = FetchLimit { records: limit.records, bytes: limit.bytes, offset_end };
                input.fetch(pass, limit, boot_ms)?;
            }
        }
        // What has not arrived cannot be waited for; what is on its way is, for a while: a partition without a leader
        // must not stop the others. (It still holds the watermark. Where the range is given, all of it is waited for.)
        let is_on_its_way = |(index, input): (usize, &TaskInput)| {
            let is_late = limit.offset_ends.is_none() && input.dry_for_ms(boot_ms) >= limits::INPUT_WAIT_MS;
            input.holds_nothing() && input.may_have_more(limit.end_of(index)) && !is_late
        };
        if !self.inputs.iter().enumerate().any(is_on_its_way) {
            self.merge(pass, limit);
        }
        let after = self.positions();
        if before == after {
            return Ok(Found::Nothing);
        }
        cuts.0.extend(before.iter().zip(&after).map(|(before, after)| (after - before) as u64));
        self.count_fetched(pass);
        Ok(Found::Pass)
    }

    /// What was fetched for this pass, and for earlier ones that did not come about.
    fn count_fetched(&mut self, pass: &mut Pass) {
        for input in &mut self.inputs {
            let fetched = input.take_fetched();
            pass.read.push((fetched.records, fetched.bytes));
            pass.extra_fields += fetched.extra_fields;
        }
    }

    /// Counts what the pass read, per topic.
    pub fn count_read(&self, pass: &Pass, stats: &PipelineStats) {
        for (topic, (records, bytes)) in stats.topics.iter().zip(&pass.read) {
            topic.records.fetch_add(*records, Relaxed);
            topic.bytes.fetch_add(*bytes, Relaxed);
        }
    }

    /// A record of this pass as it came, for its dead letter: the record and the arena its spans point into.
    pub fn raw<'a>(&'a self, pass: &'a Pass, input: usize, record: u32) -> (&'a Record, &'a [u8]) {
        match &pass.replayed {
            Some(chunk) => chunk.raw(record),
            None if self.is_merged => self.inputs[input].raw(record),
            None => (&pass.batch.records[record as usize], &pass.rows.bytes),
        }
    }
}

impl PassLimit<'_> {
    /// Where an input ends.
    fn end_of(&self, input: usize) -> i64 {
        self.offset_ends.map_or(i64::MAX, |ends| ends[input])
    }
}

impl Pass {
    fn clear(&mut self) {
        self.batch.clear();
        self.rows.clear(self.rows.width);
        self.owners.clear();
        self.watermark_before_ms = i64::MIN;
        self.table_lows.clear();
        self.broken.clear();
        self.decoded = Decoded::default();
        self.tombstones = 0;
        self.extra_fields = 0;
        self.records = 0;
        self.read.clear();
        self.replayed = None;
    }
}

#[cfg(test)]
mod tests;
