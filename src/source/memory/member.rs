//! A member of a group in memory, and its inputs: the client's side.
//!
//! Owns what the client knows: its partitions, its unanswered events. Promises: it behaves as the real client
//! does when the broker forgot it: told at the next poll, refused at the next commit, back by itself.

use super::{CommitFault, MemoryKafka};
use crate::codec::record::RecordBatch;
use crate::error::{Error, Result};
use crate::source::{
    CommitOutcome, CommittedOffsets, FetchLimit, Fetched, Group, GroupEvent, Input, OffsetsToCommit, TopicInfo, Wake,
};
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One member; dropped without `leave`, it stays in the group until it expires or its twin joins.
pub struct MemoryGroup {
    kafka: MemoryKafka,
    group: String,
    instance_id: Option<String>,
    topics: Vec<String>,
    /// The number of the membership; another after every join.
    member: Option<u64>,
    /// Partitions that were told to us and not unassigned.
    known: BTreeSet<i32>,
    answers: VecDeque<GroupEvent>,
    /// The answer to a question about the topics.
    told: Option<Result<Vec<TopicInfo>>>,
    loss_told: bool,
    fatal: bool,
    taps: BTreeMap<(usize, i32), Arc<Mutex<Stage>>>,
}

/// An irregular cluster hands over no more at once.
const IRREGULAR_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Starting(i64),
    Reading,
    Closed,
}

impl MemoryGroup {
    pub(super) fn new(kafka: MemoryKafka, group: &str, instance_id: Option<&str>, topics: &[&str]) -> MemoryGroup {
        MemoryGroup {
            kafka,
            group: group.into(),
            instance_id: instance_id.map(String::from),
            topics: topics.iter().map(|topic| topic.to_string()).collect(),
            member: None,
            known: BTreeSet::new(),
            answers: VecDeque::new(),
            told: None,
            loss_told: false,
            fatal: false,
            taps: BTreeMap::new(),
        }
    }

    /// Whether the broker still knows this membership.
    fn is_known(&self) -> bool {
        self.member.is_some_and(|member| {
            self.kafka.with_group(&self.group, |group| {
                let state = group.members.get_mut(&member);
                state.map(|state| state.rejoining = false).is_some()
            })
        })
    }

    /// The broker does not know us any more: replaced by a twin, or timed out.
    fn forgotten(&mut self) -> Option<GroupEvent> {
        self.member?;
        if self.has_twin() {
            let told = std::mem::replace(&mut self.fatal, true);
            let message = "another process uses this group instance id";
            return (!told).then(|| GroupEvent::Fatal(Error::fenced("fenced_instance_id", message)));
        }
        if !self.known.is_empty() {
            let told = std::mem::replace(&mut self.loss_told, true);
            let partitions = self.known.iter().copied().collect();
            return (!told).then_some(GroupEvent::Revoked { partitions, lost: true });
        }
        self.loss_told = false;
        self.enter();
        self.next_event()
    }

    fn has_twin(&self) -> bool {
        self.fatal
            || self
                .instance_id
                .as_deref()
                .is_some_and(|id| self.kafka.with_group(&self.group, |group| group.has_instance(id)))
    }

    fn enter(&mut self) {
        let mut broker = self.kafka.broker();
        broker.members_made += 1;
        let member = broker.members_made;
        let group = broker.groups.get_mut(&self.group).expect("the group was made with its member");
        group.join(member, self.instance_id.as_deref());
        self.member = Some(member);
    }

    fn next_event(&mut self) -> Option<GroupEvent> {
        let member = self.member?;
        let event = self.kafka.with_group(&self.group, |group| group.next_event(member));
        if let Some(GroupEvent::Assigned(partitions)) = &event {
            self.known.extend(partitions);
        }
        event
    }
}

impl Group for MemoryGroup {
    fn join(&mut self) -> Result<()> {
        self.enter();
        Ok(())
    }

