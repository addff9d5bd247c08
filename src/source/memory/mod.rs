//! A Kafka in memory, for unit tests and the simulation: topics, groups, and the ways they fail.
//!
//! Owns the logs, the groups and their committed offsets. Promises: no threads, no clocks; the same calls in the
//! same order give the same answers, irregular ones too (they come from a seed). It judges a commit as the real
//! broker does: by member, not by who owns the partition.

mod group;
mod member;
#[cfg(test)]
mod tests;

pub use member::{MemoryGroup, MemoryInput};

use crate::source::Wake;
use crate::types::TopicId;
use group::GroupState;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// The cluster; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryKafka(Arc<Mutex<Broker>>);

/// One record as a producer sends it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryRecord {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MemoryRecord {
    /// A record with a value and a time.
    pub fn new(timestamp_ms: i64, value: impl Into<Vec<u8>>) -> MemoryRecord {
        MemoryRecord { timestamp_ms, value: Some(value.into()), ..MemoryRecord::default() }
    }
}

/// What happens to a commit on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitFault {
    /// Nothing: applied and answered.
    None,
    /// The request does not arrive; the client says that it timed out.
    RequestLost,
    /// The request is applied; the client says that it timed out.
    AnswerLost,
    /// The broker says that a rebalance is in progress.
    Rebalancing,
    /// The broker refuses the generation.
    IllegalGeneration,
}

#[derive(Default)]
struct Broker {
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, GroupState>,
    ids_given: u64,
    members_made: u64,
    /// Where irregular sizes come from; `None`: as much as is there.
    random: Option<u64>,
    commit_faults: VecDeque<CommitFault>,
    wakers: Vec<(String, i32, Weak<dyn Wake>)>,
}

struct Topic {
    id: TopicId,
    partitions: Vec<Log>,
}

/// A partition's records, in offset order; transaction markers and compacted offsets are holes.
#[derive(Default)]
struct Log {
    records: Vec<(i64, MemoryRecord)>,
    start: i64,
    end: i64,
}

impl Broker {
    /// A number below `below` (at least 1), from the seed; `None` in a regular cluster.
    fn chance(&mut self, below: u64) -> Option<u64> {
        let state = self.random.as_mut()?;
        // xorshift64*: small, and good enough to be irregular.
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        Some((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below)
    }

    fn log(&mut self, topic: &str, partition: i32) -> Option<&mut Log> {
        self.topics.get_mut(topic)?.partitions.get_mut(partition as usize)
    }

    fn partition_count(&self, topic: &str) -> i32 {
        self.topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32)
    }

    fn rebalance_readers_of(&mut self, topic: &str) {
        let count = self.partition_count(topic);
        self.groups.values_mut().filter(|group| group.topic == topic).for_each(|group| group.resize(count));
    }
}

impl MemoryKafka {
    /// A cluster that always hands over as much as is there.
    pub fn new() -> MemoryKafka {
        MemoryKafka::default()
    }

    /// A cluster whose fetches differ in size from call to call, as the seed says.
    pub fn irregular(seed: u64) -> MemoryKafka {
        let kafka = MemoryKafka::new();
        kafka.broker().random = Some(seed | 1);
        kafka
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.0.lock().expect("nothing panics while the cluster is held")
    }

