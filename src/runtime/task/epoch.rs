//! From records to a sealed epoch: passes, what ends an epoch, its link, and the one write batch that holds it.
//!
//! Which inputs are set aside is decided when an epoch begins, and holds from its start: the set raises the watermark
//! before the first row, and is written down with the epoch. Where a join waits for just that, the change makes an
//! epoch by itself: one without records, whose pending names the set, and which is made again from nothing but it. A
//! change while an epoch is open seals it.

use super::{Io, OpenEpoch, Task, Writing};
use crate::error::{Error, Result};
use crate::metrics::SealedWhy;
use crate::runtime::chain::{Mode, SealAt};
use crate::runtime::inputs::{Found, PassLimit};
use crate::runtime::limits;
use crate::state::ledger::{Cuts, EpochRecord, Moment, NUMBER_BYTES_MAX, Pending, Replayed, encode, flag, key};
use crate::state::{Table, WriteBatch};
use crate::types::Link;

impl Task {
    pub(super) fn run(&mut self, io: &mut Io) -> Result<bool> {
        if self.begin_ledger(false)? {
            return Ok(true);
        }
        if self.has_reached_ends() {
            self.finish(io)?;
            return Ok(true);
        }
        if self.replay_counts() {
            self.release()?;
            return Ok(true);
        }
        if self.wants_replay() {
            self.begin_replay(io)?;
            return Ok(true);
        }
        let worked = self.has_room() && self.process_next_pass(io)?;
        if let Some(why) = self.why_to_seal(io) {
            self.seal(io, why, None)?;
            return Ok(true);
        }
        Ok(worked)
    }

    pub(super) fn has_room(&self) -> bool {
        let (_, bytes) = self.log.outbox();
        self.stuck.is_none()
            && self.log.epochs_waiting() < limits::OUTBOX_EPOCHS_MAX
            && bytes < self.settings.outbox_bytes_max
    }

    pub(super) fn has_reached_ends(&self) -> bool {
        let ends = self.ends.as_ref();
        ends.is_some_and(|ends| self.inputs.positions().iter().zip(ends).all(|(position, end)| position >= end))
    }

