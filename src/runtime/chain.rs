//! The steps of one task and its block builders: what happens to a pass between decoding and the sealed epoch.
//!
//! Owns the steps in their written order, the builder of the sink and the dead letters of the open epoch. Promises:
//! a pass is all in or its dead letters are named, and a row that becomes a dead letter behind a step with state
//! gives its key back, as if the records had come one by one. Never sees Kafka, ClickHouse, threads or clocks.

mod run;
mod stage;
mod stretch;
mod times;

use crate::codec::record::Record;
use crate::codec::rows::BadRow;
use crate::error::Result;
use crate::metrics::{JoinSnapshot, PipelineStats, StepKind};
use crate::runtime::commit::History;
use crate::runtime::compile::JoinPart;
use crate::runtime::inputs::{Owner, Pass, TaskInputs};
use crate::runtime::letters::EpochLetters;
use crate::runtime::limits;
use crate::sink::{Block, BlockBuilder, BuilderMark};
use crate::state::buffer::SegmentSize;
use crate::state::ledger::{Counts, OutputRecord, StepCounts};
use crate::state::{StateStore, WriteBatch};
use crate::step::dedup::{Dedup, DedupMark};
use crate::step::filter::Filter;
use crate::step::join::JoinMark;
use crate::step::select::Select;
use crate::types::{Epoch, TaskNo};
use run::{Exit, Fallen, Place, Places, Run, Scene};
use stage::{Flow, Left, Range, Stage};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stretch::Stretch;
use times::Times;

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
    /// The steps up to the first join.
    first: Stretch,
    stages: Vec<Stage>,
    times: Vec<Times>,
    /// Fields per row, where there are joins.
    width: usize,
    builder: Box<dyn BlockBuilder>,
    /// `<database>/<table>` of the sink, percent-escaped, as the token names it.
    target: String,
    letters: EpochLetters,
    mode: Mode,
    counts: Counts,
    stats: Arc<PipelineStats>,
    list: Vec<u32>,
    /// How many records the next pass may have at most, so that what joins make of them stays bounded.
    records_max: usize,
}

/// What a chain is made of.
pub struct ChainParts {
    /// The number under which the steps keep their state.
    pub task: TaskNo,
    pub steps: Vec<Step>,
    pub joins: Vec<JoinPart>,
    /// Of each side of a join: how many rows its state keeps in memory.
    pub segment: SegmentSize,
    pub builder: Box<dyn BlockBuilder>,
    /// `<database>/<table>` of the sink, percent-escaped, as the token names it.
    pub target: String,
    pub letters: EpochLetters,
    /// What was counted before.
    pub counts: Option<Counts>,
    pub stats: Arc<PipelineStats>,
}

/// Records of a joined pass before it is known how many rows they make, and how many rows one is to make, about.
const FIRST_JOINED_RECORDS: usize = 256;
const JOINED_ROWS: usize = 2 * limits::PASS_RECORDS_MAX;

/// Everything of a chain that a redo across joins goes back to.
struct ChainMark {
    builder: BuilderMark,
    dedups: Vec<Vec<DedupMark>>,
    joins: Vec<JoinMark>,
}

impl Chain {
    /// The steps as their last stored epoch left them.
    ///
    /// # Errors
    /// `corrupt` when the state of a join is not what was written.
    pub fn open(store: &dyn StateStore, parts: ChainParts) -> Result<Chain> {
        let ChainParts { task, steps, joins, segment, builder, target, letters, counts, stats } = parts;
        let width = joins.first().map_or(0, |join| join.width);
        let written = steps.len() + joins.len();
        let places: Vec<usize> = joins.iter().map(|join| join.place as usize).collect();
        let mut steps = (0..written).filter(|number| !places.contains(number)).zip(steps).peekable();
        let mut stretch =
            |until: usize| Stretch::new(std::iter::from_fn(|| steps.next_if(|(number, _)| *number < until)).collect());
        let ends: Vec<usize> = places.iter().copied().chain([written]).collect();
        let first = stretch(ends[0]);
        let mut right_numbers = written..;
        let mut stages = Vec::new();
        for (part, end) in joins.into_iter().zip(&ends[1..]) {
            let numbers: Vec<usize> = right_numbers.by_ref().take(part.steps.len()).collect();
            stages.push(Stage::open(store, task, part, numbers.into_iter(), stretch(*end), segment)?);
        }
        let mut counts = counts.unwrap_or_default();
        counts.steps.resize(right_numbers.start, StepCounts::default());
        let times = stages.iter().map(|_| Times::default()).collect();
        Ok(Chain {
            task,
            first,
            stages,
            times,
            width,
            builder,
            target,
            letters,
            mode: Mode::Deliver,
            counts,
            stats,
            list: vec![],
            records_max: FIRST_JOINED_RECORDS,
        })
    }

