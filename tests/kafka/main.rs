//! The source against a real broker: what it promises, through the group's events.

mod bench;
mod groups;
mod member;
mod questions;
mod reading;
mod security;
#[path = "../support/mod.rs"]
mod support;

use bench::{WAIT, Writer, create_topic, delete_topic, grow_topic, trim, unique};
use member::{ALL, Member, Told, Wakes, counted, open, plan};
use rdkafka::message::{Header, OwnedHeaders};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weir::codec::record::RecordBatch;
use weir::error::Kind;
use weir::source::kafka::KafkaGroup;
use weir::source::{CommitOutcome, FetchLimit, Fetched, Group, GroupEvent, Input, OffsetsToCommit};

/// Waits for the first assignment and takes it from the given offsets, without reading.
fn assigned(group: &mut KafkaGroup, topics: usize, start: i64, wakes: &Arc<Wakes>) -> Vec<Box<dyn Input>> {
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline {
        if let Some(GroupEvent::Assigned(partitions)) = group.poll(Duration::from_millis(100)) {
            let mut inputs = Vec::new();
            for partition in &partitions {
                (0..topics).for_each(|topic| inputs.push(group.input(topic, *partition, wakes.clone()).unwrap()));
            }
            let starts: Vec<_> = partitions.iter().map(|partition| (*partition, vec![start; topics])).collect();
            group.assign(&starts).unwrap();
            return inputs;
        }
    }
    panic!("no assignment in {WAIT:?}");
}

/// Fills until the condition holds.
fn fill_until(
    input: &mut dyn Input,
    batch: &mut RecordBatch,
    limit: FetchLimit,
    holds: impl Fn(&RecordBatch, Fetched) -> bool,
) -> Fetched {
    let deadline = Instant::now() + WAIT;
    loop {
        let fetched = input.fill(batch, limit).unwrap();
        if holds(batch, fetched) {
            return fetched;
        }
        assert!(Instant::now() < deadline, "in {WAIT:?}: {} records, {fetched:?}", batch.records.len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn offsets(batch: &RecordBatch) -> Vec<i64> {
    batch.records.iter().map(|record| record.offset).collect()
}

fn answer(group: &mut KafkaGroup) -> (u64, CommitOutcome) {
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline {
        if let Some(GroupEvent::Committed { id, outcome }) = group.poll(Duration::from_millis(100)) {
            return (id, outcome);
        }
    }
    panic!("no answer in {WAIT:?}");
}

/// Waits until the log's readable end is there: a transaction's marker is written after its commit returns.
fn ends_at(group: &mut KafkaGroup, end: i64) {
    let deadline = Instant::now() + WAIT;
    while group.log_range(0, 0).unwrap().1 != end {
        assert!(Instant::now() < deadline, "the log ends at {end}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn one_topic(partitions: i32) -> (String, Vec<String>) {
    let topic = unique("t");
    create_topic(&topic, partitions);
    (topic.clone(), vec![topic])
}
