//! One task: the state machine that takes a partition from its start through its epochs to its end.
//!
//! Owns its inputs, its steps and its commit log. Driven by `tick` and messages only: it holds no thread, no
//! channel and no clock, so the simulation runs this very code. Stores are handed out as one write batch
//! (`take_write`) so that tasks which seal at the same moment share an fsync.

use crate::config::plan::BatchPlan;
use crate::error::{Error, Kind, Result};
use crate::metrics::{PipelineStats, SealedWhy};
use crate::runtime::chain::{Chain, Mode, SealAt};
use crate::runtime::commit::{Attempted, CommitLog, ToSend};
use crate::runtime::inputs::{Found, Pass, PassLimit, TaskInputs};
use crate::runtime::limits;
use crate::sink::{Block, ColumnHeader};
use crate::source::OffsetsToCommit;
use crate::state::ledger::{Checkpoint, Cuts, EpochRecord, Mark, Moment, Pending, TaskEntry, encode, key};
use crate::state::{StateStore, Table, WriteBatch};
use crate::types::{Epoch, Link, TaskNo};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Which task: the pipeline by its place, the partition, and the assignment under which it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId {
    pub pipeline: usize,
    pub partition: i32,
    pub assignment: u64,
}

/// What a task is told.
#[derive(Debug)]
pub enum ToTask {
    /// The offer of that number was accepted; it was handed to the client at that time (boot clock).
    Accepted {
        offer: u64,
        handed_ms: u64,
    },
    Refused {
        offer: u64,
    },
    Fenced(bool),
    /// Seal, store, deliver, commit, then say `Gone`; at the deadline (boot clock) say it anyway.
    Drain {
        deadline_ms: Option<u64>,
    },
    /// Delivery's answer.
    Attempted {
        epoch: Epoch,
        output: u16,
        outcome: AttemptOutcome,
    },
}

/// How an attempt to insert ended.
#[derive(Clone, PartialEq, Debug)]
pub enum AttemptOutcome {
    Acknowledged {
        seconds: f64,
    },
    /// It did not begin: the lease had run out.
    NotBegun,
    Failed(Error),
}

/// What a task says to its coordinator.
#[derive(Debug)]
pub enum FromTask {
    Offer {
        offer: u64,
        commit: OffsetsToCommit,
    },
    /// What was stored is delivered: decide again how to begin.
    DecideAgain,
    /// The task has ended; `finished` when there is nothing left to do for it.
    Gone {
        finished: bool,
    },
    Failed(Error),
}

/// An insert to be tried now.
#[derive(Debug)]
pub struct Attempt {
    pub task: TaskId,
    pub send: ToSend,
    pub block: Block,
    /// Set when the table may have forgotten the token.
    pub stale: Option<Stale>,
}

/// A block to be looked for before it is sent again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale {
    /// Topic and half-open offsets of its epoch.
    pub ranges: Vec<(String, i64, i64)>,
    /// Send it when the table cannot be asked (`on_unclear: resend`).
    pub resend: bool,
}

/// Which tasks of a table have blocks that may already be in it: those go before any new one, so that new tokens
/// do not push theirs out of the table's window.
#[derive(Debug, Default)]
pub struct Gate {
    unclear: AtomicUsize,
}

/// How a task begins, with all its parts.
pub struct TaskStart {
    pub id: TaskId,
    pub state: TaskNo,
    /// The task number whose state is set aside by this start.
    pub retires: Option<TaskNo>,
    pub log: CommitLog,
    pub inputs: TaskInputs,
    pub chain: Chain,
    pub stage: Stage,
    /// Epochs of the ledger that another history replaced, with how many blocks each has.
    pub drops: Vec<(Epoch, u16)>,
    /// Where processing ends under `--until-end`, per input.
    pub ends: Option<Vec<i64>>,
}

/// Where a task is in its life.
#[derive(Clone, PartialEq, Debug)]
pub enum Stage {
    /// The first mark of a new history is offered; nothing is processed before it is accepted. `then` follows.
    Adopting {
        then: Box<Stage>,
    },
    /// Deliver what the outbox holds, then let it be decided again.
    DeliverFirst,
    /// Re-read state-only up to this moment.
    Rereading {
        to: Box<Moment>,
    },
    /// Process exactly the epoch that the mark names.
    Forcing(Box<Pending>),
    Running,
    Draining {
        deadline_ms: Option<u64>,
    },
    /// Its pipeline was told why; it waits to be dropped.
    Failed,
    Gone,
}

