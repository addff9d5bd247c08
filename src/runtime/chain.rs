//! The steps of one task and its block builders: what happens to a pass between decoding and the sealed epoch.
//!
//! Owns the steps in their written order, the builder of the sink and the dead letters of the open epoch. Promises:
//! a pass is all in or its dead letters are named, and a row that becomes a dead letter behind a step with state
//! gives its key back, as if the records had come one by one. Never sees Kafka, ClickHouse, threads or clocks.

use crate::codec::record::Record;
use crate::codec::rows::{BadRow, Rows};
use crate::error::Result;
use crate::metrics::PipelineStats;
use crate::runtime::commit::History;
use crate::runtime::inputs::{Pass, TaskInputs};
use crate::runtime::letters::EpochLetters;
use crate::sink::{Block, BlockBuilder, BuilderMark};
use crate::state::ledger::{Counts, OutputRecord, StepCounts};
use crate::state::{StateStore, WriteBatch};
use crate::step::dedup::{Dedup, DedupMark};
use crate::step::filter::Filter;
use crate::step::select::Select;
use crate::types::{Epoch, TaskNo};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One compiled step.
pub enum Step {
    Filter(Filter),
    Select(Select),
    Dedup(Box<Dedup>),
}

/// What becomes of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Rows, dead letters and counters count.
    Deliver,
    /// Only state changes count (re-reading).
    StateOnly,
    /// As `Deliver`, past the steps that remember: dead letters that are replayed.
    Replay,
}

/// Where an epoch is sealed: everything a token names.
pub struct SealAt<'a> {
    pub history: &'a History,
    pub partition: i32,
    pub epoch: Epoch,
    pub note_ms: i64,
}

pub struct Chain {
    /// The number under which the steps keep their state.
    task: TaskNo,
    steps: Vec<Step>,
    builder: Box<dyn BlockBuilder>,
    /// `<database>/<table>` of the sink, percent-escaped, as the token names it.
    target: String,
    letters: EpochLetters,
    mode: Mode,
    counts: Counts,
    stats: Arc<PipelineStats>,
    /// The first step whose state a later dead letter has to give back.
    first_with_state: Option<usize>,
    alive: Vec<u32>,
    bad: Vec<BadRow>,
}

/// Everything of a chain that a redo goes back to.
struct ChainMark {
    builder: BuilderMark,
    dedups: Vec<DedupMark>,
}

/// A row that became a dead letter in this run, and where.
struct Fallen {
    place: Place,
    bad: BadRow,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Step(usize),
    Sink,
}

impl Chain {
    pub fn new(
        task: TaskNo,
        steps: Vec<Step>,
        builder: Box<dyn BlockBuilder>,
        target: String,
        letters: EpochLetters,
        counts: Option<Counts>,
        stats: Arc<PipelineStats>,
    ) -> Chain {
        let mut counts = counts.unwrap_or_default();
        counts.steps.resize(steps.len(), StepCounts::default());
        let first_with_state = steps.iter().position(|step| matches!(step, Step::Dedup(_)));
        Chain {
            task,
            steps,
            builder,
            target,
            letters,
            mode: Mode::Deliver,
            counts,
            stats,
            first_with_state,
            alive: vec![],
            bad: vec![],
        }
    }

