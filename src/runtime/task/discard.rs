//! The way out for a block that the table can never take, while the task runs.
//!
//! Owns the requests that wait. Promises: nothing is discarded while an attempt is under way, nor while the block may
//! be in the table unless forced; what is taken out is gone with one synced write, before anything else is sent. Why
//! the epoch then counts as acknowledged: `runtime/outbox.rs`.

use super::{Io, Task, Writing};
use crate::error::{Error, Result};
use crate::runtime::commit::{Discarded, NotDiscarded};
use crate::runtime::limits;
use crate::state::ledger::{count_discarded, encode, key};
use crate::state::{Table, WriteBatch};
use crossbeam_channel::Sender;

/// A block that is to be discarded.
#[derive(Debug)]
pub struct DiscardRequest {
    pub token: String,
    /// Also when it may be in the table.
    pub force: bool,
    pub answer: Sender<DiscardAnswer>,
    /// Until when it may be begun, and an attempt under way is waited for (boot clock): who asked is told `no` then.
    pub until_ms: u64,
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiscardAnswer {
    Done {
        rows: u64,
        bytes: u64,
    },
    Refused(NotDiscarded),
    /// Nothing was begun, for this reason.
    NotBegun(String),
    /// None came in time: the block may be discarded, or not.
    Unknown,
}

impl Task {
    pub(super) fn ask_to_discard(&mut self, request: DiscardRequest) {
        if self.discards.len() < limits::TASK_REQUESTS_MAX {
            return self.discards.push(request);
        }
        let why = format!("partition {} has too many blocks to discard already", self.id.partition);
        let _ = request.answer.send(DiscardAnswer::NotBegun(why));
    }

    /// Takes the first block out that can be; true when there is a write to be made.
    pub(super) fn discard_next(&mut self, io: &mut Io) -> Result<bool> {
        if self.discards.is_empty() || self.write.is_some() {
            return Ok(false);
        }
        let requests = std::mem::take(&mut self.discards);
        let mut requests = requests.into_iter();
        while let Some(request) = requests.next() {
            // Never after its caller was told that nothing happened.
            if io.boot_ms >= request.until_ms {
                let _ = request.answer.send(self.too_late(&request));
                continue;
            }
            match self.log.discard(&request.token, request.force) {
                Ok(discarded) => {
                    self.discards.extend(requests);
                    self.write_without(io, request, discarded)?;
                    return Ok(true);
                }
                Err(NotDiscarded::UnderWay) => self.discards.push(request),
                Err(refused) => _ = request.answer.send(DiscardAnswer::Refused(refused)),
            }
        }
        Ok(false)
    }

    fn too_late(&self, request: &DiscardRequest) -> DiscardAnswer {
        if self.log.is_under_way(&request.token) {
            return DiscardAnswer::Refused(NotDiscarded::UnderWay);
        }
        DiscardAnswer::NotBegun(format!("partition {} did not come to it in time", self.id.partition))
    }

    fn write_without(&mut self, io: &Io, request: DiscardRequest, discarded: Discarded) -> Result<()> {
        let was_alone = discarded.record.outputs.is_empty();
        let epoch = discarded.record.after.epoch;
        let at = |output: u16| key::outbox(self.state, epoch, output);
        let mut batch = WriteBatch::default();
        for &(from, to) in &discarded.moves {
            let body = io
                .store
                .get(Table::Outbox, &at(from))?
                .ok_or_else(|| Error::stop("corrupt", format!("a block of epoch {epoch} is missing in the outbox")))?;
            batch.put(Table::Outbox, at(to), body);
        }
        batch.delete(Table::Outbox, at(discarded.record.outputs.len() as u16));
        for record in discarded.later.iter().chain([&discarded.record]) {
            batch.put(Table::Ledger, key::epoch(self.state, record.after.epoch), encode(record));
        }
        if self.chain.is_of_rows(&discarded.output) {
            count_discarded(io.store, self.state, discarded.output.rows, &mut batch)?;
        }
        self.keep_letters(epoch, discarded.was_unclear || !was_alone, &mut batch)?;
        self.write = Some((batch, Writing::Discard));
        self.discarding = Some((request, discarded));
        Ok(())
    }

    /// The write without the block is durable.
    pub(super) fn discarded(&mut self, io: &Io) {
        let Some((request, discarded)) = self.discarding.take() else { return };
        let (rows, bytes, was_unclear) = (discarded.output.rows, discarded.output.body_bytes, discarded.was_unclear);
        tracing::warn!(
            pipeline = self.settings.pipeline,
            partition = self.id.partition,
            token = request.token,
            rows,
            bytes,
            was_unclear,
            "block discarded: its rows are not in the table, or nobody knows"
        );
        self.stats.discarded();
        self.log.discarded(io.boot_ms);
        // What it stood in the way of goes on.
        self.stuck = None;
        let _ = request.answer.send(DiscardAnswer::Done { rows, bytes });
    }
}