    /// Where the task begins, as a pass without records tells it: what these times have released came out before, and who
    /// has passed by them is gone, although it may lie in the store still.
    pub fn begin(&mut self, pass: &Pass) {
        times::rise(&mut self.times, &self.stages, pass);
        let behind = self.times.iter().map(|times| times.clock().after_ms[0]);
        self.stages.iter_mut().zip(behind).for_each(|(stage, now_ms)| stage.join.begin(now_ms));
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
        let dedups = self.dedups().map(|(_, dedup)| dedup.seen().overlay_bytes()).sum::<usize>();
        dedups + self.stages.iter().map(|stage| stage.join.unstored_bytes()).sum::<usize>()
    }

    /// Per step: about how many keys it remembers.
    pub fn state_keys(&self) -> Vec<u64> {
        let mut keys = vec![0; self.counts.steps.len()];
        self.dedups().for_each(|(number, dedup)| keys[number] = dedup.seen().keys_estimate());
        keys
    }

    /// Of each dedup step: a sample of the keys met since the last call.
    pub fn take_key_samples(&mut self) -> Vec<(usize, Vec<u64>)> {
        let dedups = self.stretches_mut().flat_map(Stretch::dedups_mut);
        let samples = dedups.map(|(number, dedup)| (number, dedup.take_sample()));
        samples.filter(|(_, keys)| !keys.is_empty()).collect()
    }

    /// What waits in each join.
    pub fn waiting(&self) -> Vec<JoinSnapshot> {
        let of = |Stage { number, join, .. }: &Stage| JoinSnapshot {
            step: *number,
            rows: join.waiting(),
            oldest_ms: join.oldest_waiting_ms(),
        };
        self.stages.iter().map(of).collect()
    }

    /// How many records the next pass may have: with a key of many rows each makes thousands.
    pub fn pass_records_max(&self) -> usize {
        if self.stages.is_empty() { limits::PASS_RECORDS_MAX } else { self.records_max }
    }

    /// Whether time alone may bring rows out.
    pub fn waits(&self) -> bool {
        self.stages.iter().any(|stage| stage.join.waiting() > 0)
    }

    pub fn letter_bytes(&self) -> usize {
        self.letters.bytes()
    }

    /// The dead letters of the open epoch, and the store behind them.
    pub fn letters(&mut self) -> &mut EpochLetters {
        &mut self.letters
    }

    fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        let of_stages = self.stages.iter().flat_map(|stage| [&stage.right, &stage.behind]);
        std::iter::once(&self.first).chain(of_stages)
    }

    fn stretches_mut(&mut self) -> impl Iterator<Item = &mut Stretch> {
        let of_stages = self.stages.iter_mut().flat_map(|stage| [&mut stage.right, &mut stage.behind]);
        std::iter::once(&mut self.first).chain(of_stages)
    }

    fn dedups(&self) -> impl Iterator<Item = (usize, &Dedup)> {
        self.stretches().flat_map(Stretch::dedups)
    }

    /// Runs a pass through the steps into the builder.
    pub fn process(&mut self, pass: &mut Pass, inputs: &TaskInputs, store: &dyn StateStore, mode: Mode) -> Result<()> {
        self.mode = mode;
        self.stretches_mut().for_each(Stretch::forget_marks);
        let before = (mode == Mode::StateOnly).then(|| self.builder.mark());
        let broken = std::mem::take(&mut pass.broken);
        self.count_pass(pass, inputs, &broken);
        match (self.stages.is_empty(), mode) {
            (true, _) => self.process_rows(pass, inputs, store)?,
            (false, Mode::Replay) => self.replay_rows(pass, inputs, store)?,
            (false, _) => self.process_joined(pass, inputs, store)?,
        }
        if let Some(before) = before {
            self.builder.rollback(before);
        }
        pass.broken = broken;
        Ok(())
    }

    /// Without joins: one stretch, and all rows are the source's.
    fn process_rows(&mut self, pass: &mut Pass, inputs: &TaskInputs, store: &dyn StateStore) -> Result<()> {
        let mut run = Run::new(self.counts.steps.len());
        self.list.clear();
        self.list.extend(0..pass.rows.len() as u32);
        let scene = self.scene(store, pass);
        let mut exit = Exit::Sink(&mut *self.builder);
        self.first.through(&scene, &mut pass.rows, &self.list, &mut exit, &mut vec![], &mut run)?;
        self.settle(pass, inputs, run);
        Ok(())
    }

    fn process_joined(&mut self, pass: &mut Pass, inputs: &TaskInputs, store: &dyn StateStore) -> Result<()> {
        let rows = self.widen(pass);
        if times::rise(&mut self.times, &self.stages, pass) {
            // Whoever is released has waited, and takes no key along that could be given back.
            let mut run = Run::new(self.counts.steps.len());
            self.run_places(pass, store, 0..0, 1, &mut run)?;
            self.settle(pass, inputs, run);
        }
        times::set(&mut self.times, &self.stages, pass);
        let before = self.builder.rows();
        let (mut at, mut size) = (0, rows);
        loop {
            let end = rows.min(at + size);
            let reached = self.run_or_redo(pass, inputs, store, at, end)?;
            size = if reached == end { (reached - at) * 2 } else { 1 };
            at = reached;
            if at == rows {
                break;
            }
        }
        let made = (self.builder.rows() - before) as usize;
        let fitting = JOINED_ROWS * (rows.max(1) as usize) / made.max(1);
        self.records_max = fitting.min(self.records_max * 4).clamp(1, limits::PASS_RECORDS_MAX);
        Ok(())
    }

    /// Replayed rows meet what there is; whoever restores this task later knows nothing of it, so nothing of it stays.
    fn replay_rows(&mut self, pass: &mut Pass, inputs: &TaskInputs, store: &dyn StateStore) -> Result<()> {
        let rows = self.widen(pass);
        times::stop(&mut self.times, &self.stages, rows as usize);
        let marks: Vec<JoinMark> = self.stages.iter_mut().map(|stage| stage.join.mark()).collect();
        let mut run = Run::new(self.counts.steps.len());
        self.run_places(pass, store, 0..rows, rows, &mut run)?;
        self.stages.iter_mut().zip(marks).for_each(|(stage, mark)| stage.join.rollback(mark));
        self.settle(pass, inputs, run);
        Ok(())
    }

    /// A pass without rows has no width, or that of another task.
    fn widen(&self, pass: &mut Pass) -> u32 {
        if pass.rows.is_empty() {
            pass.rows.clear(self.width);
        }
        pass.rows.len() as u32
    }

    /// Lets everything that waits in joins out, as if the watermark had reached the end of time.
    pub fn close_windows(
        &mut self,
        pass: &mut Pass,
        inputs: &TaskInputs,
        store: &dyn StateStore,
        mode: Mode,
    ) -> Result<()> {
        self.mode = mode;
        self.stretches_mut().for_each(Stretch::forget_marks);
        let before = (mode == Mode::StateOnly).then(|| self.builder.mark());
        pass.rows.clear(self.width);
        times::stop(&mut self.times, &self.stages, 0);
        let mut run = Run::new(self.counts.steps.len());
        let scene = self.scene(store, pass);
        let mut flow = Flow { scene, sink: &mut *self.builder, run: &mut run };
        stage::close(&mut self.stages, &self.times, &mut flow, &mut pass.rows)?;
        self.settle(pass, inputs, run);
        if let Some(before) = before {
            self.builder.rollback(before);
        }
        Ok(())
    }

    fn scene<'a>(&self, store: &'a dyn StateStore, pass: &Pass) -> Scene<'a> {
        let (steps, of_pass) = (self.counts.steps.len(), pass.rows.len() as u32);
        Scene { store, mode: self.mode, steps, of_pass, names: &[], back: &|_| None }
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
        self.counts.again += (pass.rows.len() + broken.len()) as u64 + pass.tombstones - pass.records;
        self.counts.right_rows += pass.owners.iter().filter(|owner| **owner != Owner::Left).count() as u64;
        self.counts.tombstones += pass.tombstones;
        self.counts.broken += broken.len() as u64;
        inputs.count_read(pass, &self.stats);
        self.stats.tombstones.fetch_add(pass.tombstones, Relaxed);
        self.stats.extra_fields.fetch_add(pass.extra_fields, Relaxed);
    }

    fn add_letter(&mut self, input: usize, record: &Record, arena: &[u8], step: &str, bad: &BadRow) {
        if self.letters.add(input, record, arena, step, bad) {
            self.stats.dead_letter(step, bad.reason, 1);
        }
    }

    /// Takes the rows `at .. end` of a pass with joins; answers how far it came. If a row that went right through a join
    /// falls behind it, what was done is taken back, the rows before it are taken again (they are decided as before), and
    /// it itself leaves nothing behind.
    fn run_or_redo(
        &mut self,
        pass: &mut Pass,
        inputs: &TaskInputs,
        store: &dyn StateStore,
        at: u32,
        end: u32,
    ) -> Result<u32> {
        // Only a step in front of a join has something to give back that the stretch behind does not see to.
        let mark = self.has_state_before_a_join().then(|| self.mark());
        let mut run = Run::new(self.counts.steps.len());
        self.run_places(pass, store, at..end, end, &mut run)?;
        let first = run.fallen.iter().filter_map(|fallen| fallen.back).min();
        let (Some(mark), Some(first)) = (mark, first) else {
            self.settle(pass, inputs, run);
            return Ok(end);
        };
        self.rollback(mark);
        if first > at {
            return self.run_or_redo(pass, inputs, store, at, first);
        }
        // The row itself: alone it falls again, and takes its traces with it.
        let mark = self.mark();
        let mut alone = Run::new(self.counts.steps.len());
        self.run_places(pass, store, at..at + 1, at, &mut alone)?;
        self.rollback(mark);
        alone.counts.written = 0;
        self.settle(pass, inputs, alone);
        // What its time releases stands.
        let mut released = Run::new(self.counts.steps.len());
        self.run_places(pass, store, at..at, at + 1, &mut released)?;
        self.settle(pass, inputs, released);
        Ok(at + 1)
    }

    /// One run over these rows, and over the watermarks behind the places up to `until`.
    fn run_places(
        &mut self,
        pass: &mut Pass,
        store: &dyn StateStore,
        places: std::ops::Range<u32>,
        until: u32,
        run: &mut Run,
    ) -> Result<()> {
        let scene = self.scene(store, pass);
        let Pass { rows, owners, .. } = pass;
        let from = places.start;
        let owner = |row: u32| owners.get(row as usize).copied().unwrap_or(Owner::Left);
        let of = |wanted: Owner| places.clone().filter(|&row| owner(row) == wanted).collect::<Vec<u32>>();
        for (number, (stage, times)) in self.stages.iter_mut().zip(&self.times).enumerate() {
            let right = |deletes| Owner::Right { join: number as u16, deletes };
            // A replayed row of a right side would change what others meet.
            let (list, deletions) = match scene.mode {
                Mode::Replay => (vec![], vec![]),
                Mode::Deliver | Mode::StateOnly => (of(right(false)), of(right(true))),
            };
            stage.take_rights(&scene, times, rows, &list, &deletions, run)?;
        }
        let mut survivors = Vec::new();
        let in_pass = Places { of_pass: scene.of_pass, added: &[] };
        let mut exit = stage::exit(self.stages.first().zip(self.times.first()), in_pass, &mut *self.builder);
        self.first.through(&scene, rows, &of(Owner::Left), &mut exit, &mut survivors, run)?;
        let lefts: Vec<Left> = survivors.iter().map(|&row| Left { row, place: row, back: Some(row) }).collect();
        let mut flow = Flow { scene, sink: &mut *self.builder, run };
        stage::onward(&mut self.stages, &self.times, &mut flow, rows, &lefts, Range { from, until })
    }

    fn has_state_before_a_join(&self) -> bool {
        let last = self.stages.len().saturating_sub(1);
        let mut stages = self.stages.iter().enumerate();
        self.first.has_state()
            || stages.any(|(number, stage)| stage.right.has_state() || (number < last && stage.behind.has_state()))
    }

    /// A run stands: its dead letters are written down, its numbers counted.
    fn settle(&mut self, pass: &Pass, inputs: &TaskInputs, run: Run) {
        if self.mode == Mode::StateOnly {
            return;
        }
        let Run { fallen, counts } = run;
        let stats = self.stats.clone();
        for Fallen { place, bad, meta, known, .. } in &fallen {
            let name = match place {
                Place::Step(step) => stats.steps[*step].name.as_str(),
                Place::Sink => "sink",
            };
            match known {
                None => {
                    let (record, arena) = inputs.raw(pass, meta.input as usize, meta.record);
                    self.add_letter(meta.input as usize, record, arena, name, bad);
                }
                Some(known) => {
                    if self.letters.add_known(meta, known, name, bad) {
                        stats.dead_letter(name, bad.reason, 1);
                    }
                }
            }
        }
        self.counts.unfit += counts.unfit;
        self.counts.written += counts.written;
        for ((total, step), stats) in self.counts.steps.iter_mut().zip(&counts.steps).zip(&stats.steps) {
            total.add(step);
            stats.add_rows(step.rows_in, step.rows_out, step.dropped, step.unjudged, step.late);
            if stats.kind == StepKind::Join {
                stats.add_pairs(step.matched, step.unmatched, step.left_matched, step.left_decided);
            }
        }
        for stage in &self.stages {
            self.counts.steps[stage.number].waiting = stage.join.left_waiting();
        }
    }

    fn mark(&mut self) -> ChainMark {
        ChainMark {
            builder: self.builder.mark(),
            dedups: self.stretches_mut().map(Stretch::dedup_marks).collect(),
            joins: self.stages.iter_mut().map(|stage| stage.join.mark()).collect(),
        }
    }

    fn rollback(&mut self, mark: ChainMark) {
        self.builder.rollback(mark.builder);
        self.stretches_mut().zip(&mark.dedups).for_each(|(stretch, marks)| stretch.rollback_dedups(marks));
        self.stages.iter_mut().zip(mark.joins).for_each(|(stage, mark)| stage.join.rollback(mark));
    }

    /// Puts the state changes since the last seal into the batch that also stores this watermark.
    pub fn seal_state(&mut self, store: &dyn StateStore, watermark_ms: i64, batch: &mut WriteBatch) -> Result<()> {
        for (stretch, watermark_ms) in self.stretches_at(watermark_ms) {
            stretch.dedups_mut().try_for_each(|(_, dedup)| dedup.seal(store, watermark_ms, batch))?;
        }
        self.stages.iter_mut().for_each(|stage| stage.join.seal(batch));
        Ok(())
    }

    /// Each stretch with the watermark of its rows.
    fn stretches_at(&mut self, watermark_ms: i64) -> impl Iterator<Item = (&mut Stretch, i64)> {
        let of_stages = self.stages.iter_mut().flat_map(move |stage| {
            let behind_ms = stage.watermark_behind_ms();
            [(&mut stage.right, watermark_ms), (&mut stage.behind, behind_ms)]
        });
        std::iter::once((&mut self.first, watermark_ms)).chain(of_stages)
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
        self.stretches_at(watermark_ms).for_each(|(stretch, ms)| stretch.stored(store, task, ms));
        self.stages.iter_mut().for_each(|stage| stage.join.stored());
    }
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

#[cfg(test)]
mod tests;
