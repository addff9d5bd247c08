//! One member of the group, between the coordinator and the cluster in memory: commits that take their time, a
//! connection that can be cut, and the calls counted.

use crate::bug::Bug;
use crate::chance::Chance;
use crate::disk::Disk;
use crate::seams::Seams;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use weir::codec::record::RecordBatch;
use weir::error::{Error, Result};
use weir::source::memory::MemoryGroup;
use weir::source::{
    CommitOutcome, CommittedOffsets, FetchLimit, Fetched, Group, GroupEvent, Input, OffsetsToCommit, TopicInfo, Wake,
};
use weir::state::ledger::{self, Mark, MarkRead};

/// A commit handed to the client.
struct Flight {
    id: u64,
    tasks: Vec<OffsetsToCommit>,
    due_ms: u64,
    /// The client gives up.
    times_out_ms: u64,
    /// Held over a loss (only under a seeded bug).
    outlives_loss: bool,
}

pub struct Member {
    inner: MemoryGroup,
    seams: Seams,
    chance: Chance,
    /// How long a commit may take; 0 for none of that.
    delay_ms: u64,
    is_cut: Arc<AtomicBool>,
    leaderless: Arc<AtomicU64>,
    /// Set when a commit was refused for good: such a member is soon none any more.
    is_fenced: Arc<AtomicBool>,
    flights: VecDeque<Flight>,
    answers: VecDeque<GroupEvent>,
    is_lost: bool,
    bug: Option<Bug>,
    disk: Arc<Disk>,
    /// Under a seeded bug: the commit that waits for the next one; pendings that were committed before.
    lagging: Option<Vec<OffsetsToCommit>>,
    named: BTreeMap<i32, [u8; 16]>,
}

/// What a member is made of.
pub struct MemberParts {
    pub inner: MemoryGroup,
    pub seams: Seams,
    pub chance: Chance,
    pub delay_ms: u64,
    pub is_cut: Arc<AtomicBool>,
    /// Topics without a leader, one bit each.
    pub leaderless: Arc<AtomicU64>,
    pub is_fenced: Arc<AtomicBool>,
    pub bug: Option<Bug>,
    pub disk: Arc<Disk>,
}

impl Member {
    pub fn new(parts: MemberParts) -> Member {
        let MemberParts { inner, seams, chance, delay_ms, is_cut, leaderless, is_fenced, bug, disk } = parts;
        Member {
            inner,
            seams,
            chance,
            delay_ms,
            is_cut,
            leaderless,
            is_fenced,
            flights: VecDeque::new(),
            answers: VecDeque::new(),
            is_lost: false,
            bug,
            disk,
            lagging: None,
            named: BTreeMap::new(),
        }
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Relaxed)
    }

    /// The next commit that arrives at the broker or is given up.
    fn land(&mut self) -> Option<GroupEvent> {
        let now_ms = self.seams.now_ms();
        let (cut, keeps) = (self.is_cut(), self.bug == Some(Bug::CommitAfterRejoin));
        if cut && keeps {
            // It waits in the client's queue for a connection, whatever happens meanwhile.
            self.flights.iter_mut().for_each(|flight| flight.outlives_loss = true);
        }
        let due = |flight: &Flight| match cut {
            true => now_ms >= flight.times_out_ms && !keeps,
            false => now_ms >= flight.due_ms,
        };
        let flight = self.flights.pop_front_if(|flight| due(flight) && !flight.outlives_loss)?;
        let id = flight.id;
        if cut {
            return Some(GroupEvent::Committed { id, outcome: CommitOutcome::Repeat("timed out".into()) });
        }
        self.apply(id, &flight.tasks);
        self.inner.poll(Duration::ZERO)
    }

    fn apply(&mut self, id: u64, tasks: &[OffsetsToCommit]) {
        let Member { inner, seams, .. } = self;
        seams.call("commit arrives", || inner.commit(id, tasks)).expect("the cluster in memory takes commits");
    }

    /// What was sent under an older generation is refused, whatever it was.
    fn lose_flights(&mut self) {
        if self.bug == Some(Bug::CommitAfterRejoin) {
            self.flights.iter_mut().for_each(|flight| flight.outlives_loss |= self.is_lost);
            return;
        }
        for flight in self.flights.drain(..) {
            let outcome = CommitOutcome::Repeat("another generation".into());
            self.answers.push_back(GroupEvent::Committed { id: flight.id, outcome });
        }
    }

    /// Under a seeded bug: the client sends, with its new membership, what it had in its queue.
    fn send_what_outlived(&mut self) {
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.outlives_loss) {
            self.inner.commit(flight.id, &flight.tasks).expect("the cluster in memory takes commits");
            let answer = self.inner.poll(Duration::ZERO);
            if !matches!(&answer, Some(GroupEvent::Committed { outcome: CommitOutcome::Accepted, .. })) {
                // The rejoin is not over yet.
                return self.flights.push_front(flight);
            }
            self.seams.note(|| format!("an old commit was sent after the rejoin: {:?}", short(&flight.tasks)));
            self.answers.extend(answer);
        }
    }

    /// The commits as a broken engine would have made them.
    fn broken(&mut self, tasks: &[OffsetsToCommit]) -> Vec<OffsetsToCommit> {
        let mut tasks = tasks.to_vec();
        if self.bug == Some(Bug::PendingTakenBack) {
            for task in &mut tasks {
                let MarkRead::Mark(mut mark) = Mark::from_metadata(&task.metadata) else { continue };
                let link = mark.pending.as_ref().map(|pending| pending.link.0);
                if link.is_some() && self.named.get(&task.partition).copied() == link {
                    mark.pending = None;
                    task.metadata = mark.to_metadata();
                } else if let Some(link) = link {
                    self.named.insert(task.partition, link);
                }
            }
        }
        tasks
    }

    /// The marks as a broken engine would read them.
    fn misread(&self, partition: i32, committed: &mut CommittedOffsets) {
        let MarkRead::Mark(mark) = Mark::from_metadata(&committed.metadata) else { return };
        let Ok(Some(mut ledger)) = ledger::load(&*self.disk, partition) else { return };
        let same = ledger.checkpoint.incarnation == mark.incarnation;
        match self.bug {
            Some(Bug::PendingIgnored) if ledger.checkpoint.moment.link == mark.acknowledged.link => {
                committed.metadata = Mark { pending: None, ..*mark }.to_metadata();
            }
            Some(Bug::AcknowledgedSentAgain) if same && !ledger.checkpoint.restoring => {
                committed.offsets = ledger.accepted.acknowledged.positions().into_iter().map(Some).collect();
                committed.metadata = ledger.accepted.to_metadata();
            }
            Some(Bug::StaleDirectory) if same && !ledger.checkpoint.restoring => {
                ledger.accepted = *mark;
                let mut batch = weir::state::WriteBatch::default();
                let key = ledger::key::accepted(ledger.task);
                batch.put(weir::state::Table::Ledger, key, ledger::encode(&ledger.accepted));
                self.disk.tamper(&batch);
            }
            _ => {}
        }
    }
}

