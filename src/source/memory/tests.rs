use super::*;
use crate::codec::record::RecordBatch;
use crate::source::{CommitOutcome, FetchLimit, Group, GroupEvent, Input, OffsetsToCommit};
use std::time::Duration;

struct Deaf;
impl Wake for Deaf {
    fn wake(&self) {}
}

const ALL: FetchLimit = FetchLimit { records: 100, bytes: 1 << 20, offset_end: i64::MAX };

fn cluster(partitions: i32) -> MemoryKafka {
    let kafka = MemoryKafka::new();
    kafka.create_topic("t", partitions);
    kafka
}

fn joined(kafka: &MemoryKafka, instance_id: &str) -> MemoryGroup {
    let mut member = kafka.member("g", Some(instance_id), &["t"]);
    member.join().unwrap();
    member
}

fn poll(member: &mut MemoryGroup) -> Option<GroupEvent> {
    member.poll(Duration::ZERO)
}

fn commit(member: &mut MemoryGroup, partition: i32, offset: i64) -> CommitOutcome {
    member.commit(1, &[OffsetsToCommit { partition, offsets: vec![Some(offset)], metadata: "m".into() }]).unwrap();
    match poll(member) {
        Some(GroupEvent::Committed { outcome, .. }) => outcome,
        other => panic!("{other:?}"),
    }
}

fn input(member: &mut MemoryGroup, partition: i32, start: i64) -> Box<dyn Input> {
    let input = member.input(0, partition, Arc::new(Deaf)).unwrap();
    member.assign(&[(partition, vec![start])]).unwrap();
    input
}

fn write(kafka: &MemoryKafka, count: i64) {
    (0..count).for_each(|i| _ = kafka.append("t", 0, MemoryRecord::new(i, i.to_string())));
}

#[test]
fn a_partition_reaches_the_next_owner_only_when_the_last_gave_it_up() {
    let kafka = cluster(2);
    let mut a = joined(&kafka, "a");
    assert_eq!(poll(&mut a), Some(GroupEvent::Assigned(vec![0, 1])));
    let mut b = joined(&kafka, "b");
    assert_eq!(poll(&mut b), None);
    assert_eq!(poll(&mut a), Some(GroupEvent::Revoked { partitions: vec![1], lost: false }));
    assert_eq!(poll(&mut b), None);
    a.unassign(&[1]).unwrap();
    assert_eq!(poll(&mut a), Some(GroupEvent::Assigned(vec![])), "who gave back is told that the round has ended");
    assert_eq!(poll(&mut b), Some(GroupEvent::Assigned(vec![1])));
    b.leave().unwrap();
    assert_eq!(poll(&mut a), Some(GroupEvent::Assigned(vec![1])));
}

#[test]
fn metadata_longer_than_a_broker_takes_is_refused_for_its_partition_alone() {
    let kafka = cluster(2);
    let mut member = joined(&kafka, "a");
    poll(&mut member);
    let to_commit = |partition, chars: usize| OffsetsToCommit {
        partition,
        offsets: vec![Some(5)],
        metadata: "m".repeat(group::METADATA_CHARS_MAX + chars),
    };
    member.commit(1, &[to_commit(0, 1), to_commit(1, 0)]).unwrap();
    let Some(GroupEvent::Committed { outcome, .. }) = poll(&mut member) else { panic!("it is answered") };
    assert!(matches!(&outcome, CommitOutcome::Repeat(why) if why.contains("too large")), "{outcome:?}");
    assert_eq!(kafka.committed("g", "t", 0), None);
    assert_eq!(kafka.committed("g", "t", 1).map(|(offset, _)| offset), Some(5));
}

#[test]
fn a_zombie_is_refused_told_of_the_loss_and_comes_back() {
    let kafka = cluster(1);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    let mut b = joined(&kafka, "b");
    kafka.expire("g", "a");
    assert_eq!(poll(&mut b), Some(GroupEvent::Assigned(vec![0])));
    assert!(matches!(commit(&mut a, 0, 5), CommitOutcome::Fenced(_)));
    assert_eq!(commit(&mut b, 0, 3), CommitOutcome::Accepted);
    assert_eq!(poll(&mut a), Some(GroupEvent::Revoked { partitions: vec![0], lost: true }));
    assert_eq!(poll(&mut a), None);
    a.unassign(&[0]).unwrap();
    poll(&mut a);
    // Back in the group, it could overwrite the other's offset: the broker does not ask whose it is.
    poll(&mut a);
    assert_eq!(commit(&mut a, 0, 1), CommitOutcome::Accepted);
    assert_eq!(kafka.committed("g", "t", 0), Some((1, "m".into())));
}

