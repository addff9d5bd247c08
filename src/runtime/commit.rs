//! The commit protocol of one task: sealed epochs, the mark, the lease, the release (`exactly-once.md`).
//!
//! Owns what lies between "stored" and "released". Promises: a block is sent only while an accepted commit that
//! announces its epoch holds the lease; an announced epoch stays in every mark until it is acknowledged; outbox
//! entries go only after a commit that says so was accepted. Sends and writes nothing itself.

use crate::sink::{Block, Token};
use crate::state::ledger::{
    EpochRecord, Mark, Moment, OutputRecord, Pending, RecordName, encode, key, take_replay_out,
};
use crate::state::{Table, WriteBatch};
use crate::types::{Epoch, Incarnation, TaskNo, TopicId};
use std::collections::VecDeque;

/// What every mark of a task says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    pub pipeline: String,
    pub incarnation: Incarnation,
    pub origin: Vec<i64>,
    pub plan: u64,
    pub topics: Vec<(String, TopicId)>,
}

/// A sealed epoch on its way out.
#[derive(Debug)]
pub struct Sealed {
    pub record: EpochRecord,
    outputs: Vec<Outgoing>,
    pub stored: bool,
}

/// One block on its way out.
#[derive(Debug)]
struct Outgoing {
    /// `None`: still on disk only.
    block: Option<Block>,
    state: OutputState,
    attempts: u32,
    not_before_ms: u64,
    /// Since when an attempt may have been applied (boot clock); 0 for one of a former life.
    unclear_since_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OutputState {
    Waiting,
    InFlight,
    Acknowledged,
}

/// What to send now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToSend {
    pub epoch: Epoch,
    pub output: u16,
    pub token: Token,
    /// `None`: to be read from the outbox.
    pub block: Option<Block>,
    pub record: OutputRecord,
    /// The attempt may not begin after this (boot clock).
    pub lease_until_ms: u64,
    /// An earlier attempt, of this process or of another, may have been applied.
    pub unclear: bool,
}

/// How an attempt ended that was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempted {
    NotBegun,
    /// It may have been applied all the same.
    Unclear,
    /// It was refused before it was sent.
    Refused,
}

/// Why a block is not discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotDiscarded {
    /// It is not in the outbox (any more).
    Absent,
    /// An attempt of its epoch is under way: its end has to be heard first.
    UnderWay,
    /// It was announced or tried: it may be in the table.
    Unclear,
}

/// A block that was taken out of the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discarded {
    pub output: OutputRecord,
    pub was_unclear: bool,
    /// What was in the outbox behind it in its epoch moves up: (from, to), in this order.
    pub moves: Vec<(u16, u16)>,
    /// The epoch without it.
    pub record: EpochRecord,
    /// Those behind it that say otherwise now that its replay is not whole.
    pub later: Vec<EpochRecord>,
}

/// How long things may take, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// A third of the session timeout: how long an accepted commit allows attempts to begin.
    pub lease_ms: u64,
    /// A commit that acknowledges follows within this even if nothing else is to be said.
    pub acknowledge_ms: u64,
    /// A commit is repeated at least this often.
    pub repeat_ms: u64,
}

impl Patience {
    pub fn new(session_timeout_ms: u64) -> Patience {
        Patience { lease_ms: session_timeout_ms / 3, acknowledge_ms: 5_000, repeat_ms: 3_600_000 }
    }
}

pub struct CommitLog {
    history: History,
    patience: Patience,
    pub task: TaskNo,
    /// The last acknowledged epoch.
    acknowledged: Moment,
    /// When it became so without a commit that says it (boot clock).
    acknowledged_since_ms: Option<u64>,
    sealed: VecDeque<Sealed>,
    /// The mark's pending epoch while our outbox does not hold it yet.
    forced: Option<Pending>,
    accepted: Mark,
    /// When the accepted mark was handed to the client; `None` for one that was only read.
    accepted_at_ms: Option<u64>,
    /// The commit that was offered and not answered.
    offered: Option<(u64, Mark)>,
    offers: u64,
    /// A new accepted mark is to be written with the next store.
    accepted_unwritten: bool,
    /// Acknowledged epochs that are still on disk, with how many blocks each has.
    on_disk: VecDeque<(Epoch, u16)>,
    fenced: bool,
    /// Since when (boot clock) no commit of ours has been accepted, where none was.
    quiet_since_ms: Option<u64>,
}