/// Settings that all tasks of a pipeline share.
#[derive(Clone, Debug)]
pub struct TaskSettings {
    pub pipeline: String,
    pub batch: BatchPlan,
    /// Per input: how long at its log end until it is set aside.
    pub idle_after_ms: Vec<u64>,
    /// Sealed blocks that are not acknowledged.
    pub outbox_bytes_max: u64,
    /// State changes that are not stored.
    pub state_bytes_max: usize,
    /// What could not be delivered for a reason only a person can mend ends the task instead of being retried.
    pub stops_on_failure: bool,
    pub gate: Arc<Gate>,
    /// For how long the table remembers a token at least.
    pub window_ms: i64,
    /// `on_unclear: resend`.
    pub resend_unclear: bool,
    pub strict: bool,
}

/// The outside of a task during one tick.
pub struct Io<'a> {
    pub wall_ms: i64,
    pub boot_ms: u64,
    pub pass: &'a mut Pass,
    pub store: &'a dyn StateStore,
    pub say: &'a mut dyn FnMut(TaskId, FromTask),
    /// Hands an attempt to delivery; false when there is no room.
    pub submit: &'a mut dyn FnMut(Attempt) -> bool,
}

/// An epoch that is being filled.
#[derive(Clone, Debug)]
struct OpenEpoch {
    opened_ms: u64,
    idle_before: u64,
    cuts: Cuts,
    records: u64,
    /// Kafka timestamps of its first and its last row.
    timestamps_ms: Option<(i64, i64)>,
}

/// What a handed-out write was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writing {
    Beginning,
    Epoch,
    Reread { whole: bool },
    Release,
}

pub struct Task {
    pub id: TaskId,
    settings: Arc<TaskSettings>,
    stats: Arc<PipelineStats>,
    state: TaskNo,
    retires: Option<TaskNo>,
    drops: Vec<(Epoch, u16)>,
    log: CommitLog,
    inputs: TaskInputs,
    chain: Chain,
    stage: Stage,
    ends: Option<Vec<i64>>,
    open: Option<OpenEpoch>,
    /// Kafka timestamps of the first and last row of sealed epochs, for the latency.
    timestamps_ms: BTreeMap<Epoch, (i64, i64)>,
    reread_records: u64,
    begun: bool,
    /// Not delivered for a reason only a person can mend: nothing is processed until a later attempt succeeds.
    stuck: Option<Error>,
    /// Counted in the gate.
    holds_gate: bool,
    write: Option<(WriteBatch, Writing)>,
    writing: Option<Writing>,
}

