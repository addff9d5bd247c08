//! How a task begins: the first mark of a history, re-reading state-only, the epoch that the mark names.

use super::{FromTask, Io, OpenEpoch, Stage, Task, Writing};
use crate::error::Result;
use crate::metrics::SealedWhy;
use crate::runtime::chain::Mode;
use crate::runtime::inputs::Found;
use crate::runtime::limits;
use crate::state::ledger::{Checkpoint, Cuts, Moment, Pending, TaskEntry, encode, flag, key};
use crate::state::{Table, WriteBatch};

impl Task {
    /// Offers the first mark of a new history. It is written to the ledger only when it was accepted.
    pub(super) fn begin_history(&mut self, io: &mut Io) -> bool {
        if self.log.is_offered() {
            return false;
        }
        let (offer, mark) = self.log.offer_first();
        self.say_offer(io, offer, &mark);
        true
    }

    /// Before the first epoch or re-read of this life: the ledger says whose state this is.
    pub(super) fn begin_ledger(&mut self, restoring: bool) -> Result<bool> {
        if self.begun {
            return Ok(false);
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
        self.take_up_replay(&mut batch)?;
        self.add_release(&mut batch)?;
        self.write = Some((batch, Writing::Beginning));
        Ok(true)
    }

    /// The tip's epoch, with the positions and times of what was read so far: re-reading goes on from these.
    fn moment_under_way(&self) -> Moment {
        let times = &self.inputs.times;
        Moment {
            inputs: self.inputs.progress(),
            watermark_ms: times.watermark_ms,
            idle: times.idle,
            closed: self.closed.clone(),
            ..self.log.tip().clone()
        }
    }

    pub(super) fn checkpoint(&self, moment: Moment, restoring: bool) -> Checkpoint {
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

    pub(super) fn deliver_first(&mut self, io: &mut Io) -> Result<bool> {
        if !self.log.is_delivered() {
            return Ok(false);
        }
        if let Some((offer, mark)) = self.log.offer(io.boot_ms, true) {
            self.say_offer(io, offer, &mark);
            return Ok(true);
        }
        if self.log.is_settled() {
            if self.log.has_release() {
                self.release()?;
                return Ok(true);
            }
            self.stage = Stage::Gone;
            (io.say)(self.id, FromTask::DecideAgain);
        }
        Ok(false)
    }

    /// Everything runs, sink validation included; only blocks, dead letters and counters are withheld.
    pub(super) fn reread(&mut self, io: &mut Io, to: &Moment) -> Result<bool> {
        if self.begin_ledger(true)? {
            return Ok(true);
        }
        self.inputs.times.note_ms = to.note_ms;
        let closing = self.closing_on_the_way(to);
        let ends = closing.clone().unwrap_or_else(|| to.positions());
        let limit = self.pass_limit(self.chain.pass_records_max(), Some(&ends));
        let mut cuts = Cuts::default();
        let found = self.inputs.next_pass(io.pass, limit, io.boot_ms, &mut cuts)?;
        if found == Found::Pass {
            self.chain.process(io.pass, &self.inputs, io.store, Mode::StateOnly)?;
            self.reread_records += io.pass.records;
        }
        let done = self.inputs.positions().iter().zip(&ends).all(|(position, end)| position >= end);
        if done && closing.is_some() {
            self.close_windows(io, Mode::StateOnly)?;
            self.closed.clone_from(&to.closed);
        } else if done {
            self.inputs.set_progress(to);
            self.closed.clone_from(&to.closed);
            // Who was set aside held the watermark while all was read again: what it released then is gone.
            self.inputs.empty_pass(io.pass);
            self.chain.process(io.pass, &self.inputs, io.store, Mode::StateOnly)?;
            let whole = Moment { link: to.link, epoch: to.epoch, ..self.moment_under_way() };
            self.store_reread(io, whole, false)?;
        } else if self.reread_records >= limits::REREAD_RECORDS_MAX
            || self.chain.state_bytes() >= self.settings.state_bytes_max
        {
            self.store_reread(io, self.moment_under_way(), true)?;
        }
        Ok(found == Found::Pass || done)
    }

    /// Where re-reading comes to the last closing of windows, if that is still to be made again.
    fn closing_on_the_way(&self, to: &Moment) -> Option<Vec<i64>> {
        let closed = to.closed.as_ref().filter(|closed| self.closed.as_ref() != Some(closed))?;
        let places = closed.iter().zip(self.inputs.positions()).zip(to.positions());
        Some(places.map(|((closed, position), end)| (*closed).max(position).min(end)).collect())
    }

    /// Everything that waits comes out, as if the watermark had reached the end of time; it stays where it is.
    pub(super) fn close_windows(&mut self, io: &mut Io, mode: Mode) -> Result<()> {
        self.inputs.empty_pass(io.pass);
        self.chain.close_windows(io.pass, &self.inputs, io.store, mode)
    }

    fn store_reread(&mut self, io: &Io, moment: Moment, restoring: bool) -> Result<()> {
        self.reread_records = 0;
        let mut batch = WriteBatch::default();
        self.chain.seal_state(io.store, moment.watermark_ms, &mut batch)?;
        batch.put(Table::Ledger, key::checkpoint(self.state), encode(&self.checkpoint(moment, restoring)));
        self.add_release(&mut batch)?;
        self.write = Some((batch, Writing::Reread { whole: !restoring }));
        Ok(())
    }

    pub(super) fn after_rereading(&self) -> Stage {
        match self.log.forced() {
            Some(pending) => Stage::Forcing(Box::new(pending.clone())),
            None => Stage::Running,
        }
    }

    /// The epoch that the mark names: its ranges, cuts, note and flags, and its link, whatever comes out.
    pub(super) fn force(&mut self, io: &mut Io, pending: &Pending) -> Result<bool> {
        if self.begin_ledger(false)? {
            return Ok(true);
        }
        if pending.flags & flag::REPLAY != 0 {
            self.force_replay(io, pending)?;
            self.stage = Stage::Running;
            return Ok(true);
        }
        if self.open.is_none() {
            self.inputs.begin_epoch(pending.idle, pending.note_ms);
            let closes = pending.flags & flag::CLOSED != 0;
            self.open = Some(OpenEpoch { idle_before: pending.idle, closes, ..self.opened(io) });
            if pending.cuts.0.is_empty() && self.inputs.is_merged() {
                // It has no record: all that it did was to let time go on.
                self.let_time_go_on(io)?;
            }
        }
        let done = match self.inputs.is_merged() {
            false => self.force_range(io, pending)?,
            true => self.force_next_pass(io, pending)?,
        };
        let worked = done || io.pass.records > 0;
        if done {
            if pending.flags & flag::CLOSED != 0 {
                self.close_windows(io, Mode::Deliver)?;
            }
            self.seal(io, SealedWhy::End, Some(pending))?;
            self.stage = Stage::Running;
        }
        Ok(worked)
    }

    /// Processes a pass without a record, at the epoch's start: what waits for the watermark that a change of the idle
    /// set has raised is released.
    pub(super) fn let_time_go_on(&mut self, io: &mut Io) -> Result<()> {
        self.inputs.empty_pass(io.pass);
        self.chain.process(io.pass, &self.inputs, io.store, Mode::Deliver)
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
    fn force_next_pass(&mut self, io: &mut Io, pending: &Pending) -> Result<bool> {
        let inputs = self.inputs.len();
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
}