impl CommitLog {
    /// Goes on behind `accepted`, with the epochs that the outbox still holds. `is_remembered`: the group forgot what was
    /// accepted, and the ledger may know of less than it was: each of the epochs may be in the table.
    pub fn new(
        history: History,
        task: TaskNo,
        accepted: Mark,
        epochs: Vec<EpochRecord>,
        forced: Option<Pending>,
        is_remembered: bool,
        patience: Patience,
    ) -> CommitLog {
        let acknowledged = accepted.acknowledged.clone();
        let (held, done): (Vec<_>, Vec<_>) =
            epochs.into_iter().partition(|record| record.after.epoch > acknowledged.epoch);
        let on_disk = done.iter().map(|record| (record.after.epoch, record.outputs.len() as u16)).collect();
        let named = accepted.pending.as_ref().map(|pending| pending.link);
        let sealed = held.into_iter().map(|record| {
            let unclear = is_remembered || Some(record.after.link) == named;
            Sealed::new(record, None, unclear)
        });
        let sealed = sealed.collect();
        let mut log = CommitLog {
            history,
            patience,
            task,
            acknowledged,
            acknowledged_since_ms: None,
            sealed,
            forced,
            accepted,
            accepted_at_ms: None,
            offered: None,
            offers: 0,
            accepted_unwritten: true,
            on_disk,
            fenced: false,
            quiet_since_ms: None,
        };
        log.skip_empty(0);
        log
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn acknowledged(&self) -> &Moment {
        &self.acknowledged
    }

    pub fn accepted(&self) -> &Mark {
        &self.accepted
    }

    /// The moment behind the last sealed epoch.
    pub fn tip(&self) -> &Moment {
        self.sealed.back().map_or(&self.acknowledged, |sealed| &sealed.record.after)
    }

    /// The moment behind the next epoch to be acknowledged.
    pub fn next_moment(&self) -> Option<&Moment> {
        self.sealed.front().map(|sealed| &sealed.record.after)
    }

    /// The records that the next epoch to be acknowledged names, if it replays dead letters.
    pub fn next_replay(&self) -> &[RecordName] {
        self.sealed.front().map_or(&[], |sealed| &sealed.record.replay)
    }

    /// Takes a sealed epoch over; it may be announced once `stored` was called.
    pub fn push(&mut self, record: EpochRecord, blocks: Vec<Block>) {
        assert_eq!(record.after.epoch, self.tip().epoch.next(), "epochs follow each other");
        let unclear = self.forced.take().is_some();
        self.sealed.push_back(Sealed::new(record, Some(blocks), unclear));
    }

    /// The write that held the newest epochs is durable.
    pub fn stored(&mut self, boot_ms: u64) {
        self.sealed.iter_mut().for_each(|sealed| sealed.stored = true);
        self.skip_empty(boot_ms);
    }

    /// An epoch without blocks counts as acknowledged as soon as all before it are; it is never announced.
    fn skip_empty(&mut self, boot_ms: u64) {
        while self.sealed.front().is_some_and(|sealed| sealed.stored && sealed.is_acknowledged()) {
            let sealed = self.sealed.pop_front().expect("the front was just looked at");
            self.on_disk.push_back((sealed.record.after.epoch, sealed.outputs.len() as u16));
            self.acknowledged = sealed.record.after;
            self.acknowledged_since_ms.get_or_insert(boot_ms);
        }
    }

    /// Blocks and bytes that are stored or waiting to be, not yet acknowledged.
    pub fn outbox(&self) -> (u64, u64) {
        let blocks = self.sealed.iter().flat_map(|sealed| &sealed.record.outputs);
        blocks.fold((0, 0), |(count, bytes), output| (count + 1, bytes + output.body_bytes))
    }

    /// Epochs sealed and not yet acknowledged.
    pub fn epochs_waiting(&self) -> usize {
        self.sealed.len()
    }

    /// The commit to offer now, with its number; `None` while there is nothing to say or one is under way.
    /// `hurry`: say what can be said, without waiting for more (a clean stop).
    pub fn offer(&mut self, boot_ms: u64, hurry: bool) -> Option<(u64, Mark)> {
        if self.accepted_at_ms.is_none() {
            self.quiet_since_ms.get_or_insert(boot_ms);
        }
        if self.offered.is_some() || self.fenced || !self.has_to_say(boot_ms, hurry) {
            return None;
        }
        self.offers += 1;
        let mark = self.mark();
        self.offered = Some((self.offers, mark.clone()));
        Some((self.offers, mark))
    }

    /// Offers a mark that is not built here: the first of a new incarnation.
    pub fn offer_first(&mut self) -> (u64, Mark) {
        self.offers += 1;
        self.offered = Some((self.offers, self.accepted.clone()));
        (self.offers, self.accepted.clone())
    }

    pub fn is_offered(&self) -> bool {
        self.offered.is_some()
    }

    /// The mark's pending epoch, while it is still to be made here.
    pub fn forced(&self) -> Option<&Pending> {
        self.forced.as_ref()
    }

    /// The mark as it stands: what is acknowledged, and the next epoch if it is stored.
    fn mark(&self) -> Mark {
        let next = self.sealed.front().filter(|sealed| sealed.stored);
        let pending = self.forced.clone().or_else(|| next.map(|sealed| sealed.record.pending()));
        // A pending that was ever named stays in the mark until it is acknowledged.
        let named =
            self.accepted.pending.as_ref().filter(|_| self.accepted.acknowledged.epoch == self.acknowledged.epoch);
        let pending = pending.or_else(|| named.cloned());
        Mark {
            pipeline: self.history.pipeline.clone(),
            incarnation: self.history.incarnation,
            origin: self.history.origin.clone(),
            plan: self.history.plan,
            topics: self.history.topics.clone(),
            acknowledged: self.acknowledged.clone(),
            pending,
        }
    }

    fn has_to_say(&self, boot_ms: u64, hurry: bool) -> bool {
        let next = self.sealed.front().filter(|sealed| sealed.stored);
        let announces = next.is_some_and(|sealed| !self.is_announced(sealed));
        let renews = next.is_some_and(|sealed| self.is_announced(sealed) && sealed.wants_to_send(boot_ms))
            && !self.has_lease(boot_ms);
        let acknowledges = self.acknowledged.epoch > self.accepted.acknowledged.epoch && {
            let since = self.acknowledged_since_ms.unwrap_or(boot_ms);
            hurry || boot_ms.saturating_sub(since) >= self.patience.acknowledge_ms
        };
        let last_ms = self.accepted_at_ms.or(self.quiet_since_ms);
        let repeats = last_ms.is_some_and(|at| boot_ms.saturating_sub(at) >= self.patience.repeat_ms);
        announces || renews || acknowledges || repeats
    }

    fn is_announced(&self, sealed: &Sealed) -> bool {
        self.accepted.acknowledged.epoch == self.acknowledged.epoch
            && self.accepted.pending.as_ref().is_some_and(|pending| pending.link == sealed.record.after.link)
    }

    /// Attempts may begin within a third of the session timeout after the last accepted commit was handed over.
    fn has_lease(&self, boot_ms: u64) -> bool {
        self.accepted_at_ms.is_some_and(|at| boot_ms < at + self.patience.lease_ms)
    }

    /// The commit of that number was accepted; it was handed to the client at `handed_ms`.
    pub fn accepted_offer(&mut self, number: u64, handed_ms: u64) -> bool {
        let Some((_, mark)) = self.offered.take_if(|(offered, _)| *offered == number) else {
            return false;
        };
        if mark.acknowledged.epoch == self.acknowledged.epoch {
            self.acknowledged_since_ms = None;
        }
        self.accepted = mark;
        (self.accepted_at_ms, self.quiet_since_ms) = (Some(handed_ms), None);
        self.accepted_unwritten = true;
        true
    }

    /// The commit of that number was not accepted: it is offered again, in its newest form.
    pub fn refused_offer(&mut self, number: u64) {
        self.offered.take_if(|(offered, _)| *offered == number);
    }

    /// Insert nothing, commit nothing, until the next assignment tells what is ours.
    pub fn set_fenced(&mut self, fenced: bool) {
        self.fenced = fenced;
        if fenced {
            self.offered = None;
            self.accepted_at_ms = None;
        }
    }

    /// A block of the announced epoch that may be sent now; it counts as in flight from here on.
    pub fn next_to_send(&mut self, boot_ms: u64) -> Option<ToSend> {
        let front = self.sealed.front().filter(|sealed| sealed.stored)?;
        if self.fenced || !self.is_announced(front) || !self.has_lease(boot_ms) {
            return None;
        }
        let lease_until_ms = self.accepted_at_ms? + self.patience.lease_ms;
        let front = self.sealed.front_mut()?;
        let output = front.outputs.iter().position(|output| output.may_be_sent(boot_ms))?;
        let outgoing = &mut front.outputs[output];
        outgoing.state = OutputState::InFlight;
        let record = front.record.outputs[output].clone();
        Some(ToSend {
            epoch: front.record.after.epoch,
            output: output as u16,
            token: Token(record.token.clone()),
            unclear: outgoing.unclear_since_ms.is_some(),
            block: outgoing.block.clone(),
            record,
            lease_until_ms,
        })
    }

    /// The block of an output that waits for its acknowledgement.
    pub fn output(&self, epoch: Epoch, output: u16) -> Option<&OutputRecord> {
        let front = self.sealed.front().filter(|sealed| sealed.record.after.epoch == epoch)?;
        front.record.outputs.get(output as usize)
    }

    /// The table acknowledged a block. True when its whole epoch is acknowledged by that.
    pub fn delivered(&mut self, epoch: Epoch, output: u16, boot_ms: u64) -> bool {
        let Some(outgoing) = self.outgoing(epoch, output) else { return false };
        outgoing.state = OutputState::Acknowledged;
        outgoing.block = None;
        self.skip_empty(boot_ms);
        self.acknowledged.epoch >= epoch
    }

    /// An attempt failed or never began; it is repeated at `not_before_ms`, same bytes, same token. Returns how
    /// many attempts failed in a row.
    pub fn undelivered(
        &mut self,
        epoch: Epoch,
        output: u16,
        failed: Attempted,
        boot_ms: u64,
        not_before: impl FnOnce(u32) -> u64,
    ) -> u32 {
        let Some(outgoing) = self.outgoing(epoch, output) else { return 0 };
        outgoing.state = OutputState::Waiting;
        if failed == Attempted::Unclear {
            outgoing.unclear_since_ms.get_or_insert(boot_ms);
        }
        if failed != Attempted::NotBegun {
            outgoing.attempts += 1;
            outgoing.not_before_ms = not_before(outgoing.attempts);
        }
        outgoing.attempts
    }

    /// Takes a block out for good, whatever the table has where `force` says so. It is not sent any more from here
    /// on; the caller writes what is answered, then calls [`CommitLog::discarded`].
    pub fn discard(&mut self, token: &str, force: bool) -> Result<Discarded, NotDiscarded> {
        let is_named = |sealed: &Sealed| sealed.record.outputs.iter().position(|output| output.token == token);
        let held = self.sealed.iter().enumerate().filter(|(_, sealed)| sealed.stored);
        let found = held.filter_map(|(place, sealed)| Some((place, is_named(sealed)?))).next();
        let (place, output) = found.ok_or(NotDiscarded::Absent)?;
        let link = Some(self.sealed[place].record.after.link);
        let names = |mark: &Mark| mark.pending.as_ref().map(|pending| pending.link) == link;
        let was_named = names(&self.accepted) || self.offered.as_ref().is_some_and(|(_, mark)| names(mark));
        let sealed = &mut self.sealed[place];
        if sealed.outputs[output].state == OutputState::Acknowledged {
            return Err(NotDiscarded::Absent);
        }
        if sealed.outputs.iter().any(|output| output.state == OutputState::InFlight) {
            return Err(NotDiscarded::UnderWay);
        }
        let was_unclear = was_named || sealed.outputs[output].unclear_since_ms.is_some();
        if was_unclear && !force {
            return Err(NotDiscarded::Unclear);
        }
        let last = sealed.outputs.len() as u16 - 1;
        sealed.outputs.remove(output);
        let moves = (output as u16..last).map(|output| (output + 1, output)).collect();
        let output = sealed.record.outputs.remove(output);
        let epoch = sealed.record.after.epoch;
        take_replay_out(epoch, &mut sealed.record);
        let record = sealed.record.clone();
        let behind = self.sealed.range_mut(place + 1..).map(|sealed| &mut sealed.record);
        let later = behind.filter_map(|record| take_replay_out(epoch, record).then(|| record.clone())).collect();
        Ok(Discarded { output, was_unclear, moves, record, later })
    }

    /// Whether an attempt of this block's epoch is under way.
    pub fn is_under_way(&self, token: &str) -> bool {
        let is_named = |sealed: &&Sealed| sealed.record.outputs.iter().any(|output| output.token == token);
        let sealed = self.sealed.iter().find(is_named);
        sealed.is_some_and(|sealed| sealed.outputs.iter().any(|output| output.state == OutputState::InFlight))
    }

    /// The write without a discarded block is durable: an epoch of which nothing is left counts as acknowledged.
    pub fn discarded(&mut self, boot_ms: u64) {
        self.skip_empty(boot_ms);
    }

    fn outgoing(&mut self, epoch: Epoch, output: u16) -> Option<&mut Outgoing> {
        let front = self.sealed.front_mut().filter(|sealed| sealed.record.after.epoch == epoch)?;
        front.outputs.get_mut(output as usize)
    }

    /// The earliest time something is to be done although nobody calls (boot clock).
    pub fn next_due_ms(&self) -> Option<u64> {
        let acknowledge = self.acknowledged_since_ms.map(|since| since + self.patience.acknowledge_ms);
        let retry = self.sealed.front().and_then(Sealed::next_attempt_ms);
        acknowledge.into_iter().chain(retry).min()
    }

    /// Whether a store now would delete outbox entries or write a newer accepted mark.
    pub fn has_release(&self) -> bool {
        self.accepted_unwritten
    }

    /// Adds to a store: the accepted mark, and the deletion of what it releases.
    pub fn add_release(&mut self, batch: &mut WriteBatch) {
        if !std::mem::take(&mut self.accepted_unwritten) {
            return;
        }
        batch.put(Table::Ledger, key::accepted(self.task), encode(&self.accepted));
        let release = self.accepted.acknowledged.epoch;
        while let Some(&(epoch, outputs)) = self.on_disk.front().filter(|(epoch, _)| *epoch <= release) {
            self.on_disk.pop_front();
            batch.delete(Table::Ledger, key::epoch(self.task, epoch));
            (0..outputs).for_each(|output| batch.delete(Table::Outbox, key::outbox(self.task, epoch, output)));
        }
    }

    /// Nothing is waiting, and Kafka has accepted that.
    pub fn is_settled(&self) -> bool {
        self.sealed.is_empty()
            && self.forced.is_none()
            && self.accepted.acknowledged.epoch == self.acknowledged.epoch
            && self.accepted.pending.is_none()
    }

    /// Nothing waits to be delivered.
    pub fn is_delivered(&self) -> bool {
        self.sealed.is_empty() && self.forced.is_none()
    }

    /// Whether a block of the next epoch may have been in the table for longer than `longer_ms`, by an attempt here or
    /// in a former life.
    pub fn has_unclear(&self, boot_ms: u64, longer_ms: u64) -> bool {
        let is_old = |output: &Outgoing| output.is_unclear(boot_ms, longer_ms);
        self.sealed.front().is_some_and(|sealed| sealed.outputs.iter().any(is_old))
    }
}

impl Sealed {
    /// `blocks` = `None`: stored in a former life.
    fn new(record: EpochRecord, blocks: Option<Vec<Block>>, unclear: bool) -> Sealed {
        let stored = blocks.is_none();
        let outgoing = |block| Outgoing {
            block,
            state: OutputState::Waiting,
            attempts: 0,
            not_before_ms: 0,
            unclear_since_ms: unclear.then_some(0),
        };
        let outputs = match blocks {
            Some(blocks) => blocks.into_iter().map(|block| outgoing(Some(block))).collect(),
            None => record.outputs.iter().map(|_| outgoing(None)).collect(),
        };
        Sealed { record, outputs, stored }
    }

    fn is_acknowledged(&self) -> bool {
        self.outputs.iter().all(|output| output.state == OutputState::Acknowledged)
    }

    fn wants_to_send(&self, boot_ms: u64) -> bool {
        self.outputs.iter().any(|output| output.may_be_sent(boot_ms))
    }

    fn next_attempt_ms(&self) -> Option<u64> {
        let waiting = self.outputs.iter().filter(|output| output.state == OutputState::Waiting);
        waiting.map(|output| output.not_before_ms).min()
    }
}

impl Outgoing {
    fn may_be_sent(&self, boot_ms: u64) -> bool {
        self.state == OutputState::Waiting && boot_ms >= self.not_before_ms
    }

    fn is_unclear(&self, boot_ms: u64, longer_ms: u64) -> bool {
        let is_old = self.unclear_since_ms.is_some_and(|since| boot_ms >= since + longer_ms);
        self.state != OutputState::Acknowledged && is_old
    }
}