    /// Whether a block holds rows of the sink (and not dead letters).
    pub fn is_of_rows(&self, output: &OutputRecord) -> bool {
        output.token.ends_with(&format!("/{}", self.target))
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn block_rows(&self) -> u64 {
        self.builder.rows()
    }

    pub fn block_bytes(&self) -> usize {
        self.builder.bytes()
    }

    /// State changes of the open epoch, which wait in memory for its store.
    pub fn state_bytes(&self) -> usize {
        self.dedups().map(|dedup| dedup.seen().overlay_bytes()).sum()
    }

    /// Per step: about how many keys it remembers.
    pub fn state_keys(&self) -> Vec<u64> {
        let keys = |step: &Step| match step {
            Step::Dedup(dedup) => dedup.seen().keys_estimate(),
            Step::Filter(_) | Step::Select(_) => 0,
        };
        self.steps.iter().map(keys).collect()
    }

    pub fn letter_bytes(&self) -> usize {
        self.letters.bytes()
    }

    /// The dead letters of the open epoch, and the store behind them.
    pub fn letters(&mut self) -> &mut EpochLetters {
        &mut self.letters
    }

    fn dedups(&self) -> impl Iterator<Item = &Dedup> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dedup(dedup) => Some(&**dedup),
            _ => None,
        })
    }

    fn dedups_mut(&mut self) -> impl Iterator<Item = &mut Dedup> {
        self.steps.iter_mut().filter_map(|step| match step {
            Step::Dedup(dedup) => Some(&mut **dedup),
            _ => None,
        })
    }

    /// Runs a pass through the steps into the builder.
    pub fn process(&mut self, pass: &mut Pass, inputs: &TaskInputs, store: &dyn StateStore, mode: Mode) -> Result<()> {
        self.mode = mode;
        let before = (mode == Mode::StateOnly).then(|| self.builder.mark());
        let broken = std::mem::take(&mut pass.broken);
        self.count_pass(pass, inputs, &broken);
        let mut at = 0;
        let rows = pass.rows.len();
        let mut size = rows;
        while at < rows {
            let end = rows.min(at + size);
            size = match self.run_or_redo(pass, inputs, store, at, end)? {
                Redone::Whole => {
                    let done = end - at;
                    at = end;
                    (done * 2).max(1)
                }
                Redone::UpTo(first) => {
                    at = first;
                    1
                }
            };
        }
        if let Some(before) = before {
            self.builder.rollback(before);
        }
        pass.broken = broken;
        Ok(())
    }

    /// Whether rows wait in a join.
    pub fn waits(&self) -> bool {
        false
    }

    /// Lets out all that waits in joins, as if the watermark had reached the end of time; the rest of what they keep
    /// stays. `pass` is an empty one.
    pub fn close_windows(&mut self, _: &mut Pass, _: &TaskInputs, _: &dyn StateStore, _: Mode) -> Result<()> {
        Ok(())
    }

    /// Writes down what could not be decoded, and counts the pass.
    fn count_pass(&mut self, pass: &Pass, inputs: &TaskInputs, broken: &[(usize, BadRow)]) {
        if self.mode == Mode::StateOnly {
            return;
        }
        for (input, bad) in broken {
            let (record, arena) = inputs.raw(pass, *input, bad.row);
            self.add_letter(*input, record, arena, "source", bad);
        }
        self.counts.records += pass.records;
        self.counts.tombstones += pass.tombstones;
        self.counts.broken += broken.len() as u64;
        inputs.count_read(pass, &self.stats);
        self.stats.tombstones.fetch_add(pass.tombstones, Relaxed);
        self.stats.extra_fields.fetch_add(pass.extra_fields, Relaxed);
    }

    fn add_letter(&mut self, input: usize, record: &Record, arena: &[u8], step: &str, bad: &BadRow) {
        self.letters.add(input, record, arena, step, bad);
        self.stats.dead_letter(step, bad.reason, 1);
    }

    /// Runs rows `at .. end`. If one falls behind a step with state, what was done is taken back, the rows before
    /// the first fallen one are run again (they are decided as before), and the caller goes on behind it.
    fn run_or_redo(
        &mut self,
        pass: &mut Pass,
        inputs: &TaskInputs,
        store: &dyn StateStore,
        at: usize,
        end: usize,
    ) -> Result<Redone> {
        let mark = self.mark();
        let (fallen, counts) = self.run(&mut pass.rows, store, at, end)?;
        let gives_back = |fallen: &&Fallen| match (fallen.place, self.first_with_state) {
            (_, None) => fallen.place == Place::Sink,
            (Place::Sink, Some(_)) => true,
            (Place::Step(step), Some(first)) => step > first,
        };
        let Some(first) = fallen.iter().filter(gives_back).map(|fallen| fallen.bad.row as usize).min() else {
            self.settle(pass, inputs, &fallen, counts);
            return Ok(Redone::Whole);
        };
        self.rollback(mark);
        if first > at {
            return Ok(match self.run_or_redo(pass, inputs, store, at, first)? {
                Redone::Whole => Redone::UpTo(first),
                shorter => shorter,
            });
        }
        // The first row itself: alone it falls again, and takes its traces with it.
        let mark = self.mark();
        let (fallen, counts) = self.run(&mut pass.rows, store, at, at + 1)?;
        self.rollback(mark);
        self.settle(pass, inputs, &fallen, counts);
        Ok(Redone::UpTo(at + 1))
    }

    /// One run over rows `at .. end`, with what fell and what was counted.
    fn run(&mut self, rows: &mut Rows, store: &dyn StateStore, at: usize, end: usize) -> Result<(Vec<Fallen>, Counts)> {
        let mut fallen = Vec::new();
        let mut counts = Counts { steps: vec![StepCounts::default(); self.steps.len()], ..Counts::default() };
        let passes_state = self.mode == Mode::Replay;
        self.alive.clear();
        self.alive.extend(at as u32..end as u32);
        for (place, step) in self.steps.iter_mut().enumerate() {
            let rows_in = self.alive.len() as u64;
            let late = match step {
                Step::Filter(filter) => {
                    filter.apply(rows, &mut self.alive, &mut self.bad);
                    0
                }
                Step::Select(select) => {
                    select.apply(rows, &mut self.alive, &mut self.bad);
                    0
                }
                // A replay changes no state: whoever restores this task later knows nothing of it.
                Step::Dedup(_) if passes_state => 0,
                Step::Dedup(dedup) => {
                    let late_before = dedup.counts().late;
                    dedup.apply(store, rows, &mut self.alive, &mut self.bad)?;
                    dedup.counts().late - late_before
                }
            };
            let (rows_out, dead_letters) = (self.alive.len() as u64, self.bad.len() as u64);
            let dropped = rows_in - rows_out - dead_letters;
            counts.steps[place] = StepCounts { rows_in, rows_out, dropped, dead_letters, late };
            fallen.extend(self.bad.drain(..).map(|bad| Fallen { place: Place::Step(place), bad }));
        }
        self.builder.append(rows, &self.alive, &mut self.bad);
        counts.unfit = self.bad.len() as u64;
        counts.written = self.alive.len() as u64 - counts.unfit;
        fallen.extend(self.bad.drain(..).map(|bad| Fallen { place: Place::Sink, bad }));
        Ok((fallen, counts))
    }

    /// A run stands: its dead letters are written down, its numbers counted.
    fn settle(&mut self, pass: &Pass, inputs: &TaskInputs, fallen: &[Fallen], counts: Counts) {
        if self.mode == Mode::StateOnly {
            return;
        }
        let stats = self.stats.clone();
        for Fallen { place, bad } in fallen {
            let meta = pass.rows.meta[bad.row as usize];
            let (record, arena) = inputs.raw(pass, meta.input as usize, meta.record);
            let name = match place {
                Place::Step(step) => stats.steps[*step].name.as_str(),
                Place::Sink => "sink",
            };
            self.add_letter(meta.input as usize, record, arena, name, bad);
        }
        self.counts.unfit += counts.unfit;
        self.counts.written += counts.written;
        for ((total, step), stats) in self.counts.steps.iter_mut().zip(&counts.steps).zip(&stats.steps) {
            total.rows_in += step.rows_in;
            total.rows_out += step.rows_out;
            total.dropped += step.dropped;
            total.dead_letters += step.dead_letters;
            total.late += step.late;
            stats.rows_in.fetch_add(step.rows_in, Relaxed);
            stats.rows_out.fetch_add(step.rows_out, Relaxed);
            stats.dropped.fetch_add(step.dropped, Relaxed);
            stats.late.fetch_add(step.late, Relaxed);
        }
    }

    fn mark(&mut self) -> ChainMark {
        ChainMark { builder: self.builder.mark(), dedups: self.dedups_mut().map(Dedup::mark).collect() }
    }

    fn rollback(&mut self, mark: ChainMark) {
        self.builder.rollback(mark.builder);
        self.dedups_mut().zip(mark.dedups).for_each(|(dedup, mark)| dedup.rollback(mark));
    }

    /// Puts the state changes since the last seal into the batch that also stores this watermark.
    pub fn seal_state(&mut self, store: &dyn StateStore, watermark_ms: i64, batch: &mut WriteBatch) -> Result<()> {
        self.dedups_mut().try_for_each(|dedup| dedup.seal(store, watermark_ms, batch))
    }

    /// Ends the epoch: state changes and local dead letters go into the store, rows into blocks.
    pub fn seal(
        &mut self,
        at: &SealAt,
        store: &dyn StateStore,
        watermark_ms: i64,
        batch: &mut WriteBatch,
    ) -> Result<(Vec<OutputRecord>, Vec<Block>)> {
        self.seal_state(store, watermark_ms, batch)?;
        let rows = self.builder.seal().map(|block| (self.target.clone(), block));
        let letters = self.letters.seal(at, batch)?;
        let mut records = Vec::new();
        let mut blocks = Vec::new();
        for (number, (target, block)) in rows.into_iter().chain(letters).enumerate() {
            records.push(OutputRecord {
                token: at.token(number, &target),
                header: block.header.iter().map(|column| (column.name.clone(), column.type_text.clone())).collect(),
                rows: block.rows,
                hash: block.hash,
                body_bytes: block.body.len() as u64,
            });
            blocks.push(block);
        }
        Ok((records, blocks))
    }

    /// The store that held the sealed state is durable, and with it the watermark.
    pub fn stored(&mut self, store: &dyn StateStore, watermark_ms: i64) {
        let task = self.task;
        for (place, step) in self.steps.iter_mut().enumerate() {
            let Step::Dedup(dedup) = step else { continue };
            dedup.stored();
            if let Some(horizon_ms) = dedup.seen().horizon_ms(watermark_ms) {
                store.set_horizon(task, place as u16, horizon_ms);
            }
        }
    }
}

/// How far a run came.
enum Redone {
    Whole,
    /// Everything before this row is done.
    UpTo(usize),
}

impl SealAt<'_> {
    /// The idempotence key of one output of this epoch.
    fn token(&self, output: usize, target: &str) -> String {
        let SealAt { history, partition, epoch, .. } = self;
        let pipeline = percent_escaped(&history.pipeline);
        format!("weir1/{pipeline}/{partition}/{}/{epoch}/{output}/{target}", history.incarnation)
    }
}

/// A part of a token: everything but letters, digits, `-`, `_` and `.` as `%XX`.
pub fn percent_escaped(part: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    part.bytes().map(|byte| if keep(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}
