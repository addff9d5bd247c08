//! Where records come from: the seam to Kafka.
//!
//! A pipeline has one [`Group`] (its consumer group member, owned by the coordinator thread) and, per task, one
//! [`Input`] per topic (a partition's queue, owned by the worker). Nobody but the coordinator commits.

pub mod kafka;
mod kafka_version;
pub mod memory;

use crate::codec::record::RecordBatch;
use crate::error::{Error, Result};
use crate::types::TopicId;
use std::sync::Arc;
use std::time::Duration;

pub use kafka_version::client_version;

/// A topic as the broker knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    pub name: String,
    pub id: TopicId,
    /// How many partitions; 0 where the topic does not exist.
    pub partitions: i32,
}

/// What the group says happened. The coordinator answers `Assigned` and `Revoked` with `assign` and `unassign`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupEvent {
    /// Partitions of the first topic that are now ours (in addition to those we have).
    Assigned(Vec<i32>),
    /// Partitions that are to be given back; with `lost` they are gone already.
    Revoked { partitions: Vec<i32>, lost: bool },
    /// The answer to the commit of that number.
    Committed { id: u64, outcome: CommitOutcome },
    /// The client cannot go on; the pipeline starts anew.
    Fatal(Error),
    /// Something worth a log line; the client goes on by itself.
    Trouble(Error),
}

/// What a commit's answer means (`exactly-once.md`, Accepted).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// No error for any partition.
    Accepted,
    /// Not accepted: rebalance in progress, time-outs, coordinator errors. Repeat.
    Repeat(String),
    /// Generation or member refused: insert nothing, commit nothing until the next assignment.
    Fenced(String),
}

/// The committed offsets of one task: one entry per topic of the pipeline, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommittedOffsets {
    pub offsets: Vec<Option<i64>>,
    /// The metadata on the first topic's partition; empty where there is none.
    pub metadata: String,
}

/// What a task's commit says: offsets per topic, and the mark as metadata on the first one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetsToCommit {
    pub partition: i32,
    /// Next offset to read, per topic; `None` where nothing is said of one (a topic that the history does not know).
    /// The first topic has one.
    pub offsets: Vec<Option<i64>>,
    pub metadata: String,
}

/// One member of a pipeline's consumer group. Partition numbers are those of the first topic; the other topics
/// ride along (`exactly-once.md`, Assignment). `topic` is an index into the pipeline's list of topics.
pub trait Group: Send {
    /// Joins the group: subscribes to the first topic.
    fn join(&mut self) -> Result<()>;

    /// The next event, waiting for it at most `wait`.
    fn poll(&mut self, wait: Duration) -> Option<GroupEvent>;

    /// Takes the partitions on, each topic from its offset, in `offsets[partition][topic]` order. Every input
    /// of the task must have been taken with `input` before (so that nothing reaches the main queue).
    fn assign(&mut self, starts: &[(i32, Vec<i64>)]) -> Result<()>;

    /// Gives the partitions up, with all riding topics.
    fn unassign(&mut self, partitions: &[i32]) -> Result<()>;

    /// The queue of one topic's partition.
    fn input(&mut self, topic: usize, partition: i32, waker: Arc<dyn Wake>) -> Result<Box<dyn Input>>;

    /// What is committed for these partitions; one entry per partition asked.
    fn committed(&mut self, partitions: &[i32]) -> Result<Vec<CommittedOffsets>>;

    /// Whether the group has any committed offset for any partition of the first topic.
    fn has_any_offset(&mut self) -> Result<bool>;

    /// Sends one commit request for all these tasks; its answer comes as `GroupEvent::Committed { id, .. }`.
    fn commit(&mut self, id: u64, tasks: &[OffsetsToCommit]) -> Result<()>;

    /// All topics of the pipeline, in its order, asked of the broker now.
    fn topics(&mut self) -> Result<Vec<TopicInfo>>;

    /// Asks the same without waiting; [`Group::topics_told`] has the answer when it is there. One question at a time.
    fn ask_topics(&mut self);

    /// The answer to `ask_topics`, once: an error when the broker did not give it in time.
    fn topics_told(&mut self) -> Option<Result<Vec<TopicInfo>>>;

    /// The first offset that is there, and the readable end (`read_committed`: the last stable offset).
    fn log_range(&mut self, topic: usize, partition: i32) -> Result<(i64, i64)>;

    /// The first offset whose Kafka timestamp is at or after `at_ms`; the readable end where there is none.
    fn offset_at(&mut self, topic: usize, partition: i32, at_ms: i64) -> Result<i64>;

    /// The Kafka timestamp of the record at or after that offset, `None` at the end.
    fn timestamp_at(&mut self, topic: usize, partition: i32, offset: i64) -> Result<Option<i64>>;

    /// Appends the records at these offsets (ascending) that are still there, in a reading of its own: what the
    /// inputs read is not touched.
    fn records_at(&mut self, topic: usize, partition: i32, offsets: &[i64], into: &mut RecordBatch) -> Result<()>;

    /// Leaves the group for good: unsubscribe, poll until revoked (answering the events), close.
    fn leave(&mut self) -> Result<()>;
}

/// Wakes whoever waits for records; called from the client's threads.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

/// How much one `fill` may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchLimit {
    pub records: usize,
    pub bytes: usize,
    /// Take no record at or after this offset (`i64::MAX` for no limit). What comes later stays in the queue.
    pub offset_end: i64,
}

/// What one `fill` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// Records appended to the batch.
    pub records: usize,
    /// The next offset to read, behind what was taken and behind markers and compacted offsets passed.
    pub offset_next: i64,
    /// The log's readable end was reached at this call, or nothing was added since it was.
    pub at_end: bool,
}

/// One partition's queue, owned by a worker.
pub trait Input: Send {
    /// Takes what is there now (never waits), in offset order, and appends it to `batch`.
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched>;

    /// The last known readable end of the log; -1 before it is known.
    fn end(&self) -> i64;
}
