//! The real Kafka, over librdkafka's C API.
//!
//! Owns the group member: its subscription to the first topic, the riding topics that go along with it, and every
//! commit. Promises: nothing happens inside a callback. A rebalance is an event that the coordinator answers with
//! `assign` or `unassign` when it is ready; a commit's answer is an event too. A task's partitions are taken and
//! given up together. Never jumps to an offset by itself, never commits by itself.
//!
//! Why not the safe wrapper: it has no call that hands over many messages at once, and it serves rebalances from
//! inside its poll.

mod bare;
mod client;
mod events;
mod input;
mod lookup;
mod partitioner;
mod refetch;
mod retention;
mod sample;
mod settings;

pub use bare::{BareCount, drain_bare};
pub use partitioner::Partitioner;
pub use retention::{Retention, retention};
pub use sample::{Sample, SampledRecord, sample};
pub use settings::session_timeout_ms;

use crate::codec::record::RecordBatch;
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use crate::source::{CommittedOffsets, Group, GroupEvent, Input, OffsetsToCommit, TopicInfo, Wake};
use client::{Client, PartitionList, Queue, check};
use events::{MEMBER_EVENTS, code_name, error_text};
use input::{KafkaInput, Tap};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// "Any partition": what a subscription's list says.
const PARTITION_UNASSIGNED: i32 = -1;
/// How long a request to the broker may take before the caller hears of it.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long leaving the group may take; afterwards the session time-out has to do it.
const LEAVE_WAIT: Duration = Duration::from_secs(15);

/// What a member needs to know.
#[derive(Clone, Copy, Debug)]
pub struct MemberOptions<'a> {
    pub kafka: &'a KafkaPlan,
    /// `group.instance.id`; a member without one leaves nothing behind to come back to.
    pub instance_id: Option<&'a str>,
    /// The pipeline's topics; the first is subscribed, the others ride along.
    pub topics: &'a [String],
    /// What one partition's queue may hold.
    pub queued_bytes_per_partition: u64,
    /// Whether record headers are copied.
    pub with_headers: bool,
    /// The broker to ask for topic ids: librdkafka's mock cluster answers only when asked by number (1).
    pub describe_by_broker: Option<i32>,
}

/// One member of a pipeline's consumer group. Lives on the coordinator's thread.
pub struct KafkaGroup {
    queue: Option<Queue>,
    taps: BTreeMap<(usize, i32), Arc<Tap>>,
    handles: Vec<TopicHandle>,
    topics: Vec<CString>,
    /// Partitions the group gave us, assigned by us or not yet.
    owned: BTreeSet<i32>,
    /// Partitions we assigned, with all riding topics.
    assigned: BTreeSet<i32>,
    /// What the group asked and we have not answered.
    asked: Asked,
    /// The client has lost the assignment, forgets that with our next call, and has not told it yet.
    lost_untold: bool,
    /// What we asked and nobody has answered.
    question: Option<lookup::TopicsQuestion>,
    kafka: KafkaPlan,
    with_headers: bool,
    describe_by_broker: Option<i32>,
    client: Option<Arc<Client>>,
}

/// A rebalance that waits for its answer. A client whose question is open cannot end: it waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Nothing,
    Assign,
    Unassign,
}

/// Keeps a topic known to the client, so that its first fetch does not wait for metadata.
struct TopicHandle {
    topic: *mut sys::rd_kafka_topic_t,
    _client: Arc<Client>,
}

// SAFETY: topic handles are reference counted and locked inside the library.
unsafe impl Send for TopicHandle {}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the reference of `rd_kafka_topic_new`; the client is still alive.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) }
    }
}

impl KafkaGroup {
    /// A member that has not joined yet. Talks to no broker.
    pub fn open(options: MemberOptions<'_>) -> Result<KafkaGroup> {
        assert!(!options.topics.is_empty(), "a pipeline reads at least one topic");
        let settings = Settings::member(options.kafka, options.instance_id, options.queued_bytes_per_partition);
        let client = Client::consumer(&settings, MEMBER_EVENTS)?;
        let topics = options.topics.iter().map(|name| c_name(name)).collect::<Result<Vec<_>>>()?;
        Ok(KafkaGroup {
            queue: Some(client.consumer_queue()),
            taps: BTreeMap::new(),
            handles: Vec::new(),
            topics,
            owned: BTreeSet::new(),
            assigned: BTreeSet::new(),
            asked: Asked::Nothing,
            lost_untold: false,
            question: None,
            kafka: options.kafka.clone(),
            with_headers: options.with_headers,
            describe_by_broker: options.describe_by_broker,
            client: Some(client),
        })
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("the queue is there until the group is dropped")
    }