impl Task {
    pub fn new(start: TaskStart, settings: Arc<TaskSettings>, stats: Arc<PipelineStats>) -> Task {
        Task {
            id: start.id,
            settings,
            stats,
            state: start.state,
            retires: start.retires,
            drops: start.drops,
            log: start.log,
            inputs: start.inputs,
            chain: start.chain,
            stage: start.stage,
            ends: start.ends,
            open: None,
            timestamps_ms: BTreeMap::new(),
            reread_records: 0,
            begun: false,
            stuck: None,
            holds_gate: false,
            write: None,
            writing: None,
        }
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether it still re-reads or waits to begin: readiness is false meanwhile.
    pub fn is_restoring(&self) -> bool {
        matches!(self.stage, Stage::Adopting { .. } | Stage::Rereading { .. } | Stage::DeliverFirst)
    }

    /// Next offset and known readable end, per input.
    pub fn positions_and_ends(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.inputs.positions().into_iter().zip(self.inputs.ends())
    }

    pub fn watermark_ms(&self) -> i64 {
        self.inputs.times.watermark_ms
    }

    /// Blocks and bytes not yet acknowledged.
    pub fn outbox(&self) -> (u64, u64) {
        self.log.outbox()
    }

    /// Does nothing any more; it waits to be dropped.
    pub fn give_up(&mut self) {
        self.stage = Stage::Failed;
    }

    /// Does what can be done now. True when something was done, so that it is called again soon.
    ///
    /// # Errors
    /// The task cannot go on; its pipeline stops with the sentence.
    pub fn tick(&mut self, io: &mut Io) -> Result<bool> {
        if self.writing.is_some() || matches!(self.stage, Stage::Gone | Stage::Failed) {
            return Ok(false);
        }
        let worked = match &self.stage {
            Stage::Adopting { .. } => self.begin_history(io),
            Stage::DeliverFirst => self.deliver_first(io),
            Stage::Rereading { to } => {
                let to = (**to).clone();
                self.reread(io, &to)?
            }
            Stage::Forcing(pending) => {
                let pending = (**pending).clone();
                self.force(io, &pending)?
            }
            Stage::Running => self.run(io)?,
            Stage::Draining { deadline_ms } => {
                let deadline_ms = *deadline_ms;
                self.drain(io, deadline_ms)?
            }
            Stage::Failed | Stage::Gone => false,
        };
        let sent = self.announce_and_send(io)?;
        Ok(worked || sent || self.write.is_some())
    }

    /// The earliest time something is to be done although nothing arrives (boot clock).
    pub fn next_due_ms(&self) -> Option<u64> {
        let seal = self.open.as_ref().map(|open| open.opened_ms + self.settings.batch.interval_ms);
        let deadline = match self.stage {
            Stage::Draining { deadline_ms } => deadline_ms,
            _ => None,
        };
        [seal, deadline, self.log.next_due_ms()].into_iter().flatten().min()
    }

    /// A write to be made now, atomically and durably; `written` follows.
    pub fn take_write(&mut self) -> Option<WriteBatch> {
        let (batch, writing) = self.write.take()?;
        self.writing = Some(writing);
        Some(batch)
    }

    /// The write that was taken is durable.
    pub fn written(&mut self, io: &mut Io) {
        let writing = self.writing.take().expect("a write was taken before it is written");
        match writing {
            Writing::Release => {}
            Writing::Beginning => self.begun = true,
            Writing::Epoch => {
                self.chain.stored(io.store, self.log.tip().watermark_ms);
                self.log.stored(io.boot_ms);
            }
            Writing::Reread { whole } => {
                self.chain.stored(io.store, self.inputs.times.watermark_ms);
                if whole {
                    self.stage = self.after_rereading();
                }
            }
        }
    }

    pub fn receive(&mut self, message: ToTask, io: &mut Io) {
        match message {
            ToTask::Accepted { offer, handed_ms } => {
                if self.log.accepted_offer(offer, handed_ms)
                    && let Stage::Adopting { then } = &self.stage
                {
                    self.stage = (**then).clone();
                }
            }
            ToTask::Refused { offer } => self.log.refused_offer(offer),
            ToTask::Fenced(fenced) => self.log.set_fenced(fenced),
            ToTask::Drain { deadline_ms } => self.begin_drain(deadline_ms),
            ToTask::Attempted { epoch, output, outcome } => self.attempted(epoch, output, outcome, io),
        }
    }

    // --- the beginning -------------------------------------------------------------------------------------

    /// Offers the first mark of a new history. It is written to the ledger only when it was accepted.
    fn begin_history(&mut self, io: &mut Io) -> bool {
        if self.log.is_offered() {
            return false;
        }
        let (offer, mark) = self.log.offer_first();
        self.say_offer(io, offer, &mark);
        true
    }

    /// Before the first epoch or re-read of this life: the ledger says whose state this is.
    fn begin_ledger(&mut self, restoring: bool) -> bool {
        if self.begun {
            return false;
        }
        let mut batch = WriteBatch::default();
        let entry = TaskEntry { task: self.state, left_ms: 0 };
        batch.put(Table::Ledger, key::partition(self.id.partition), encode(&entry));
        if let Some(retired) = self.retires.take() {
            crate::state::ledger::retire(retired, &mut batch);
        }
        for (epoch, outputs) in self.drops.drain(..) {
            batch.delete(Table::Ledger, key::epoch(self.state, epoch));
            (0..outputs).for_each(|output| batch.delete(Table::Outbox, key::outbox(self.state, epoch, output)));
        }
        let moment = self.moment_under_way();
        batch.put(Table::Ledger, key::checkpoint(self.state), encode(&self.checkpoint(moment, restoring)));
        self.log.add_release(&mut batch);
        self.write = Some((batch, Writing::Beginning));
        true
    }

    /// The tip's epoch, with the positions and times of what was read so far: re-reading goes on from these.
    fn moment_under_way(&self) -> Moment {
        let times = &self.inputs.times;
        Moment {
            inputs: self.inputs.progress(),
            watermark_ms: times.watermark_ms,
            idle: times.idle,
            ..self.log.tip().clone()
        }
    }

    fn checkpoint(&self, moment: Moment, restoring: bool) -> Checkpoint {
        let history = self.log.history();
        Checkpoint {
            pipeline: history.pipeline.clone(),
            partition: self.id.partition,
            incarnation: history.incarnation,
            origin: history.origin.clone(),
            plan: history.plan,
            topics: history.topics.clone(),
            moment,
            restoring,
            counts: self.chain.counts().clone(),
        }
    }

    fn deliver_first(&mut self, io: &mut Io) -> bool {
        if !self.log.is_delivered() {
            return false;
        }
        if let Some((offer, mark)) = self.log.offer(io.boot_ms, true) {
            self.say_offer(io, offer, &mark);
            return true;
        }
        if self.log.is_settled() {
            if self.log.has_release() {
                return self.release();
            }
            self.stage = Stage::Gone;
            (io.say)(self.id, FromTask::DecideAgain);
        }
        false
    }

    /// Everything runs, sink validation included; only blocks, dead letters and counters are withheld.
    fn reread(&mut self, io: &mut Io, to: &Moment) -> Result<bool> {
        if self.begin_ledger(true) {
            return Ok(true);
        }
        self.inputs.times.note_ms = to.note_ms;
        let ends = to.positions();
        let limit = self.pass_limit(limits::PASS_RECORDS_MAX, Some(&ends));
        let mut cuts = Cuts::default();
        let found = self.inputs.next_pass(io.pass, limit, io.boot_ms, &mut cuts)?;
        if found == Found::Pass {
            self.chain.process(io.pass, &self.inputs, io.store, Mode::StateOnly)?;
            self.reread_records += io.pass.records;
        }
        let done = self.inputs.positions().iter().zip(&ends).all(|(position, end)| position >= end);
        if done {
            self.inputs.set_progress(to);
            self.store_reread(io, to.clone(), false)?;
        } else if self.reread_records >= limits::REREAD_RECORDS_MAX
            || self.chain.state_bytes() >= self.settings.state_bytes_max
        {
            self.store_reread(io, self.moment_under_way(), true)?;
        }
        Ok(found == Found::Pass || done)
    }

    fn store_reread(&mut self, io: &Io, moment: Moment, restoring: bool) -> Result<()> {
        self.reread_records = 0;
        let mut batch = WriteBatch::default();
        self.chain.seal_state(io.store, moment.watermark_ms, &mut batch)?;
        batch.put(Table::Ledger, key::checkpoint(self.state), encode(&self.checkpoint(moment, restoring)));
        self.log.add_release(&mut batch);
        self.write = Some((batch, Writing::Reread { whole: !restoring }));
        Ok(())
    }

    fn after_rereading(&self) -> Stage {
        match self.log.forced() {
            Some(pending) => Stage::Forcing(Box::new(pending.clone())),
            None => Stage::Running,
        }
    }

    /// The epoch that the mark names: its ranges, cuts, note and flags, and its link, whatever comes out.
    fn force(&mut self, io: &mut Io, pending: &Pending) -> Result<bool> {
        if self.begin_ledger(false) {
            return Ok(true);
        }
        if self.open.is_none() {
            self.inputs.times.note_ms = pending.note_ms;
            self.inputs.times.idle = pending.idle;
            self.open = Some(OpenEpoch { idle_before: pending.idle, ..self.opened(io) });
        }
        let done = match self.inputs.len() {
            1 => self.force_range(io, pending)?,
            inputs => self.force_next_pass(io, pending, inputs)?,
        };
        if done {
            self.seal(io, SealedWhy::End, Some(pending))?;
            self.stage = Stage::Running;
        }
        Ok(done || io.pass.records > 0)
    }

    fn force_range(&mut self, io: &mut Io, pending: &Pending) -> Result<bool> {
        let limit = self.pass_limit(limits::PASS_RECORDS_MAX, Some(&pending.positions));
        let mut cuts = Cuts::default();
        if self.inputs.next_pass(io.pass, limit, io.boot_ms, &mut cuts)? == Found::Pass {
            self.chain.process(io.pass, &self.inputs, io.store, Mode::Deliver)?;
        }
        Ok(self.inputs.positions() >= pending.positions)
    }

    /// `open.cuts` holds the passes already made.
    fn force_next_pass(&mut self, io: &mut Io, pending: &Pending, inputs: usize) -> Result<bool> {
        let open = self.open.as_mut().expect("forcing opened an epoch");
        let made = open.cuts.0.len();
        let Some(advance) = pending.cuts.0.get(made..made + inputs) else {
            return Ok(true);
        };
        if self.inputs.exact_pass(io.pass, advance, io.boot_ms)? == Found::Nothing {
            return Ok(false);
        }
        open.cuts.0.extend_from_slice(advance);
        let finished = open.cuts.0.len() >= pending.cuts.0.len();
        self.chain.process(io.pass, &self.inputs, io.store, Mode::Deliver)?;
        Ok(finished)
    }

    // --- the middle ----------------------------------------------------------------------------------------

    fn run(&mut self, io: &mut Io) -> Result<bool> {
        if self.begin_ledger(false) {
            return Ok(true);
        }
        if self.has_reached_ends() {
            self.begin_drain(None);
            return Ok(true);
        }
        let worked = self.has_room() && self.process_next_pass(io)?;
        if let Some(why) = self.why_to_seal(io) {
            self.seal(io, why, None)?;
            return Ok(true);
        }
        Ok(worked)
    }

    fn has_room(&self) -> bool {
        let (_, bytes) = self.log.outbox();
        self.stuck.is_none()
            && self.log.epochs_waiting() < limits::OUTBOX_EPOCHS_MAX
            && bytes < self.settings.outbox_bytes_max
    }

    fn has_reached_ends(&self) -> bool {
        let ends = self.ends.as_ref();
        ends.is_some_and(|ends| self.inputs.positions().iter().zip(ends).all(|(position, end)| position >= end))
    }

    fn pass_limit<'a>(&self, records: usize, ends: Option<&'a [i64]>) -> PassLimit<'a> {
        PassLimit { records, bytes: limits::PASS_BYTES_MAX, offset_ends: ends }
    }

    fn process_next_pass(&mut self, io: &mut Io) -> Result<bool> {
        let began = std::time::Instant::now();
        let (rows, records) = (self.chain.block_rows(), self.open.as_ref().map_or(0, |open| open.records));
        let left = self.settings.batch.rows.saturating_sub(rows).min(limits::EPOCH_RECORDS_MAX - records);
        let limit = self.pass_limit(limits::PASS_RECORDS_MAX.min(left.max(1) as usize), self.ends.as_deref());
        if self.open.is_none() {
            self.inputs.times.note_ms = io.wall_ms;
            // Here, or an input that always has records would never let an epoch begin with another set aside.
            self.inputs.times.idle |= self.idle_now(io);
        }
        let idle_before = self.inputs.times.idle;
        let mut cuts = Cuts::default();
        if self.inputs.next_pass(io.pass, limit, io.boot_ms, &mut cuts)? == Found::Nothing {
            return Ok(false);
        }
        if self.open.is_none() {
            self.open = Some(OpenEpoch { idle_before, ..self.opened(io) });
        }
        let open = self.open.as_mut().expect("it was just opened");
        open.cuts.0.append(&mut cuts.0);
        open.records += io.pass.records;
        if let (Some(first), Some(last)) = (io.pass.rows.meta.first(), io.pass.rows.meta.last()) {
            let oldest_ms = open.timestamps_ms.map_or(first.timestamp_ms, |(oldest_ms, _)| oldest_ms);
            open.timestamps_ms = Some((oldest_ms, last.timestamp_ms));
        }
        self.chain.process(io.pass, &self.inputs, io.store, Mode::Deliver)?;
        self.stats.processed(began.elapsed());
        Ok(true)
    }

    fn opened(&self, io: &Io) -> OpenEpoch {
        OpenEpoch {
            opened_ms: io.boot_ms,
            idle_before: self.inputs.times.idle,
            cuts: Cuts::default(),
            records: 0,
            timestamps_ms: None,
        }
    }

    /// Under --until-end nobody is set aside, and one input's idleness changes nothing.
    fn idle_now(&self, io: &Io) -> u64 {
        match self.inputs.len() > 1 && self.ends.is_none() {
            true => self.inputs.idle_now(&self.settings.idle_after_ms, io.boot_ms),
            false => self.inputs.times.idle,
        }
    }

    fn why_to_seal(&mut self, io: &Io) -> Option<SealedWhy> {
        let batch = &self.settings.batch;
        let idle = self.idle_now(io);
        let Some(open) = &self.open else {
            self.inputs.times.idle |= idle;
            return None;
        };
        let too_much = open.records >= limits::EPOCH_RECORDS_MAX
            || self.chain.state_bytes() >= self.settings.state_bytes_max
            || self.chain.letter_bytes() >= limits::EPOCH_LETTER_BYTES_MAX
            || open.cuts.0.len() >= limits::EPOCH_CUTS_MAX;
        if self.chain.block_rows() >= batch.rows {
            Some(SealedWhy::Rows)
        } else if self.chain.block_bytes() >= batch.bytes as usize || too_much {
            Some(SealedWhy::Bytes)
        } else if io.boot_ms.saturating_sub(open.opened_ms) >= batch.interval_ms {
            Some(SealedWhy::Age)
        } else if idle & !self.inputs.times.idle != 0 {
            // A change of the idle set seals the open epoch and holds from the start of the next.
            Some(SealedWhy::Age)
        } else {
            None
        }
    }

    /// Seals the open epoch: encode, link, and one write batch with everything that belongs to it.
    fn seal(&mut self, io: &Io, why: SealedWhy, forced: Option<&Pending>) -> Result<()> {
        let open = self.open.take().expect("only an open epoch is sealed");
        let began = std::time::Instant::now();
        let tip = self.log.tip().clone();
        let epoch = tip.epoch.next();
        let mut batch = WriteBatch::default();
        let at = SealAt {
            history: self.log.history(),
            partition: self.id.partition,
            epoch,
            note_ms: self.inputs.times.note_ms,
        };
        let (outputs, blocks) = self.chain.seal(&at, io.store, self.inputs.times.watermark_ms, &mut batch)?;
        let mut record = EpochRecord {
            after: Moment {
                epoch,
                link: Link::default(),
                inputs: self.inputs.progress(),
                watermark_ms: self.inputs.times.watermark_ms,
                idle: self.inputs.times.idle,
                note_ms: self.inputs.times.note_ms,
                closed: tip.closed,
            },
            cuts: open.cuts,
            flags: forced.map_or(0, |pending| pending.flags),
            idle_before: open.idle_before,
            outputs,
        };
        let link = next_link(tip.link, &record);
        record.after.link = forced.map_or(link, |pending| pending.link);
        if let Some(pending) = forced {
            self.compare_with_pending(pending, link)?;
        }
        let checkpoint = self.checkpoint(record.after.clone(), false);
        batch.put(Table::Ledger, key::checkpoint(self.state), encode(&checkpoint));
        batch.put(Table::Ledger, key::epoch(self.state, epoch), encode(&record));
        for (number, block) in blocks.iter().enumerate() {
            batch.put_shared(Table::Outbox, key::outbox(self.state, epoch, number as u16), block.body.clone());
        }
        self.log.add_release(&mut batch);
        self.stats.sealed(why, record.outputs.iter().map(|output| output.rows), began.elapsed());
        self.timestamps_ms.extend(open.timestamps_ms.map(|times| (epoch, times)));
        self.log.push(record, blocks);
        self.write = Some((batch, Writing::Epoch));
        tracing::debug!(pipeline = self.settings.pipeline, partition = self.id.partition, %epoch, ?why, boot = io.boot_ms, "sealed");
        Ok(())
    }

    /// The new bytes go out under the old token all the same: whether the old ones arrived cannot be known.
    fn compare_with_pending(&self, pending: &Pending, link: Link) -> Result<()> {
        if pending.link == link {
            return Ok(());
        }
        self.stats.recovered("pending_differs");
        let partition = self.id.partition;
        if self.settings.strict {
            return Err(Error::stop(
                "pending_differs",
                format!(
                    "partition {partition}: the announced epoch came out differently than it was announced, and \
                         the pipeline is strict: compare the table with the topic"
                ),
            ));
        }
        tracing::warn!(
            pipeline = self.settings.pipeline,
            partition,
            "the announced epoch came out differently than it was announced (another version, another plan, or \
             records gone from the topic): sending what there is under its token"
        );
        Ok(())
    }

    // --- announcing and sending ----------------------------------------------------------------------------

    fn announce_and_send(&mut self, io: &mut Io) -> Result<bool> {
        if self.write.is_some() || matches!(self.stage, Stage::Adopting { .. } | Stage::Gone | Stage::Failed) {
            return Ok(false);
        }
        let hurry = matches!(self.stage, Stage::Draining { .. } | Stage::DeliverFirst);
        let mut worked = false;
        if let Some((offer, mark)) = self.log.offer(io.boot_ms, hurry) {
            self.say_offer(io, offer, &mark);
            worked = true;
        }
        if !self.passes_gate(io.boot_ms) {
            return Ok(worked);
        }
        while let Some(mut send) = self.log.next_to_send(io.boot_ms) {
            let block = match send.block.take() {
                Some(block) => block,
                None => self.load_block(io.store, &send)?,
            };
            let (epoch, output) = (send.epoch, send.output);
            let stale = self.stale(&send, io.wall_ms);
            if !(io.submit)(Attempt { task: self.id, send, block, stale }) {
                self.log.undelivered(epoch, output, Attempted::NotBegun, io.boot_ms, |_| 0);
                break;
            }
            worked = true;
        }
        Ok(worked)
    }

    /// What may have been in the table for a while goes first.
    fn passes_gate(&mut self, boot_ms: u64) -> bool {
        let unclear = self.log.has_unclear(boot_ms, limits::GATE_AFTER_MS);
        if unclear != self.holds_gate {
            self.holds_gate = unclear;
            let gate = &self.settings.gate.unclear;
            if unclear {
                gate.fetch_add(1, Relaxed)
            } else {
                gate.fetch_sub(1, Relaxed)
            };
        }
        unclear || self.settings.gate.unclear.load(Relaxed) == 0
    }

    /// Whether the table may have forgotten the token of a block that may be in it.
    fn stale(&self, send: &ToSend, wall_ms: i64) -> Option<Stale> {
        let moment = self.log.next_moment()?;
        if !send.unclear || wall_ms - moment.note_ms < self.settings.window_ms {
            return None;
        }
        let topics = self.log.history().topics.iter();
        let from = self.log.acknowledged().positions();
        let ranges = topics.zip(from).zip(moment.positions()).map(|(((name, _), from), to)| (name.clone(), from, to));
        Some(Stale { ranges: ranges.collect(), resend: self.settings.resend_unclear })
    }

    /// A block of a former life, from the outbox.
    fn load_block(&self, store: &dyn StateStore, send: &ToSend) -> Result<Block> {
        let key = key::outbox(self.state, send.epoch, send.output);
        let body = store.get(Table::Outbox, &key)?.ok_or_else(|| {
            Error::stop("corrupt", format!("the block of {} is missing in the outbox", send.record.token))
        })?;
        let header = send.record.header.iter();
        let column =
            |(name, type_text): &(String, String)| ColumnHeader { name: name.clone(), type_text: type_text.clone() };
        Ok(Block {
            header: header.map(column).collect(),
            rows: send.record.rows,
            hash: send.record.hash,
            body: body.into(),
        })
    }

    fn say_offer(&mut self, io: &mut Io, offer: u64, mark: &Mark) {
        let commit = OffsetsToCommit {
            partition: self.id.partition,
            offsets: mark.acknowledged.positions(),
            metadata: mark.to_metadata(),
        };
        (io.say)(self.id, FromTask::Offer { offer, commit });
    }

    fn attempted(&mut self, epoch: Epoch, output: u16, outcome: AttemptOutcome, io: &mut Io) {
        let seed = self.id.partition as u64 ^ epoch.0 << 20;
        match outcome {
            AttemptOutcome::NotBegun => {
                self.log.undelivered(epoch, output, Attempted::NotBegun, io.boot_ms, |_| 0);
            }
            AttemptOutcome::Acknowledged { seconds } => {
                self.stuck = None;
                self.count_written(epoch, output, io.wall_ms);
                self.log.delivered(epoch, output, io.boot_ms);
                self.stats.acknowledged(seconds);
            }
            AttemptOutcome::Failed(error) => {
                self.stats.attempt_failed(&error);
                let stop = error.kind == Kind::Stop;
                let delay = |attempt| match stop {
                    true => io.boot_ms + limits::STOPPED_RETRY_MS,
                    false => io.boot_ms + limits::backoff_ms(attempt, seed),
                };
                let how = if stop { Attempted::Refused } else { Attempted::Unclear };
                let attempts = self.log.undelivered(epoch, output, how, io.boot_ms, delay);
                if stop && self.settings.stops_on_failure {
                    (io.say)(self.id, FromTask::Failed(error));
                } else if stop && self.stuck.is_none() {
                    tracing::error!(pipeline = self.settings.pipeline, partition = self.id.partition, "{error}");
                    self.stuck = Some(error);
                } else if !stop && attempts.is_power_of_two() {
                    tracing::warn!(
                        pipeline = self.settings.pipeline,
                        partition = self.id.partition,
                        attempts,
                        code = error.code,
                        "insert not acknowledged, trying again: {error}"
                    );
                }
            }
        }
    }

    fn count_written(&mut self, epoch: Epoch, output: u16, wall_ms: i64) {
        let Some(record) = self.log.output(epoch, output).filter(|record| self.chain.is_of_rows(record)) else {
            return;
        };
        self.timestamps_ms.retain(|sealed, _| *sealed >= epoch);
        let age = |timestamp_ms: i64| (wall_ms - timestamp_ms).max(0) as f64 / 1000.0;
        let ages = self.timestamps_ms.get(&epoch).map(|(oldest_ms, newest_ms)| (age(*oldest_ms), age(*newest_ms)));
        self.stats.written(record.rows, ages);
    }

    // --- the end -------------------------------------------------------------------------------------------

    fn begin_drain(&mut self, deadline_ms: Option<u64>) {
        let can_finish = matches!(self.stage, Stage::Running | Stage::Draining { .. });
        self.stage = match can_finish {
            true => Stage::Draining { deadline_ms },
            // What the mark and the ledger say, stands; an epoch that is half made again is not ours to seal.
            false => {
                self.open = None;
                Stage::Draining { deadline_ms: Some(0) }
            }
        };
    }

    fn drain(&mut self, io: &mut Io, deadline_ms: Option<u64>) -> Result<bool> {
        if self.open.is_some() && self.begun {
            self.seal(io, SealedWhy::End, None)?;
            return Ok(true);
        }
        let settled = self.log.is_settled();
        if settled && self.log.has_release() && self.begun {
            return Ok(self.release());
        }
        let late = deadline_ms.is_some_and(|deadline| io.boot_ms >= deadline);
        if settled || late {
            self.stage = Stage::Gone;
            (io.say)(self.id, FromTask::Gone { finished: settled && self.has_reached_ends() });
        }
        Ok(false)
    }

    fn release(&mut self) -> bool {
        let mut batch = WriteBatch::default();
        self.log.add_release(&mut batch);
        self.write = Some((batch, Writing::Release));
        true
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.holds_gate {
            self.settings.gate.unclear.fetch_sub(1, Relaxed);
        }
    }
}

/// `link(n)`: the hash of `link(n−1)`, the epoch's whole record, and the hash of each of its blocks.
fn next_link(previous: Link, record: &EpochRecord) -> Link {
    let unlinked = EpochRecord {
        after: Moment { link: previous, ..record.after.clone() },
        outputs: record
            .outputs
            .iter()
            .map(|output| crate::state::ledger::OutputRecord { body_bytes: 0, ..output.clone() })
            .collect(),
        ..record.clone()
    };
    Link(xxhash_rust::xxh3::xxh3_128(&encode(&unlinked)).to_le_bytes())
}
