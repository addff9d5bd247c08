//! How a task ends: seal, store, deliver, commit, release; what is late stays pending.

use super::{FromTask, Io, Stage, Task, Writing};
use crate::error::Result;
use crate::metrics::SealedWhy;
use crate::state::WriteBatch;

impl Task {
    pub(super) fn begin_drain(&mut self, deadline_ms: Option<u64>) {
        self.refuse_replays();
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

    pub(super) fn drain(&mut self, io: &mut Io, deadline_ms: Option<u64>) -> Result<bool> {
        if self.open.is_some() && self.begun {
            self.seal(io, SealedWhy::End, None)?;
            return Ok(true);
        }
        let settled = self.log.is_settled();
        if self.begun && (settled && self.log.has_release() || self.replay_counts()) {
            self.release()?;
            return Ok(true);
        }
        let late = deadline_ms.is_some_and(|deadline| io.boot_ms >= deadline);
        if settled || late {
            self.stage = Stage::Gone;
            (io.say)(self.id, FromTask::Gone { finished: settled && self.has_reached_ends() });
        }
        Ok(false)
    }

    /// A write of nothing but what an accepted commit has released.
    pub(super) fn release(&mut self) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.add_release(&mut batch)?;
        self.write = Some((batch, Writing::Release));
        Ok(())
    }

    /// Adds to a write what an accepted commit has released: outbox entries, and letters whose replay counts.
    pub(super) fn add_release(&mut self, batch: &mut WriteBatch) -> Result<()> {
        self.log.add_release(batch);
        self.release_letters(batch)
    }
}
