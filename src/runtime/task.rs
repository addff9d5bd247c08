//! One task: the state machine that takes a partition from its start through its epochs to its end.
//!
//! Owns its inputs, its steps and its commit log. Driven by `tick` and messages only: it holds no thread, no
//! channel and no clock, so the simulation runs this very code. Stores are handed out as one write batch
//! (`take_write`) so that tasks which seal at the same moment share an fsync.

mod begin;
mod discard;
mod end;
mod epoch;
mod messages;
mod replay;
mod send;

pub use discard::{DiscardAnswer, DiscardRequest};
pub use messages::{Attempt, AttemptOutcome, FromTask, Gate, Stale, TaskId, ToTask};
pub use replay::{ReplayAnswer, ReplayDone, ReplayRecords, ReplayRequest, ReplayStart};

use crate::config::plan::BatchPlan;
use crate::error::{Error, Result};
use crate::metrics::{JoinSnapshot, PipelineStats};
use crate::runtime::chain::Chain;
use crate::runtime::commit::{CommitLog, Discarded};
use crate::runtime::inputs::{Pass, TaskInputs};
use crate::state::ledger::{self, Cuts, Moment, Pending, RecordName};
use crate::state::{StateStore, WriteBatch};
use crate::types::{Epoch, TaskNo};
use replay::Replays;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

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
    pub replay: ReplayStart,
    /// Where processing ends under `--until-end`, per input.
    pub ends: Option<Vec<i64>>,
    /// New tables, as (input, end): they are read up to there before anything else.
    pub tables_first: Vec<(usize, i64)>,
    /// Positions at the last closing of windows before what is read next.
    pub closed: Option<Vec<i64>>,
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
    /// Dead letters of the open epoch.
    pub letter_bytes_max: usize,
    /// What could not be delivered for a reason only a person can mend ends the task instead of being retried.
    pub stops_on_failure: bool,
    pub gate: Arc<Gate>,
    /// `--close-windows`: at the noted ends all that waits comes out.
    pub closes_windows: bool,
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
    /// How long each pass took into the block builder.
    passes: Vec<Duration>,
    /// The records of a replay, and the hash of those that are there.
    replay: Vec<RecordName>,
    records_hash: u64,
    /// Everything that waited in windows came out.
    closes: bool,
}

/// What a handed-out write was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writing {
    Beginning,
    Epoch,
    Reread {
        whole: bool,
    },
    Release,
    /// The outbox without a block.
    Discard,
}

pub struct Task {
    pub id: TaskId,
    settings: Arc<TaskSettings>,
    stats: Arc<PipelineStats>,
    state: TaskNo,
    retires: Option<TaskNo>,
    drops: Vec<(Epoch, u16)>,
    log: CommitLog,
    /// Bytes that the mark has for cuts, or for the names of replayed records.
    mark_room: usize,
    inputs: TaskInputs,
    chain: Chain,
    stage: Stage,
    ends: Option<Vec<i64>>,
    tables_first: Vec<(usize, i64)>,
    /// Positions at the last closing of windows, of what was processed so far.
    closed: Option<Vec<i64>>,
    open: Option<OpenEpoch>,
    /// Kafka timestamps of the first and last row of sealed epochs, for the latency.
    timestamps_ms: BTreeMap<Epoch, (i64, i64)>,
    /// Of the epoch that is being written: its passes, and how long its encoding took.
    sealed_passes: (Vec<Duration>, Duration),
    reread_records: u64,
    replays: Replays,
    /// Blocks to be taken out of the outbox, and the one whose write is under way.
    discards: Vec<DiscardRequest>,
    discarding: Option<(DiscardRequest, Discarded)>,
    begun: bool,
    /// Not delivered for a reason only a person can mend: nothing is processed until a later attempt succeeds.
    stuck: Option<Error>,
    /// Counted in the gate.
    holds_gate: bool,
    write: Option<(WriteBatch, Writing)>,
    writing: Option<Writing>,
}

impl Task {
    pub fn new(mut start: TaskStart, settings: Arc<TaskSettings>, stats: Arc<PipelineStats>) -> Task {
        let history = start.log.history();
        start.chain.letters().set_topic_ids(&history.topics);
        let topics = history.topics.iter().map(|(name, _)| name.as_str());
        // Where there is none, `compile::judge` has said so; then each pass is an epoch.
        let mark_room = ledger::mark_room(&history.pipeline, topics).unwrap_or(0);
        Task {
            id: start.id,
            settings,
            stats,
            state: start.state,
            retires: start.retires,
            drops: start.drops,
            log: start.log,
            mark_room,
            inputs: start.inputs,
            chain: start.chain,
            stage: start.stage,
            ends: start.ends,
            tables_first: start.tables_first,
            closed: start.closed,
            open: None,
            timestamps_ms: BTreeMap::new(),
            sealed_passes: Default::default(),
            reread_records: 0,
            replays: Replays::new(start.replay),
            discards: vec![],
            discarding: None,
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

    /// The last acknowledged epoch.
    pub fn acknowledged(&self) -> Epoch {
        self.log.acknowledged().epoch
    }

    /// Per step: about how many keys it remembers.
    pub fn state_keys(&self) -> Vec<u64> {
        self.chain.state_keys()
    }

    /// What waits in each join.
    pub fn waiting(&self) -> Vec<JoinSnapshot> {
        self.chain.waiting()
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
        // What is in the way of the outbox can also be in the way of the beginning.
        if (self.begun || self.stage == Stage::DeliverFirst) && self.discard_next(io)? {
            return Ok(true);
        }
        let worked = match &self.stage {
            Stage::Adopting { .. } => self.begin_history(io),
            Stage::DeliverFirst => self.deliver_first(io)?,
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

    /// The write that was taken took so long: with it each pass of the epoch is whole.
    pub fn write_took(&mut self, took: Duration) {
        let (passes, encoding) = std::mem::take(&mut self.sealed_passes);
        passes.into_iter().for_each(|pass| self.stats.processed(pass + encoding + took));
    }

    /// The write that was taken is durable.
    pub fn written(&mut self, io: &mut Io) {
        let writing = self.writing.take().expect("a write was taken before it is written");
        self.letters_released();
        match writing {
            Writing::Release => {}
            Writing::Discard => self.discarded(io),
            Writing::Beginning => self.begun = true,
            Writing::Epoch => {
                self.chain.stored(io.store, self.log.tip().watermark_ms);
                self.log.stored(io.boot_ms);
                for (step, keys) in self.chain.take_key_samples() {
                    (io.say)(self.id, FromTask::Keys { step, keys });
                }
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
            ToTask::Replay(request) => self.ask_to_replay(request),
            ToTask::Discard(request) => self.ask_to_discard(request),
            ToTask::Drain { deadline_ms } => self.begin_drain(deadline_ms),
            ToTask::Attempted { epoch, output, outcome } => self.attempted(epoch, output, outcome, io),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.holds_gate {
            self.settings.gate.unclear.fetch_sub(1, Relaxed);
        }
    }
}