    /// Makes a topic, with an id that no topic had before.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let mut broker = self.broker();
        broker.ids_given += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&broker.ids_given.to_be_bytes());
        let partitions = (0..partitions).map(|_| Log::default()).collect();
        let earlier = broker.topics.insert(name.into(), Topic { id: TopicId(id), partitions });
        assert!(earlier.is_none(), "topic `{name}` exists already");
        broker.rebalance_readers_of(name);
    }

    /// Deletes a topic, and with it every group's committed offsets of it.
    pub fn delete_topic(&self, name: &str) {
        let mut broker = self.broker();
        broker.topics.remove(name).expect("a topic that is deleted exists");
        broker.groups.values_mut().for_each(|group| group.committed.retain(|(topic, _), _| topic != name));
    }

    /// Adds partitions.
    pub fn grow_topic(&self, name: &str, partitions: i32) {
        let mut broker = self.broker();
        let topic = broker.topics.get_mut(name).expect("a topic that grows exists");
        topic.partitions.resize_with(partitions as usize, Log::default);
        broker.rebalance_readers_of(name);
    }

    /// Appends a record; its offset.
    pub fn append(&self, topic: &str, partition: i32, record: MemoryRecord) -> i64 {
        let offset = self.with_log(topic, partition, |log| {
            log.records.push((log.end, record));
            log.end += 1;
            log.end - 1
        });
        self.wake(topic, partition);
        offset
    }

    /// Appends an offset without a record, such as a transaction's marker.
    pub fn append_marker(&self, topic: &str, partition: i32) {
        self.with_log(topic, partition, |log| log.end += 1);
        self.wake(topic, partition);
    }

    /// Retention: everything before `offset` goes.
    pub fn trim(&self, topic: &str, partition: i32, offset: i64) {
        self.with_log(topic, partition, |log| {
            log.start = log.start.max(offset);
            log.end = log.end.max(offset);
            log.records.retain(|(at, _)| *at >= offset);
        });
    }

    /// An unclean election: everything from `offset` on is gone, and the log goes on there.
    pub fn cut(&self, topic: &str, partition: i32, offset: i64) {
        self.with_log(topic, partition, |log| {
            log.end = log.end.min(offset);
            log.records.retain(|(at, _)| *at < offset);
        });
    }

    /// One record goes by compaction.
    pub fn compact(&self, topic: &str, partition: i32, offset: i64) {
        self.with_log(topic, partition, |log| log.records.retain(|(at, _)| *at != offset));
    }

    fn with_log<T>(&self, topic: &str, partition: i32, change: impl FnOnce(&mut Log) -> T) -> T {
        change(self.broker().log(topic, partition).expect("the partition exists"))
    }

    /// Outside the lock: who is woken may come back at once.
    fn wake(&self, topic: &str, partition: i32) {
        let mut wakers = Vec::new();
        self.broker().wakers.retain(|(of_topic, of_partition, waker)| {
            let live = waker.upgrade();
            let keep = live.is_some();
            wakers.extend(live.filter(|_| of_topic == topic && *of_partition == partition));
            keep
        });
        wakers.iter().for_each(|waker| waker.wake());
    }

    /// A member of a group; it has not joined yet. `instance_id` as in static membership.
    pub fn member(&self, group: &str, instance_id: Option<&str>, topics: &[&str]) -> MemoryGroup {
        let mut broker = self.broker();
        let count = broker.partition_count(topics[0]);
        broker.groups.entry(group.into()).or_insert_with(|| GroupState::new(topics[0], count));
        drop(broker);
        MemoryGroup::new(self.clone(), group, instance_id, topics)
    }

    /// The session of a member (by its instance id) times out: the others get its partitions; it learns so only
    /// when it polls or commits.
    pub fn expire(&self, group: &str, instance_id: &str) {
        self.with_group(group, |group| group.expire(instance_id));
    }

    /// Whether a member of that instance id is in the group.
    pub fn is_member(&self, group: &str, instance_id: &str) -> bool {
        self.broker().groups.get(group).is_some_and(|group| group.has_instance(instance_id))
    }

    /// Every member has to rejoin; until it polls, its commits are answered with "rebalance in progress".
    pub fn rebalance(&self, group: &str) {
        self.with_group(group, GroupState::rejoin_all);
    }

    /// What happens to the next commits, in their order; afterwards all goes well again.
    pub fn next_commits(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.broker().commit_faults.extend(faults);
    }

    /// How many of those no commit has met yet.
    pub fn faults_to_come(&self) -> usize {
        self.broker().commit_faults.len()
    }

    /// A committed offset and its metadata.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        let broker = self.broker();
        broker.groups.get(group)?.committed.get(&(topic.to_string(), partition)).cloned()
    }

    /// Moves a committed offset as the reset tool does: without metadata.
    pub fn reset_committed(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        self.with_group(group, |group| group.committed.insert((topic.into(), partition), (offset, String::new())));
    }

    /// All offsets of a group go, as when it expired. A group that nobody has joined yet has none.
    pub fn forget_committed(&self, group: &str) {
        if let Some(group) = self.broker().groups.get_mut(group) {
            group.committed.clear();
        }
    }

    fn with_group<T>(&self, group: &str, change: impl FnOnce(&mut GroupState) -> T) -> T {
        change(self.broker().groups.get_mut(group).expect("the group exists"))
    }
}