fn short(tasks: &[OffsetsToCommit]) -> Vec<(i32, String)> {
    tasks.iter().map(|task| (task.partition, describe(&task.metadata))).collect()
}

/// A mark in a few characters.
pub fn describe(metadata: &str) -> String {
    match Mark::from_metadata(metadata) {
        MarkRead::Mark(mark) => {
            let pending = mark.pending.as_ref().map(|pending| format!("{:?}→{:?}", pending.link, pending.positions));
            let ack = &mark.acknowledged;
            format!(
                "{:?} ack {} {:?}@{:?} pending {}",
                mark.incarnation,
                ack.epoch,
                ack.link,
                ack.positions(),
                pending.unwrap_or("-".into())
            )
        }
        other => format!("{other:?}"),
    }
}

impl Group for Member {
    fn join(&mut self) -> Result<()> {
        self.seams.call("join", || self.inner.join())
    }

    fn poll(&mut self, wait: Duration) -> Option<GroupEvent> {
        if let Some(answer) = self.answers.pop_front().or_else(|| self.land()) {
            if matches!(&answer, GroupEvent::Committed { outcome: CommitOutcome::Fenced(_), .. }) {
                self.is_fenced.store(true, Relaxed);
            }
            self.seams.note(|| format!("answer {answer:?}"));
            return Some(answer);
        }
        if self.is_cut() {
            return None;
        }
        let event = self.inner.poll(wait);
        match &event {
            Some(GroupEvent::Revoked { lost: true, .. }) => {
                self.is_lost = true;
                self.lose_flights();
            }
            _ if !self.is_lost => self.send_what_outlived(),
            _ => {}
        }
        if let Some(event) = &event {
            self.seams.note(|| format!("event {event:?}"));
        }
        event
    }