    /// Never waits.
    fn poll(&mut self, _wait: Duration) -> Option<GroupEvent> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.is_known() { self.next_event() } else { self.forgotten() }
    }

    fn assign(&mut self, starts: &[(i32, Vec<i64>)]) -> Result<()> {
        for (partition, offsets) in starts {
            self.known.insert(*partition);
            assert_eq!(offsets.len(), self.topics.len(), "an offset for each topic");
            for (topic, offset) in offsets.iter().enumerate() {
                let tap = self.taps.get(&(topic, *partition)).expect("every input was taken before its assignment");
                *tap.lock().expect("nothing panics holding it") = Stage::Starting(*offset);
            }
            self.topics.iter().for_each(|topic| self.kafka.wake(topic, *partition));
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<()> {
        for partition in partitions {
            self.known.remove(partition);
            for topic in 0..self.topics.len() {
                if let Some(tap) = self.taps.remove(&(topic, *partition)) {
                    *tap.lock().expect("nothing panics holding it") = Stage::Closed;
                }
            }
        }
        if let Some(member) = self.member {
            self.kafka.with_group(&self.group, |group| group.unassign(member, partitions));
        }
        Ok(())
    }

    fn input(&mut self, topic: usize, partition: i32, waker: Arc<dyn Wake>) -> Result<Box<dyn Input>> {
        let stage = Arc::new(Mutex::new(Stage::Waiting));
        if let Some(earlier) = self.taps.insert((topic, partition), stage.clone()) {
            *earlier.lock().expect("nothing panics holding it") = Stage::Closed;
        }
        let topic = self.topics[topic].clone();
        self.kafka.broker().wakers.push((topic.clone(), partition, Arc::downgrade(&waker)));
        let kafka = self.kafka.clone();
        Ok(Box::new(MemoryInput { kafka, topic, partition, stage, offset_next: 0, end: -1, _waker: waker }))
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<CommittedOffsets>> {
        let broker = self.kafka.broker();
        let committed = &broker.groups[&self.group].committed;
        let of = |topic: &String, partition| committed.get(&(topic.clone(), partition));
        let task = |partition: &i32| CommittedOffsets {
            offsets: self.topics.iter().map(|topic| of(topic, *partition).map(|(offset, _)| *offset)).collect(),
            metadata: of(&self.topics[0], *partition).map(|(_, mark)| mark.clone()).unwrap_or_default(),
        };
        Ok(partitions.iter().map(task).collect())
    }

    fn has_any_offset(&mut self) -> Result<bool> {
        let broker = self.kafka.broker();
        Ok(broker.groups[&self.group].committed.keys().any(|(topic, _)| *topic == self.topics[0]))
    }

    fn commit(&mut self, id: u64, tasks: &[OffsetsToCommit]) -> Result<()> {
        let mut broker = self.kafka.broker();
        let fault = broker.commit_faults.pop_front().unwrap_or(CommitFault::None);
        let group = broker.groups.get_mut(&self.group).expect("the group was made with its member");
        let mut send = || match self.member {
            Some(member) if !self.fatal => group.commit(member, &self.topics, tasks),
            _ => CommitOutcome::Fenced("no member".into()),
        };
        let outcome = match fault {
            CommitFault::None => send(),
            CommitFault::RequestLost => CommitOutcome::Repeat("timed out".into()),
            CommitFault::AnswerLost => {
                send();
                CommitOutcome::Repeat("timed out".into())
            }
            CommitFault::Rebalancing => CommitOutcome::Repeat("rebalance in progress".into()),
            CommitFault::IllegalGeneration => CommitOutcome::Fenced("illegal generation".into()),
        };
        self.answers.push_back(GroupEvent::Committed { id, outcome });
        Ok(())
    }

    fn topics(&mut self) -> Result<Vec<TopicInfo>> {
        let broker = self.kafka.broker();
        let info = |name: &String| TopicInfo {
            name: name.clone(),
            id: broker.topics.get(name).map_or(TopicId::default(), |topic| topic.id),
            partitions: broker.partition_count(name),
        };
        Ok(self.topics.iter().map(info).collect())
    }

    fn ask_topics(&mut self) {
        self.told = Some(self.topics());
    }

    fn topics_told(&mut self) -> Option<Result<Vec<TopicInfo>>> {
        self.told.take()
    }

    fn log_range(&mut self, topic: usize, partition: i32) -> Result<(i64, i64)> {
        let mut broker = self.kafka.broker();
        let log = broker.log(&self.topics[topic], partition).ok_or_else(|| not_there(&self.topics[topic]))?;
        Ok((log.start, log.end))
    }

    fn offset_at(&mut self, topic: usize, partition: i32, at_ms: i64) -> Result<i64> {
        let mut broker = self.kafka.broker();
        let log = broker.log(&self.topics[topic], partition).ok_or_else(|| not_there(&self.topics[topic]))?;
        let found = log.records.iter().find(|(_, record)| record.timestamp_ms >= at_ms);
        Ok(found.map_or(log.end, |(offset, _)| *offset))
    }

    fn timestamp_at(&mut self, topic: usize, partition: i32, offset: i64) -> Result<Option<i64>> {
        let mut broker = self.kafka.broker();
        let log = broker.log(&self.topics[topic], partition).ok_or_else(|| not_there(&self.topics[topic]))?;
        let found = log.records.iter().find(|(at, _)| *at >= offset);
        Ok(found.map(|(_, record)| record.timestamp_ms).filter(|&at_ms| at_ms >= 0))
    }

    fn records_at(&mut self, topic: usize, partition: i32, offsets: &[i64], into: &mut RecordBatch) -> Result<()> {
        let mut broker = self.kafka.broker();
        let log = broker.log(&self.topics[topic], partition).ok_or_else(|| not_there(&self.topics[topic]))?;
        for (offset, record) in log.records.iter().filter(|(offset, _)| offsets.contains(offset)) {
            let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
            into.push(*offset, record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let known: Vec<i32> = self.known.iter().copied().collect();
        self.unassign(&known)?;
        if let Some(member) = self.member.take() {
            self.kafka.with_group(&self.group, |group| group.leave(member));
        }
        Ok(())
    }
}

fn not_there(topic: &str) -> Error {
    Error::retry("unknown_topic_or_part", format!("the topic `{topic}` is not there"))
}

/// One partition as its reader sees it.
pub struct MemoryInput {
    kafka: MemoryKafka,
    topic: String,
    partition: i32,
    stage: Arc<Mutex<Stage>>,
    offset_next: i64,
    end: i64,
    /// Kept alive as long as the input: the cluster only knows it weakly.
    _waker: Arc<dyn Wake>,
}

impl Input for MemoryInput {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        let mut stage = self.stage.lock().expect("nothing panics holding it");
        match *stage {
            Stage::Waiting | Stage::Closed => {
                return Ok(Fetched { records: 0, offset_next: self.offset_next, at_end: false });
            }
            Stage::Starting(offset) => (self.offset_next, *stage) = (offset, Stage::Reading),
            Stage::Reading => {}
        }
        let mut broker = self.kafka.broker();
        let irregular = broker.chance(limit.records.min(IRREGULAR_MAX) as u64 + 1);
        let records_max = irregular.map_or(limit.records, |records| records as usize);
        let log = broker.log(&self.topic, self.partition).ok_or_else(|| not_there(&self.topic))?;
        if self.offset_next < log.start || self.offset_next > log.end {
            let (topic, partition, offset) = (&self.topic, self.partition, self.offset_next);
            let message =
                format!("topic `{topic}` partition {partition}: offset {offset} is not in the log (any more)");
            return Err(Error::stop("gap", message));
        }
        let (before, bytes_max) = (batch.records.len(), batch.bytes.len().saturating_add(limit.bytes));
        let from = log.records.partition_point(|(offset, _)| *offset < self.offset_next);
        // Behind what is taken, and behind holes, but never past a record or the wanted end.
        let mut reached = log.end;
        for (offset, record) in &log.records[from..] {
            let full = batch.records.len() - before == records_max || batch.bytes.len() >= bytes_max;
            if full || *offset >= limit.offset_end {
                reached = *offset;
                break;
            }
            let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
            batch.push(*offset, record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers);
        }
        self.end = log.end;
        self.offset_next = self.offset_next.max(reached.min(limit.offset_end));
        let records = batch.records.len() - before;
        Ok(Fetched { records, offset_next: self.offset_next, at_end: self.offset_next == log.end })
    }

    fn end(&self) -> i64 {
        self.end
    }
}

impl Drop for MemoryInput {
    fn drop(&mut self) {
        *self.stage.lock().expect("nothing panics holding it") = Stage::Closed;
    }
}