#[test]
fn a_twin_takes_the_partitions_and_fences_the_first() {
    let kafka = cluster(1);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    let mut twin = joined(&kafka, "a");
    assert_eq!(poll(&mut twin), Some(GroupEvent::Assigned(vec![0])));
    assert!(matches!(commit(&mut a, 0, 1), CommitOutcome::Fenced(_)));
    assert!(matches!(poll(&mut a), Some(GroupEvent::Fatal(_))));
    assert_eq!(commit(&mut twin, 0, 1), CommitOutcome::Accepted);
}

#[test]
fn commits_fail_as_they_are_told_to() {
    let kafka = cluster(1);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    kafka.next_commits([CommitFault::RequestLost, CommitFault::AnswerLost, CommitFault::IllegalGeneration]);
    assert!(matches!(commit(&mut a, 0, 1), CommitOutcome::Repeat(_)));
    assert_eq!(kafka.committed("g", "t", 0), None);
    assert!(matches!(commit(&mut a, 0, 2), CommitOutcome::Repeat(_)));
    assert_eq!(kafka.committed("g", "t", 0), Some((2, "m".into())));
    assert!(matches!(commit(&mut a, 0, 3), CommitOutcome::Fenced(_)));
    assert_eq!(commit(&mut a, 0, 3), CommitOutcome::Accepted);
    kafka.rebalance("g");
    assert!(matches!(commit(&mut a, 0, 4), CommitOutcome::Repeat(_)));
    poll(&mut a);
    assert_eq!(commit(&mut a, 0, 4), CommitOutcome::Accepted);
}

#[test]
fn ends_holes_and_limits_are_as_in_kafka() {
    let kafka = cluster(1);
    write(&kafka, 3);
    kafka.append_marker("t", 0);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    let mut input = input(&mut a, 0, 0);
    let mut batch = RecordBatch::default();
    let two = input.fill(&mut batch, FetchLimit { offset_end: 2, ..ALL }).unwrap();
    assert_eq!((two.records, two.offset_next, two.at_end), (2, 2, false));
    let rest = input.fill(&mut batch, ALL).unwrap();
    assert_eq!((rest.records, rest.offset_next, rest.at_end, input.end()), (1, 4, true, 4));
    a.unassign(&[0]).unwrap();
    write(&kafka, 1);
    assert_eq!(input.fill(&mut batch, ALL).unwrap().records, 0, "given up: silent");
}

#[test]
fn positions_outside_the_log_are_gaps() {
    let kafka = cluster(1);
    write(&kafka, 5);
    kafka.trim("t", 0, 3);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    let mut early = input(&mut a, 0, 1);
    assert_eq!(early.fill(&mut RecordBatch::default(), ALL).unwrap_err().code, "gap");
    kafka.cut("t", 0, 4);
    let mut late = input(&mut a, 0, 5);
    assert_eq!(late.fill(&mut RecordBatch::default(), ALL).unwrap_err().code, "gap");
}

#[test]
fn a_topic_made_again_has_another_id_and_no_committed_offsets() {
    let kafka = cluster(1);
    let mut a = joined(&kafka, "a");
    poll(&mut a);
    commit(&mut a, 0, 7);
    let before = a.topics().unwrap().remove(0);
    kafka.delete_topic("t");
    assert_eq!(a.topics().unwrap()[0].partitions, 0);
    kafka.create_topic("t", 1);
    assert_ne!(a.topics().unwrap()[0].id, before.id);
    assert_eq!(a.committed(&[0]).unwrap()[0].offsets, [None]);
}

#[test]
fn irregular_fetches_lose_nothing_and_repeat_with_their_seed() {
    let run = |seed| {
        let kafka = MemoryKafka::irregular(seed);
        kafka.create_topic("t", 1);
        write(&kafka, 200);
        let mut a = joined(&kafka, "a");
        poll(&mut a);
        let mut input = input(&mut a, 0, 0);
        let (mut batch, mut sizes) = (RecordBatch::default(), Vec::new());
        while batch.records.len() < 200 {
            sizes.push(input.fill(&mut batch, FetchLimit { records: 20, ..ALL }).unwrap().records);
        }
        assert!(batch.records.iter().enumerate().all(|(i, record)| record.offset == i as i64));
        sizes
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