    pub(super) fn pass_limit<'a>(&self, records: usize, ends: Option<&'a [i64]>) -> PassLimit<'a> {
        PassLimit { records, bytes: limits::PASS_BYTES_MAX, offset_ends: ends }
    }

    /// At the noted ends: seals what is open, lets out what waits if that is asked for, then ends.
    fn finish(&mut self, io: &mut Io) -> Result<()> {
        let closes = self.settings.closes_windows
            && self.chain.waits()
            && self.closed.as_ref() != Some(&self.inputs.positions());
        if !closes {
            self.begin_drain(None);
            return Ok(());
        }
        if self.open.is_some() {
            return self.seal(io, SealedWhy::End, None);
        }
        self.inputs.begin_epoch(self.idle_at_start(io), io.wall_ms);
        self.open = Some(OpenEpoch { closes, ..self.opened(io) });
        self.let_time_go_on(io)?;
        self.close_windows(io, Mode::Deliver)?;
        self.seal(io, SealedWhy::End, None)
    }

    fn process_next_pass(&mut self, io: &mut Io) -> Result<bool> {
        let began = std::time::Instant::now();
        let (rows, records) = (self.chain.block_rows(), self.open.as_ref().map_or(0, |open| open.records));
        let left = self.settings.batch.rows.saturating_sub(rows).min(limits::EPOCH_RECORDS_MAX - records);
        let read_tables = !self.tables_first.is_empty();
        let ends = self.table_ends();
        if read_tables && ends.is_none() && self.open.is_some() {
            // Up to here there are epochs of tables alone.
            self.seal(io, SealedWhy::End, None)?;
            return Ok(true);
        }
        let times_before = self.inputs.times;
        let begins = self.open.is_none();
        let rises = begins && self.inputs.begin_epoch(self.idle_at_start(io), io.wall_ms);
        let idle_before = self.inputs.times.idle;
        let limit = PassLimit {
            records: self.chain.pass_records_max().min(left.max(1) as usize),
            bytes: limits::PASS_BYTES_MAX,
            offset_ends: ends.as_deref().or(self.ends.as_deref()),
        };
        let mut cuts = Cuts::default();
        if self.inputs.next_pass(io.pass, limit, io.boot_ms, &mut cuts)? == Found::Nothing {
            if !(rises && self.chain.waits()) {
                if begins {
                    // No epoch, no decision: a later one may see another clock and other inputs idle.
                    self.inputs.times = times_before;
                }
                return Ok(false);
            }
            self.inputs.empty_pass(io.pass);
        }
        if begins {
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
        self.open.as_mut().expect("an epoch is open").passes.push(began.elapsed());
        Ok(true)
    }

    /// While new tables are read, before anything else: where each input ends for now.
    fn table_ends(&mut self) -> Option<Vec<i64>> {
        if self.tables_first.is_empty() {
            return None;
        }
        let mut ends = self.inputs.positions();
        // Nothing is read beyond what `--until-end` has noted.
        let last = |input: usize| self.ends.as_ref().map_or(i64::MAX, |ends| ends[input]);
        self.tables_first.retain(|(input, end)| ends[*input] < (*end).min(last(*input)));
        self.tables_first.iter().for_each(|(input, end)| ends[*input] = (*end).min(last(*input)));
        (!self.tables_first.is_empty()).then_some(ends)
    }

    pub(super) fn opened(&self, io: &Io) -> OpenEpoch {
        OpenEpoch {
            opened_ms: io.boot_ms,
            idle_before: self.inputs.times.idle,
            cuts: Cuts::default(),
            records: 0,
            timestamps_ms: None,
            passes: vec![],
            replay: vec![],
            records_hash: 0,
            closes: false,
        }
    }

    /// Who is set aside if an epoch begins now. Who was, stays so until its first record. Under --until-end nobody is,
    /// and one input's idleness changes nothing.
    fn idle_at_start(&self, io: &Io) -> u64 {
        match (&self.ends, self.inputs.len()) {
            (Some(_), _) => 0,
            (None, 1) => self.inputs.times.idle,
            _ => self.inputs.times.idle | self.inputs.idle_now(&self.settings.idle_after_ms, io.boot_ms),
        }
    }

    fn why_to_seal(&self, io: &Io) -> Option<SealedWhy> {
        let batch = &self.settings.batch;
        let open = self.open.as_ref()?;
        let too_much = open.records >= limits::EPOCH_RECORDS_MAX
            || self.chain.state_bytes() >= self.settings.state_bytes_max
            || self.chain.letter_bytes() >= self.settings.letter_bytes_max
            || self.mark_is_full(&open.cuts);
        if self.chain.block_rows() >= batch.rows {
            Some(SealedWhy::Rows)
        } else if self.chain.block_bytes() >= batch.bytes as usize || too_much {
            Some(SealedWhy::Bytes)
        } else if io.boot_ms.saturating_sub(open.opened_ms) >= batch.interval_ms {
            Some(SealedWhy::Age)
        } else if self.idle_at_start(io) & !self.inputs.times.idle != 0 {
            // A change of the idle set seals the open epoch and holds from the start of the next.
            Some(SealedWhy::Age)
        } else {
            None
        }
    }

    /// Whether the mark may have no room for the cut of one more pass.
    fn mark_is_full(&self, cuts: &Cuts) -> bool {
        self.inputs.is_merged() && cuts.mark_bytes() + NUMBER_BYTES_MAX * self.inputs.len() > self.mark_room
    }

    /// Seals the open epoch: encode, link, and one write batch with everything that belongs to it.
    pub(super) fn seal(&mut self, io: &Io, why: SealedWhy, forced: Option<&Pending>) -> Result<()> {
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
        let replays = if open.replay.is_empty() { 0 } else { flag::REPLAY };
        let own_flags = replays | if open.closes { flag::CLOSED } else { 0 };
        let flags = forced.map_or(own_flags, |pending| pending.flags);
        let replayed = (flags & flag::REPLAY != 0).then_some(Replayed { epoch, records: open.records_hash });
        if flags & flag::CLOSED != 0 {
            self.closed = Some(self.inputs.positions());
        }
        if let Some(replayed) = replayed {
            self.seal_replay(replayed, &mut batch)?;
        }
        let mut record = EpochRecord {
            after: Moment {
                epoch,
                link: Link::default(),
                inputs: self.inputs.progress(),
                watermark_ms: self.inputs.times.watermark_ms,
                idle: self.inputs.times.idle,
                note_ms: self.inputs.times.note_ms,
                closed: self.closed.clone(),
                replayed: replayed.or(tip.replayed),
            },
            cuts: open.cuts,
            flags,
            idle_before: open.idle_before,
            outputs,
            replay: open.replay,
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
        self.add_release(&mut batch)?;
        self.stats.sealed(why, record.outputs.iter().map(|output| output.rows));
        self.sealed_passes = (open.passes, began.elapsed());
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
