//! Dead letters on their way back: an epoch of its own, without ranges, that names each record.
//!
//! Owns the requests that wait and the replay that is under way, one at a time. Promises: a letter goes only with a
//! write that follows the accepted acknowledgement of its epoch; a replayed record is decoded, filtered and encoded
//! as any other, past dedup: it neither asks nor changes what the steps remember, so that whoever restores the task
//! needs to know nothing of it; one that fails again stays a dead letter under its name, with the new reason.

use super::{Io, OpenEpoch, Stage, Task};
use crate::codec::record::RecordBatch;
use crate::error::Result;
use crate::metrics::SealedWhy;
use crate::runtime::chain::Mode;
use crate::runtime::limits;
use crate::state::WriteBatch;
use crate::state::ledger::{Pending, RECORD_NAME_BYTES_MAX, RecordName, Replayed, names_hash};
use crate::state::letters::{Ended, Ending, Letter, LetterId, Letters, Replaying};
use crate::types::Epoch;
use crossbeam_channel::Sender;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Letters of one partition that are to be replayed.
#[derive(Debug)]
pub struct ReplayRequest {
    /// Their numbers.
    pub seqs: VecDeque<u64>,
    pub answer: Sender<ReplayAnswer>,
    /// What became of those that are done.
    pub done: ReplayDone,
}

impl ReplayRequest {
    pub fn new(mut seqs: Vec<u64>, answer: Sender<ReplayAnswer>) -> ReplayRequest {
        let mut named = BTreeSet::new();
        seqs.retain(|&seq| named.insert(seq));
        ReplayRequest { seqs: seqs.into(), answer, done: ReplayDone::default() }
    }
}

/// How a request ended. None comes when the task went away under it: what was stored goes on with the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayAnswer {
    Done(ReplayDone),
    /// Nothing was begun, for this reason.
    Refused(String),
}

/// What became of replayed letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayDone {
    /// Gone: their rows are in the table, or a step dropped them.
    pub replayed: u64,
    /// Dead letters again, with the new reason, or because their block was discarded.
    pub failed: u64,
    /// Not there any more, being replayed already, of a topic that is no input of the pipeline now, not begun when the
    /// task had to stop, or nothing that can go through a join again: a row that waited there, or one of a right side.
    pub skipped: u64,
    /// Of a topic that was deleted and created again since: its offset names another record now.
    pub recreated: u64,
}

/// What a start found of a replay.
#[derive(Default)]
pub struct ReplayStart {
    /// Stored and not settled: it is in the outbox, or has to be made again first.
    pub under_way: Option<Replaying>,
    /// To be ended with the first write.
    pub ended: Option<(Replaying, Ending)>,
    /// The records of the epoch that the mark names, if that is a replay.
    pub records: ReplayRecords,
}

/// The records of a replay epoch.
#[derive(Default)]
pub struct ReplayRecords {
    /// Per input, in the order of their offsets.
    batches: BTreeMap<u16, RecordBatch>,
    /// Each record with its letters in the local store; with none where another instance keeps them.
    letters: BTreeMap<RecordName, Vec<LetterId>>,
    bytes: usize,
}

impl ReplayRecords {
    /// Adds a record out of its letter. Those of one input come in the order of their offsets.
    pub fn add(&mut self, name: RecordName, letter: &Letter, ids: Vec<LetterId>) {
        let headers = letter.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
        let batch = self.batches.entry(name.input).or_default();
        batch.push(name.offset, letter.timestamp_ms, letter.key.as_deref(), letter.value.as_deref(), headers);
        self.bytes += letter.value.as_ref().map_or(0, Vec::len);
        self.letters.insert(name, ids);
    }