    fn client(&self) -> &Arc<Client> {
        self.client.as_ref().expect("the client is there until the group is dropped")
    }

    /// Makes the riding topics known: a handle each, and their metadata. Otherwise their first record comes late.
    fn prepare_riding_topics(&mut self) -> Result<()> {
        if !self.handles.is_empty() {
            return Ok(());
        }
        let mut handles = Vec::new();
        for topic in &self.topics[1..] {
            let client = self.client().clone();
            // SAFETY: the client is live, the name ends in NUL, null asks for the default topic settings.
            let handle = unsafe { sys::rd_kafka_topic_new(client.ptr(), topic.as_ptr(), std::ptr::null_mut()) };
            assert!(!handle.is_null(), "a valid topic name gives a handle");
            let handle = TopicHandle { topic: handle, _client: client };
            lookup::metadata_of(self.client(), handle.topic, REQUEST_WAIT)?;
            handles.push(handle);
        }
        self.handles = handles;
        Ok(())
    }

    fn close_taps(&mut self, partitions: &[i32]) {
        for topic in 0..self.topics.len() {
            for partition in partitions {
                if let Some(tap) = self.taps.remove(&(topic, *partition)) {
                    tap.close();
                }
            }
        }
    }

    fn assignment_is_lost(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { sys::rd_kafka_assignment_lost(self.client().ptr()) != 0 }
    }

    /// Polls until everything is given up, answering the events.
    fn poll_until_revoked(&mut self, deadline: Instant) -> Result<()> {
        while !self.owned.is_empty() || !self.assigned.is_empty() {
            if Instant::now() >= deadline {
                return Err(Error::retry("leave", "the group did not let go of its partitions in time"));
            }
            match self.poll(Duration::from_millis(100)) {
                Some(GroupEvent::Revoked { partitions, .. }) => self.unassign(&partitions)?,
                Some(GroupEvent::Assigned(partitions)) => {
                    tracing::debug!(?partitions, "assigned while leaving: not taken");
                    self.assign(&[])?;
                }
                Some(GroupEvent::Fatal(error)) => return Err(error),
                Some(GroupEvent::Trouble(error)) => tracing::warn!("{error}"),
                Some(GroupEvent::Committed { .. }) | None => {}
            }
        }
        Ok(())
    }

    /// Waits until the request to leave is on its way (the client forgets its member id with it): a static member
    /// whose client closes before that stays in the group until its session times out.
    fn wait_until_left(&mut self, deadline: Instant) -> Result<()> {
        while self.is_member() {
            if Instant::now() >= deadline {
                return Err(Error::retry("leave", "the client did not leave the group in time"));
            }
            if let Some(GroupEvent::Revoked { partitions, .. }) = self.poll(Duration::from_millis(5)) {
                self.unassign(&partitions)?;
            }
        }
        Ok(())
    }

    fn is_member(&self) -> bool {
        let rk = self.client().ptr();
        // SAFETY: the client is live; the answer is null or a string that is ours to free.
        unsafe {
            let id = sys::rd_kafka_memberid(rk);
            let is_member = !id.is_null() && *id != 0;
            sys::rd_kafka_mem_free(rk, id.cast());
            is_member
        }
    }

    /// Answers what the group asked last with nothing taken: otherwise the client waits for it when it is to end.
    fn answer_with_nothing(&mut self) {
        let _ = match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => Ok(()),
            Asked::Assign => self.assign(&[]),
            Asked::Unassign => self.unassign(&[]),
        };
    }

    fn close_consumer(&mut self, deadline: Instant) -> Result<()> {
        let rk = self.client().ptr();
        // SAFETY: client and queue are live; the closing's events come to the queue, which we serve below.
        check("the client does not close", unsafe { sys::rd_kafka_consumer_close_queue(rk, self.queue().ptr()) })?;
        // SAFETY: the client is live.
        while unsafe { sys::rd_kafka_consumer_closed(rk) } == 0 {
            if Instant::now() >= deadline {
                return Err(Error::retry("leave", "the client did not close in time"));
            }
            if let Some(GroupEvent::Revoked { partitions, .. }) = self.poll(Duration::from_millis(50)) {
                self.unassign(&partitions)?;
            }
        }
        Ok(())
    }
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::stop("kafka_settings", format!("the name {name:?} holds a NUL character")))
}

