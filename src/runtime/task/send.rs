//! Announcing what is stored and sending it: offers of marks, attempts under the lease, and their answers.

use super::{Attempt, AttemptOutcome, FromTask, Io, Stage, Stale, Task};
use crate::error::{Error, Kind, Result};
use crate::runtime::commit::{Attempted, ToSend};
use crate::runtime::limits;
use crate::sink::{Block, ColumnHeader, NOT_SENT};
use crate::source::OffsetsToCommit;
use crate::state::ledger::{Mark, key};
use crate::state::{StateStore, Table};
use crate::types::Epoch;
use std::sync::atomic::Ordering::Relaxed;

/// What a failed attempt may have left in the table. A server that refuses a block may have stored it all the same: a
/// view can throw behind it.
fn what_is_left(error: &Error) -> Attempted {
    if error.code == NOT_SENT { Attempted::Refused } else { Attempted::Unclear }
}

impl Task {
    pub(super) fn announce_and_send(&mut self, io: &mut Io) -> Result<bool> {
        if self.write.is_some() || matches!(self.stage, Stage::Adopting { .. } | Stage::Gone | Stage::Failed) {
            return Ok(false);
        }
        let hurry = matches!(self.stage, Stage::Draining { .. } | Stage::DeliverFirst) || self.has_replay_to_say();
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
        let topics = &self.log.history().topics;
        let from = self.log.acknowledged().positions();
        let ranges = topics.iter().zip(from).zip(moment.positions());
        let ranges = ranges.map(|(((name, _), from), to)| (name.clone(), from, to));
        // A replay has no ranges: its records lie wherever they lay.
        let named = self.log.next_replay().iter().filter_map(|name| {
            let (topic, _) = topics.get(name.input as usize)?;
            Some((topic.clone(), name.offset, name.offset + 1))
        });
        Some(Stale { ranges: ranges.chain(named).collect(), resend: self.settings.resend_unclear })
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

    pub(super) fn say_offer(&mut self, io: &mut Io, offer: u64, mark: &Mark) {
        // A history that another plan began may know other topics than are read now.
        let begins = self.inputs.positions();
        let offset = |(index, name): (usize, &str)| {
            mark.position_of(name).or_else(|| (index == 0).then(|| begins.first().copied()).flatten())
        };
        let topics = self.stats.topics.iter().map(|topic| topic.topic.as_str());
        let commit = OffsetsToCommit {
            partition: self.id.partition,
            offsets: topics.enumerate().map(offset).collect(),
            metadata: mark.to_metadata(),
        };
        (io.say)(self.id, FromTask::Offer { offer, commit });
    }

    pub(super) fn attempted(&mut self, epoch: Epoch, output: u16, outcome: AttemptOutcome, io: &mut Io) {
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
                let how = what_is_left(&error);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_before_it_was_sent_has_left_nothing() {
        assert_eq!(what_is_left(&Error::stop(NOT_SENT, "a column is gone")), Attempted::Refused);
        for error in [
            Error::stop("395", "a view throws"),
            Error::stop("16", "the server knows no such column"),
            Error::stop("unclear", "nobody knows"),
            Error::retry("network", "reset"),
        ] {
            assert_eq!(what_is_left(&error), Attempted::Unclear, "{error}");
        }
    }
}