    /// Adds a record that was read again, if it was found.
    pub fn add_fetched(&mut self, name: RecordName, fetched: &RecordBatch) {
        let Some(record) = fetched.records.iter().find(|record| record.offset == name.offset) else { return };
        let bytes = |span| fetched.slice(span);
        let batch = self.batches.entry(name.input).or_default();
        let headers = fetched.headers(record);
        batch.push(name.offset, record.timestamp_ms, record.key.map(bytes), record.value.map(bytes), headers);
        self.letters.insert(name, vec![]);
    }

    fn names(&self) -> Vec<RecordName> {
        self.letters.keys().copied().collect()
    }
}

/// A replay that is sealed.
pub(super) struct UnderWay {
    entry: Replaying,
    /// Who waits for it; nobody for one of a former life.
    request: Option<ReplayRequest>,
}

/// A task's replays.
#[derive(Default)]
pub(super) struct Replays {
    waiting: VecDeque<ReplayRequest>,
    /// The request whose epoch is being filled.
    filling: Option<ReplayRequest>,
    /// The request whose letters go with the write under way.
    answering: Option<ReplayRequest>,
    under_way: Option<UnderWay>,
    /// The records of the epoch that the mark names.
    forced: ReplayRecords,
    /// Of a former life, to be ended with the first write.
    to_end: Option<(Replaying, Ending)>,
    /// Endings that are part of the write under way.
    ending: Vec<Ended>,
}

impl Replays {
    pub(super) fn new(start: ReplayStart) -> Replays {
        let under_way = start.under_way.map(|entry| UnderWay { entry, request: None });
        Replays { under_way, to_end: start.ended, forced: start.records, ..Replays::default() }
    }
}

impl Task {
    pub(super) fn ask_to_replay(&mut self, request: ReplayRequest) {
        let refused = match self.stage {
            Stage::Running if self.replays.waiting.len() < limits::TASK_REQUESTS_MAX => {
                return self.replays.waiting.push_back(request);
            }
            Stage::Running => "has too many replays to do already",
            Stage::Draining { .. } | Stage::Gone | Stage::Failed => "is being stopped",
            _ => "has not begun to run yet",
        };
        refuse(request, format!("partition {} {refused}: nothing is replayed", self.id.partition));
    }

    /// Those that were not begun are told so.
    pub(super) fn refuse_replays(&mut self) {
        let partition = self.id.partition;
        for request in self.replays.waiting.drain(..) {
            match request.done == ReplayDone::default() {
                true => refuse(request, format!("partition {partition} is being stopped: nothing is replayed")),
                false => answer(request),
            }
        }
    }

    /// Whether a replay is to be begun now: one at a time, and only where the outbox has room.
    pub(super) fn wants_replay(&self) -> bool {
        !self.replays.waiting.is_empty() && self.replays.under_way.is_none() && self.has_room()
    }

    /// Ends the open epoch, then fills and seals one of dead letters.
    pub(super) fn begin_replay(&mut self, io: &mut Io) -> Result<()> {
        if self.open.is_some() {
            return self.seal(io, SealedWhy::Age, None);
        }
        let Some(mut request) = self.replays.waiting.pop_front() else { return Ok(()) };
        let records = self.next_records(&mut request)?;
        if records.letters.is_empty() {
            answer(request);
            return Ok(());
        }
        self.inputs.times.note_ms = io.wall_ms;
        self.fill_with_letters(io, &records, records.names(), self.inputs.times.idle)?;
        self.replays.filling = Some(request);
        self.seal(io, SealedWhy::End, None)
    }