impl Group for KafkaGroup {
    fn join(&mut self) -> Result<()> {
        self.prepare_riding_topics()?;
        let mut list = PartitionList::new();
        list.add(&self.topics[0], PARTITION_UNASSIGNED, sys::RD_KAFKA_OFFSET_INVALID.into());
        // SAFETY: client and list are live; the list is copied.
        let code = unsafe { sys::rd_kafka_subscribe(self.client().ptr(), list.ptr()) } as i32;
        if code == 0 {
            return Ok(());
        }
        Err(Error::retry(code_name(code), format!("subscribing to the topic failed: {}", error_text(code))))
    }

    fn poll(&mut self, wait: Duration) -> Option<GroupEvent> {
        let event = self.queue().poll(wait)?;
        let brokers = self.kafka.brokers.join(", ");
        let lost_untold = self.lost_untold;
        let event = events::read(&event, &brokers, || self.assignment_is_lost() || lost_untold)?;
        match &event {
            GroupEvent::Assigned(partitions) => {
                self.asked = Asked::Assign;
                self.owned.extend(partitions);
            }
            GroupEvent::Revoked { partitions, lost } => {
                self.asked = Asked::Unassign;
                self.lost_untold = false;
                // What is lost may not be committed any more, whatever the coordinator still does with it.
                self.owned.retain(|p| !lost || !partitions.contains(p));
            }
            _ => {}
        }
        Some(event)
    }