    fn assign(&mut self, starts: &[(i32, Vec<i64>)]) -> Result<()> {
        let Member { seams, inner, .. } = self;
        seams.note(|| format!("assign {starts:?}"));
        seams.call("assign", || inner.assign(starts))
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<()> {
        let Member { seams, inner, .. } = self;
        seams.note(|| format!("unassign {partitions:?}"));
        seams.call("unassign", || inner.unassign(partitions))?;
        // The broker has gone on to the next generation before anybody else gets these.
        self.lose_flights();
        self.is_lost = false;
        Ok(())
    }

    fn input(&mut self, topic: usize, partition: i32, waker: Arc<dyn Wake>) -> Result<Box<dyn Input>> {
        let inner = self.inner.input(topic, partition, waker)?;
        let leaderless = (self.leaderless.clone(), 1 << topic);
        let seams = self.seams.clone();
        Ok(Box::new(Queue { inner, seams, is_cut: self.is_cut.clone(), leaderless, offset_next: 0 }))
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<CommittedOffsets>> {
        if self.is_cut() {
            return Err(Error::retry("network", "the coordinator of the group cannot be reached"));
        }
        let Member { seams, inner, .. } = self;
        let mut committed = seams.call("committed", || inner.committed(partitions))?;
        for (partition, committed) in partitions.iter().zip(&mut committed) {
            self.misread(*partition, committed);
            self.seams.note(|| format!("reads the mark of {partition}: {}", describe(&committed.metadata)));
        }
        Ok(committed)
    }

    fn has_any_offset(&mut self) -> Result<bool> {
        self.inner.has_any_offset()
    }

    fn commit(&mut self, id: u64, tasks: &[OffsetsToCommit]) -> Result<()> {
        let tasks = self.broken(tasks);
        self.seams.note(|| format!("commit {id} {:?}", short(&tasks)));
        let announces = |task: &OffsetsToCommit| match Mark::from_metadata(&task.metadata) {
            MarkRead::Mark(mark) => mark.pending.is_some(),
            _ => false,
        };
        let any = tasks.iter().any(announces);
        let at_once = match self.bug {
            Some(Bug::SentUnannounced) if any => true,
            Some(Bug::AnnouncedAfterInsert) => {
                if let Some(lagging) = self.lagging.take() {
                    self.inner.commit(0, &lagging)?;
                    self.inner.poll(Duration::ZERO);
                }
                self.lagging = any.then(|| tasks.clone());
                any
            }
            _ => false,
        };
        if at_once {
            self.answers.push_back(GroupEvent::Committed { id, outcome: CommitOutcome::Accepted });
            return Ok(());
        }
        let now_ms = self.seams.now_ms();
        let due_ms = now_ms + if self.delay_ms == 0 { 0 } else { self.chance.below(self.delay_ms) };
        let flight = Flight { id, tasks, due_ms, times_out_ms: now_ms + 1000, outlives_loss: false };
        self.seams.call("commit", || ());
        self.flights.push_back(flight);
        Ok(())
    }

    fn topics(&mut self) -> Result<Vec<TopicInfo>> {
        let Member { seams, inner, .. } = self;
        seams.call("topics", || inner.topics())
    }

    fn ask_topics(&mut self) {
        let Member { seams, inner, .. } = self;
        seams.note(|| "asks for the topics".into());
        seams.call("ask topics", || inner.ask_topics());
    }

    fn topics_told(&mut self) -> Option<Result<Vec<TopicInfo>>> {
        let told = self.inner.topics_told()?;
        self.seams.note(|| "is told of the topics".into());
        match self.is_cut() {
            true => Some(Err(Error::retry("timed_out", "the broker cannot be reached"))),
            false => Some(told),
        }
    }

    fn log_range(&mut self, topic: usize, partition: i32) -> Result<(i64, i64)> {
        self.inner.log_range(topic, partition)
    }

    fn offset_at(&mut self, topic: usize, partition: i32, at_ms: i64) -> Result<i64> {
        self.inner.offset_at(topic, partition, at_ms)
    }

    fn timestamp_at(&mut self, topic: usize, partition: i32, offset: i64) -> Result<Option<i64>> {
        self.inner.timestamp_at(topic, partition, offset)
    }

    fn records_at(&mut self, topic: usize, partition: i32, offsets: &[i64], into: &mut RecordBatch) -> Result<()> {
        let Member { seams, inner, .. } = self;
        seams.call("records_at", || inner.records_at(topic, partition, offsets, into))
    }

    fn leave(&mut self) -> Result<()> {
        let Member { seams, inner, .. } = self;
        seams.call("leave", || inner.leave())
    }
}

/// One partition's queue.
struct Queue {
    inner: Box<dyn Input>,
    seams: Seams,
    is_cut: Arc<AtomicBool>,
    /// Which topics have no leader, and the bit of this one.
    leaderless: (Arc<AtomicU64>, u64),
    offset_next: i64,
}

impl Input for Queue {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        let (leaderless, bit) = &self.leaderless;
        if self.is_cut.load(Relaxed) || leaderless.load(Relaxed) & bit != 0 {
            return Ok(Fetched { records: 0, offset_next: self.offset_next, at_end: false });
        }
        let Queue { inner, seams, .. } = self;
        let fetched = seams.call("fill", || inner.fill(batch, limit))?;
        self.offset_next = fetched.offset_next;
        Ok(fetched)
    }

    fn end(&self) -> i64 {
        self.inner.end()
    }
}