    /// As many of the letters asked for as an epoch takes; they are claimed until the seal names them.
    fn next_records(&mut self, request: &mut ReplayRequest) -> Result<ReplayRecords> {
        let store = self.letters();
        let topics = &self.log.history().topics;
        let mut found: BTreeMap<RecordName, (Letter, Vec<LetterId>)> = BTreeMap::new();
        let mut bytes = 0;
        let records_max = limits::REPLAY_RECORDS_MAX.min(self.mark_room / RECORD_NAME_BYTES_MAX).max(1);
        while found.len() < records_max && bytes < limits::EPOCH_LETTER_BYTES_MAX {
            let Some(seq) = request.seqs.pop_front() else { break };
            let id = LetterId { partition: self.id.partition as u32, seq };
            // One that somebody else has claimed has no letter here.
            let Some(letter) = store.claim(id)? else {
                request.done.skipped += 1;
                continue;
            };
            let Some(input) = topics.iter().position(|(topic, id)| letter.is_of(topic, *id)) else {
                store.unclaim(id);
                match topics.iter().any(|(topic, _)| *topic == letter.topic) {
                    true => request.done.recreated += 1,
                    false => request.done.skipped += 1,
                }
                continue;
            };
            // A row that waited in a join is not here whole, and a row of a right side would change what others meet.
            if letter.is_of_kept_fields() || !self.inputs.feeds_source(input) {
                store.unclaim(id);
                request.done.skipped += 1;
                continue;
            }
            bytes += letter.value.as_ref().map_or(0, Vec::len);
            let name = RecordName { input: input as u16, offset: letter.offset };
            found.entry(name).or_insert((letter, vec![])).1.push(id);
        }
        let mut records = ReplayRecords::default();
        found.into_iter().for_each(|(name, (letter, ids))| records.add(name, &letter, ids));
        Ok(records)
    }

    fn letters(&mut self) -> Arc<Letters> {
        self.chain.letters().store().clone()
    }

    /// Opens an epoch and runs the records through the steps that do not remember, into the block builder.
    fn fill_with_letters(
        &mut self,
        io: &mut Io,
        records: &ReplayRecords,
        replay: Vec<RecordName>,
        idle_before: u64,
    ) -> Result<()> {
        let records_hash = names_hash(&self.log.history().topics, &records.names());
        self.open = Some(OpenEpoch { idle_before, replay, records_hash, ..self.opened(io) });
        self.chain.letters().begin_replay(&records.letters);
        for (input, batch) in &records.batches {
            self.inputs.replay_pass(io.pass, *input as usize, batch);
            self.chain.process(io.pass, &self.inputs, io.store, Mode::Replay)?;
        }
        Ok(())
    }

    /// The replay that the mark names: what is left of its records, its note, and its link, whatever comes out.
    pub(super) fn force_replay(&mut self, io: &mut Io, pending: &Pending) -> Result<()> {
        let records = std::mem::take(&mut self.replays.forced);
        let missing = pending.replay.len() - records.letters.len().min(pending.replay.len());
        if missing > 0 {
            self.stats.recovered("replay_lost");
            tracing::warn!(
                pipeline = self.settings.pipeline,
                partition = self.id.partition,
                missing,
                "records of an announced replay are in no store and no topic any more: it is acknowledged without them"
            );
        }
        self.inputs.times.note_ms = pending.note_ms;
        self.inputs.times.idle = pending.idle;
        self.fill_with_letters(io, &records, pending.replay.clone(), pending.idle)?;
        self.seal(io, SealedWhy::End, Some(pending))
    }

    /// With the seal of a replay epoch: its entry, which holds its letters until it counts.
    pub(super) fn seal_replay(&mut self, replayed: Replayed, batch: &mut WriteBatch) -> Result<()> {
        let (gone, stays) = self.chain.letters().take_replayed();
        let seqs = |ids: Vec<LetterId>| ids.into_iter().map(|id| id.seq).collect::<Vec<u64>>();
        let incarnation = self.log.history().incarnation;
        let entry = Replaying { incarnation, replayed, seqs: seqs(gone), stays: seqs(stays) };
        self.letters().put_replay(self.id.partition as u32, &entry, batch)?;
        let request = self.replays.filling.take();
        tracing::info!(
            pipeline = self.settings.pipeline,
            partition = self.id.partition,
            epoch = %replayed.epoch,
            letters = entry.seqs.len(),
            failed = entry.stays.len(),
            "dead letters are replayed"
        );
        self.replays.under_way = Some(UnderWay { entry, request });
        Ok(())
    }