    fn assign(&mut self, starts: &[(i32, Vec<i64>)]) -> Result<()> {
        self.asked = Asked::Nothing;
        let mut list = PartitionList::new();
        for (partition, offsets) in starts {
            assert_eq!(offsets.len(), self.topics.len(), "an offset for each topic");
            for (topic, offset) in offsets.iter().enumerate() {
                let tap = self.taps.get(&(topic, *partition)).expect("every input was taken before its assignment");
                tap.start(*offset);
                list.add(&self.topics[topic], *partition, *offset);
            }
        }
        self.lost_untold |= self.assignment_is_lost();
        // SAFETY: client and list are live; the list is copied.
        check("assigning the partitions failed", unsafe {
            sys::rd_kafka_incremental_assign(self.client().ptr(), list.ptr())
        })?;
        // Also what was taken back for a moment to begin anew: it is ours as long as the group has not asked for it.
        self.owned.extend(starts.iter().map(|(partition, _)| *partition));
        self.assigned.extend(starts.iter().map(|(partition, _)| *partition));
        for (partition, offsets) in starts {
            for topic in 0..offsets.len() {
                self.taps[&(topic, *partition)].wake();
            }
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[i32]) -> Result<()> {
        let is_answer = std::mem::replace(&mut self.asked, Asked::Nothing) == Asked::Unassign;
        self.close_taps(partitions);
        let mut list = PartitionList::new();
        for partition in partitions.iter().filter(|&partition| self.assigned.contains(partition)) {
            // All topics of the task at once: a riding partition left behind would read on unseen.
            for topic in &self.topics {
                list.add(topic, *partition, sys::RD_KAFKA_OFFSET_INVALID.into());
            }
        }
        for partition in partitions {
            self.assigned.remove(partition);
            self.owned.remove(partition);
        }
        self.lost_untold |= !is_answer && self.assignment_is_lost();
        // Also with an empty list: it is the answer that the group waits for.
        // SAFETY: client and list are live; the list is copied.
        check("giving the partitions up failed", unsafe {
            sys::rd_kafka_incremental_unassign(self.client().ptr(), list.ptr())
        })
    }

    fn input(&mut self, topic: usize, partition: i32, waker: Arc<dyn Wake>) -> Result<Box<dyn Input>> {
        let key = (topic, partition);
        if let Some(earlier) = self.taps.remove(&key) {
            earlier.close();
        }
        let queue = self.client().partition_queue(&self.topics[topic], partition);
        let tap = Tap::open(queue, self.topics[topic].clone(), partition, waker);
        self.taps.insert(key, tap.clone());
        Ok(Box::new(KafkaInput::new(tap, self.with_headers)))
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<CommittedOffsets>> {
        lookup::committed(self.client(), &self.topics, partitions, REQUEST_WAIT)
    }

    fn has_any_offset(&mut self) -> Result<bool> {
        let count = self.topics()?[0].partitions;
        let partitions: Vec<i32> = (0..count).collect();
        let committed = lookup::committed(self.client(), &self.topics[..1], &partitions, REQUEST_WAIT)?;
        Ok(committed.iter().any(|task| task.offsets[0].is_some()))
    }

    fn commit(&mut self, id: u64, tasks: &[OffsetsToCommit]) -> Result<()> {
        assert!(!tasks.is_empty(), "a commit names at least one task");
        let mut list = PartitionList::new();
        for task in tasks {
            // The broker asks who we are, not what is ours: so we ask.
            if !self.owned.contains(&task.partition) || self.lost_untold || self.assignment_is_lost() {
                let message = format!("partition {} is not ours any more: nothing is committed", task.partition);
                return Err(Error::fenced("not_owned", message));
            }
            assert_eq!(task.offsets.len(), self.topics.len(), "an offset for each topic");
            for (index, (topic, offset)) in self.topics.iter().zip(&task.offsets).enumerate() {
                let Some(offset) = offset else {
                    assert!(index > 0, "the mark goes with the first topic's offset");
                    continue;
                };
                assert!(*offset >= 0, "a committed offset is a real one");
                let metadata = if index == 0 { task.metadata.as_str() } else { "" };
                list.add_with_metadata(topic, task.partition, *offset, metadata);
            }
        }
        let tag = id as usize as *mut c_void;
        // SAFETY: client, list and queue are live; the list is copied; the tag is a number that nobody follows.
        let code = unsafe {
            sys::rd_kafka_commit_queue(self.client().ptr(), list.ptr(), self.queue().ptr(), None, tag) as i32
        };
        if code == err::RD_KAFKA_RESP_ERR_NO_ERROR as i32 {
            return Ok(());
        }
        Err(Error::retry(code_name(code), format!("the commit was not sent: {}", error_text(code))))
    }

    fn topics(&mut self) -> Result<Vec<TopicInfo>> {
        lookup::topics(self.client(), &self.topics, self.describe_by_broker, REQUEST_WAIT)
    }

    fn ask_topics(&mut self) {
        let question = lookup::TopicsQuestion::ask(self.client(), &self.topics, self.describe_by_broker, REQUEST_WAIT);
        self.question = Some(question);
    }

    fn topics_told(&mut self) -> Option<Result<Vec<TopicInfo>>> {
        let answer = self.question.as_ref()?.answer(Duration::ZERO)?;
        self.question = None;
        Some(answer)
    }

    fn log_range(&mut self, topic: usize, partition: i32) -> Result<(i64, i64)> {
        lookup::log_range(self.client(), &self.topics[topic], partition, REQUEST_WAIT)
    }

    fn offset_at(&mut self, topic: usize, partition: i32, at_ms: i64) -> Result<i64> {
        match lookup::offset_at(self.client(), &self.topics[topic], partition, at_ms, REQUEST_WAIT)? {
            Some(offset) => Ok(offset),
            None => Ok(self.log_range(topic, partition)?.1),
        }
    }

    fn timestamp_at(&mut self, topic: usize, partition: i32, offset: i64) -> Result<Option<i64>> {
        let (low, end) = self.log_range(topic, partition)?;
        let offset = offset.max(low);
        if offset >= end {
            return Ok(None);
        }
        lookup::timestamp_at(&self.kafka, &self.topics[topic], partition, offset, REQUEST_WAIT)
    }

    fn records_at(&mut self, topic: usize, partition: i32, offsets: &[i64], into: &mut RecordBatch) -> Result<()> {
        refetch::records_at(&self.kafka, &self.topics[topic], partition, offsets, into, REQUEST_WAIT)
    }

    fn leave(&mut self) -> Result<()> {
        let deadline = Instant::now() + LEAVE_WAIT;
        // SAFETY: the client is live.
        let code = unsafe { sys::rd_kafka_unsubscribe(self.client().ptr()) } as i32;
        if code != 0 {
            return Err(Error::retry(code_name(code), format!("leaving the group failed: {}", error_text(code))));
        }
        self.poll_until_revoked(deadline)?;
        self.wait_until_left(deadline)?;
        self.close_consumer(deadline)
    }
}

impl Drop for KafkaGroup {
    fn drop(&mut self) {
        for tap in self.taps.values() {
            tap.close();
        }
        self.taps.clear();
        self.handles.clear();
        self.answer_with_nothing();
        self.question = None;
        self.queue = None;
        // The last handle goes here, on the coordinator's thread, unless a worker still holds an input.
        if let Some(client) = self.client.take() {
            client.close();
        }
    }
}