    /// Before anything of this life: what became of a former life's replay.
    pub(super) fn take_up_replay(&mut self, batch: &mut WriteBatch) -> Result<()> {
        let (letters, partition) = (self.letters(), self.id.partition as u32);
        letters.take_up_replay(partition, self.replays.under_way.as_ref().map(|under_way| &under_way.entry));
        if let Some((entry, ending)) = self.replays.to_end.take() {
            self.replays.ending.push(letters.end_replay(partition, &entry, ending, batch)?);
        }
        Ok(())
    }

    /// Whether the acknowledgement of the replay under way is to be said without waiting for more.
    pub(super) fn has_replay_to_say(&self) -> bool {
        let acknowledged = self.log.acknowledged().epoch;
        self.replays.under_way.as_ref().is_some_and(|under_way| acknowledged >= under_way.entry.replayed.epoch)
    }

    /// Whether Kafka has accepted that the replay under way is acknowledged: its letters go with the next write.
    pub(super) fn replay_counts(&self) -> bool {
        let accepted = self.log.accepted().acknowledged.epoch;
        self.replays.under_way.as_ref().is_some_and(|under_way| accepted >= under_way.entry.replayed.epoch)
    }

    /// Adds to a write that the letters of a replay that counts go.
    pub(super) fn release_letters(&mut self, batch: &mut WriteBatch) -> Result<()> {
        if !self.replay_counts() {
            return Ok(());
        }
        let (letters, partition) = (self.letters(), self.id.partition as u32);
        let Some(UnderWay { entry, request }) = self.replays.under_way.take() else { return Ok(()) };
        let ended = letters.end_replay(partition, &entry, Ending::Gone, batch)?;
        if let Some(mut request) = request {
            request.done.replayed += ended.gone();
            request.done.failed += entry.stays.len() as u64;
            self.replays.answering = Some(request);
        }
        self.replays.ending.push(ended);
        Ok(())
    }

    /// Adds to the write that discards a block of this epoch: if that is the replay under way, its letters stay, and
    /// say so where some of them may be in the table. Nothing of it is left to be released when its epoch counts.
    pub(super) fn keep_letters(&mut self, epoch: Epoch, is_unclear: bool, batch: &mut WriteBatch) -> Result<()> {
        let (letters, partition) = (self.letters(), self.id.partition as u32);
        let under_way = self.replays.under_way.as_mut().filter(|under_way| under_way.entry.replayed.epoch == epoch);
        let Some(UnderWay { entry, request }) = under_way else { return Ok(()) };
        let ending = if is_unclear { Ending::Unclear } else { Ending::Kept };
        self.replays.ending.push(letters.end_replay(partition, entry, ending, batch)?);
        let kept = std::mem::take(&mut entry.seqs).len() + std::mem::take(&mut entry.stays).len();
        request.iter_mut().for_each(|request| request.done.failed += kept as u64);
        Ok(())
    }

    /// The write with those endings is durable.
    pub(super) fn letters_released(&mut self) {
        if self.replays.ending.is_empty() {
            return;
        }
        let letters = self.letters();
        self.replays.ending.drain(..).for_each(|ended| letters.ended(ended));
        match self.replays.answering.take() {
            Some(request) if request.seqs.is_empty() || !matches!(self.stage, Stage::Running) => answer(request),
            Some(request) => self.replays.waiting.push_front(request),
            None => {}
        }
    }
}

fn answer(mut request: ReplayRequest) {
    request.done.skipped += request.seqs.len() as u64;
    // Who does not wait any more looks at the list.
    let _ = request.answer.send(ReplayAnswer::Done(request.done));
}

fn refuse(request: ReplayRequest, why: String) {
    let _ = request.answer.send(ReplayAnswer::Refused(why));
}
