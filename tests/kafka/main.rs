//! The source against a real broker: what it promises, through the group's events.

mod bench;
mod member;
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
use weir::source::kafka::{KafkaGroup, drain_bare};
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

#[test]
fn records_come_in_order_each_once_over_many_rebalances() {
    const PARTITIONS: i32 = 4;
    let topics = vec![unique("first"), unique("riding")];
    topics.iter().for_each(|topic| create_topic(topic, PARTITIONS));
    let (group, told) = (unique("g"), Told::default());
    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (topics, stop) = (topics.clone(), stop.clone());
        move || {
            let writer = Writer::plain();
            let mut sent = 0;
            while !stop.load(Ordering::SeqCst) {
                for topic in &topics {
                    (0..PARTITIONS).for_each(|p| (0..25).for_each(|i| writer.send(topic, p, &format!("{}", sent + i))));
                }
                sent += 25;
                writer.flush();
                std::thread::sleep(Duration::from_millis(2));
            }
            sent as usize
        }
    });
    let mut steady = Member::join(&group, Some("steady"), &topics, &told);
    steady.until("all partitions are the first member's", |member| member.partitions().len() == 4);
    let mut rebalances = 0;
    for _ in 0..8 {
        let mut guest = Member::join(&group, None, &topics, &told);
        let deadline = Instant::now() + WAIT;
        while guest.partitions().len() < 2 || steady.partitions().len() > 2 {
            assert!(Instant::now() < deadline, "the guest gets its half");
            steady.step();
            guest.step();
        }
        for _ in 0..20 {
            steady.step();
            guest.step();
        }
        guest.group.leave().unwrap();
        rebalances += guest.rebalances;
        drop(guest);
        steady.until("everything comes back", |member| member.partitions().len() == 4);
    }
    stop.store(true, Ordering::SeqCst);
    let sent = writing.join().unwrap();
    let total = sent * topics.len() * PARTITIONS as usize;
    steady.until("all records counted", |_| counted(&told) >= total);
    eprintln!("{total} records, {} rebalances, {} fenced", rebalances + steady.rebalances, steady.fenced);
    for (place, records) in told.lock().unwrap().iter() {
        let expected: Vec<(i64, String)> = (0..sent).map(|i| (i as i64, i.to_string())).collect();
        assert!(*records == expected, "{place:?}: each record once and in order");
    }
}

#[test]
fn a_commit_with_its_mark_is_what_the_next_member_finds() {
    let (_, topics) = one_topic(2);
    let riding = unique("riding");
    create_topic(&riding, 2);
    let topics = vec![topics[0].clone(), riding];
    let plan = plan(&unique("g"));
    let mut group = open(&plan, Some("a"), &topics);
    assert!(!group.has_any_offset().unwrap());
    group.join().unwrap();
    let _inputs = assigned(&mut group, 2, 0, &Arc::default());
    let mark = "m".repeat(4_000);
    let tasks = [
        OffsetsToCommit { partition: 0, offsets: vec![3, 4], metadata: mark.clone() },
        OffsetsToCommit { partition: 1, offsets: vec![5, 0], metadata: "x".into() },
    ];
    group.commit(77, &tasks).unwrap();
    assert_eq!(answer(&mut group), (77, CommitOutcome::Accepted));
    drop(group);
    let mut next = open(&plan, Some("b"), &topics);
    let committed = next.committed(&[1, 0]).unwrap();
    assert_eq!((committed[0].offsets.as_slice(), committed[0].metadata.as_str()), (&[Some(5), Some(0)][..], "x"));
    assert_eq!((committed[1].offsets.as_slice(), &committed[1].metadata), (&[Some(3), Some(4)][..], &mark));
    assert!(next.has_any_offset().unwrap());
}

#[test]
fn a_mark_that_is_too_long_is_not_accepted() {
    let (_, topics) = one_topic(1);
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    group.join().unwrap();
    let _inputs = assigned(&mut group, 1, 0, &Arc::default());
    group.commit(1, &[OffsetsToCommit { partition: 0, offsets: vec![1], metadata: "m".repeat(4_097) }]).unwrap();
    assert!(matches!(answer(&mut group), (1, CommitOutcome::Repeat(_))));
}

#[test]
fn the_end_lies_behind_trailing_transaction_markers() {
    let (topic, topics) = one_topic(1);
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    Writer::transaction(true, |writer| writer.send_many(&topic, 0, ["a".into(), "b".into()]));
    ends_at(&mut group, 3);
    Writer::transaction(false, |writer| writer.send_many(&topic, 0, ["taken back".into()]));
    ends_at(&mut group, 5);
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
    let mut batch = RecordBatch::default();
    let fetched = fill_until(&mut *inputs[0], &mut batch, ALL, |_, fetched| fetched.at_end);
    // a, b, their marker, the aborted record, its marker
    assert_eq!((offsets(&batch), fetched.offset_next, inputs[0].end()), (vec![0, 1], 5, 5));
    assert_eq!(group.log_range(0, 0).unwrap(), (0, 5));
    let again = inputs[0].fill(&mut batch, ALL).unwrap();
    assert_eq!(again, Fetched { records: 0, offset_next: 5, at_end: true });
    Writer::plain().send_many(&topic, 0, ["c".into()]);
    fill_until(&mut *inputs[0], &mut batch, ALL, |batch, fetched| batch.records.len() == 3 && fetched.at_end);
    assert_eq!(offsets(&batch), [0, 1, 5]);
}

#[test]
fn no_record_at_or_after_the_wanted_end_is_taken_and_none_is_lost() {
    let (topic, topics) = one_topic(1);
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    Writer::plain().send_many(&topic, 0, (0..10).map(|i| i.to_string()));
    Writer::transaction(true, |writer| writer.send_many(&topic, 0, ["10".into()])); // its marker is offset 11
    ends_at(&mut group, 12);
    Writer::plain().send_many(&topic, 0, (12..20).map(|i| i.to_string()));
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 2, &Arc::default());
    let mut batch = RecordBatch::default();
    let to_5 = FetchLimit { offset_end: 5, ..ALL };
    let fetched = fill_until(&mut *inputs[0], &mut batch, to_5, |_, fetched| fetched.offset_next == 5);
    assert_eq!((offsets(&batch), fetched.at_end), (vec![2, 3, 4], false));
    assert_eq!(inputs[0].fill(&mut batch, to_5).unwrap().records, 0);
    batch.clear();
    // The range ends at a marker: it is complete as soon as the record behind it was seen.
    let to_12 = FetchLimit { offset_end: 12, ..ALL };
    fill_until(&mut *inputs[0], &mut batch, to_12, |_, fetched| fetched.offset_next == 12);
    assert_eq!(offsets(&batch), (5..=10).collect::<Vec<_>>());
    batch.clear();
    let two = FetchLimit { records: 2, ..ALL };
    assert_eq!(inputs[0].fill(&mut batch, two).unwrap().records, 2);
    let one_byte = FetchLimit { bytes: 1, ..ALL };
    assert_eq!(inputs[0].fill(&mut batch, one_byte).unwrap().records, 1);
    fill_until(&mut *inputs[0], &mut batch, ALL, |_, fetched| fetched.at_end);
    assert_eq!(offsets(&batch), (12..20).collect::<Vec<_>>());
}

#[test]
fn keys_tombstones_headers_and_times_come_as_they_were_sent() {
    let (topic, topics) = one_topic(1);
    let writer = Writer::plain();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "none", value: None::<&str> })
        .insert(Header { key: "a", value: Some("2") });
    writer.send_with_headers(&topic, Some("k"), None, headers);
    writer.send_at(&topic, 0, "v", 1_234);
    writer.flush();
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
    let mut batch = RecordBatch::default();
    fill_until(&mut *inputs[0], &mut batch, ALL, |batch, _| batch.records.len() == 2);
    let [first, second] = batch.records[..] else { panic!("two records") };
    assert_eq!((first.key.map(|key| batch.slice(key)), first.value), (Some(&b"k"[..]), None));
    let headers: Vec<_> = batch.headers(&first).collect();
    assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"none", None), (b"a", Some(b"2"))]);
    assert_eq!((second.key, second.value.map(|value| batch.slice(value))), (None, Some(&b"v"[..])));
    assert_eq!((second.timestamp_ms, batch.headers(&second).count()), (1_234, 0));
}

#[test]
fn a_topic_made_again_has_another_id_and_a_missing_one_has_no_partitions() {
    let (topic, topics) = one_topic(3);
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    let first = group.topics().unwrap().remove(0);
    assert_eq!((first.name.as_str(), first.partitions), (topic.as_str(), 3));
    assert_ne!(first.id, Default::default());
    delete_topic(&topic);
    let deadline = Instant::now() + WAIT;
    while group.topics().unwrap()[0].partitions != 0 {
        assert!(Instant::now() < deadline, "the topic goes");
        std::thread::sleep(Duration::from_millis(50));
    }
    create_topic(&topic, 3);
    while group.topics().unwrap()[0].partitions != 3 {
        assert!(Instant::now() < deadline, "the topic is back");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(group.topics().unwrap()[0].id, first.id);
}

#[test]
fn a_static_member_is_back_within_a_second() {
    let (_, topics) = one_topic(2);
    let (group, told) = (unique("g"), Told::default());
    let mut other = Member::join(&group, Some("b"), &topics, &told);
    let mut member = Member::join(&group, Some("a"), &topics, &told);
    let deadline = Instant::now() + WAIT;
    while (member.partitions().len(), other.partitions().len()) != (1, 1) {
        assert!(Instant::now() < deadline, "both have one partition");
        member.step();
        other.step();
    }
    let had = member.partitions();
    drop(member); // says nothing to the group, like a killed process
    let back = Instant::now();
    let mut member = Member::join(&group, Some("a"), &topics, &told);
    member.until("the partition is back", |member| !member.partitions().is_empty());
    let took = back.elapsed();
    eprintln!("back after {took:?}");
    assert!(took < Duration::from_secs(1), "back after {took:?}");
    assert_eq!(member.partitions(), had);
    other.run(Duration::from_millis(500));
    assert_eq!(other.partitions().len(), 1, "the others did not move");
}

#[test]
fn a_member_that_slept_too_long_loses_its_partitions_and_is_refused() {
    let (topic, topics) = one_topic(2);
    Writer::plain().send_many(&topic, 0, ["a".into()]);
    let (group, told) = (unique("g"), Told::default());
    let mut short = plan(&group);
    short.librdkafka.insert("max.poll.interval.ms".into(), "6000".into());
    let mut sleeper = Member::join_with(&short, Some("sleeper"), &topics, &told);
    sleeper.until("it has both", |member| member.partitions().len() == 2);
    let mut other = Member::join(&group, Some("other"), &topics, &told);
    other.until("the other one takes over what is not answered", |member| member.partitions().len() == 2);
    // Awake again, and not yet aware: what it prepared is refused, here or by the broker.
    sleeper.outcomes.clear();
    sleeper.commit();
    sleeper.until("the commit is refused", |member| member.refused > 0 || !member.outcomes.is_empty());
    let fenced = matches!(sleeper.outcomes.first(), None | Some((_, CommitOutcome::Fenced(_))));
    assert!(fenced, "{:?}", sleeper.outcomes);
    let deadline = Instant::now() + WAIT;
    while (sleeper.partitions().len(), other.partitions().len()) != (1, 1) {
        assert!(Instant::now() < deadline, "they share again");
        sleeper.step();
        other.step();
    }
}

#[test]
fn a_member_that_did_not_poll_is_told_that_its_partitions_are_lost() {
    let (_, topics) = one_topic(1);
    let mut kafka = plan(&unique("g"));
    kafka.librdkafka.insert("max.poll.interval.ms".into(), "6000".into());
    let mut member = Member::join_with(&kafka, Some("a"), &topics, &Told::default());
    member.until("it has the partition", |member| member.partitions().len() == 1);
    std::thread::sleep(Duration::from_secs(8));
    let tasks = [OffsetsToCommit { partition: 0, offsets: vec![0], metadata: "late".into() }];
    let refused = member.group.commit(9_999, &tasks).unwrap_err();
    assert_eq!((refused.kind, refused.code.as_str()), (Kind::Fenced, "not_owned"));
    member.until("the loss is told", |member| member.losses == 1);
    member.until("it is back", |member| member.partitions().len() == 1);
}

#[test]
fn a_twin_with_the_same_identity_fences_the_first() {
    let (_, topics) = one_topic(1);
    let (group, told) = (unique("g"), Told::default());
    let mut first = Member::join(&group, Some("same"), &topics, &told);
    first.until("it has the partition", |member| member.partitions().len() == 1);
    let mut twin = Member::join(&group, Some("same"), &topics, &told);
    twin.until("the twin has it", |member| member.partitions().len() == 1);
    let tasks = [OffsetsToCommit { partition: 0, offsets: vec![0], metadata: "old".into() }];
    let deadline = Instant::now() + WAIT;
    let mut refused = first.group.commit(1, &tasks).is_err();
    while !(first.fatal.is_some() && refused) && Instant::now() < deadline {
        match first.group.poll(Duration::from_millis(50)) {
            Some(GroupEvent::Committed { outcome, .. }) => {
                assert!(matches!(outcome, CommitOutcome::Fenced(_)), "{outcome:?}");
                refused = true;
            }
            Some(GroupEvent::Fatal(error)) => first.fatal = Some(error),
            _ => {}
        }
    }
    let fatal = first.fatal.expect("the first is told");
    assert!(refused, "nothing of the first was accepted");
    assert_eq!((fatal.kind, fatal.code.as_str()), (Kind::Fenced, "fenced_instance_id"));
    twin.until("the twin's commit is accepted", |member| {
        member.commit();
        member.outcomes.iter().any(|(_, outcome)| *outcome == CommitOutcome::Accepted)
    });
}

#[test]
fn leaving_frees_the_partitions_at_once() {
    let (_, topics) = one_topic(2);
    let (group, told) = (unique("g"), Told::default());
    let mut first = Member::join(&group, Some("a"), &topics, &told);
    first.until("it has both", |member| member.partitions().len() == 2);
    let mut second = Member::join(&group, Some("b"), &topics, &told);
    let deadline = Instant::now() + WAIT;
    while (first.partitions().len(), second.partitions().len()) != (1, 1) {
        assert!(Instant::now() < deadline, "they share");
        first.step();
        second.step();
    }
    let left = Instant::now();
    first.group.leave().unwrap();
    second.until("the rest is the second's", |member| member.partitions().len() == 2);
    let took = left.elapsed();
    eprintln!("free after {took:?}");
    assert!(took < Duration::from_secs(3), "free after {took:?}, not after the session time-out");
}

#[test]
fn a_position_that_is_not_in_the_log_is_a_gap() {
    let (topic, topics) = one_topic(1);
    Writer::plain().send_many(&topic, 0, (0..10).map(|i| i.to_string()));
    trim(&topic, 0, 5);
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 2, &Arc::default());
    let deadline = Instant::now() + WAIT;
    let error = loop {
        assert!(Instant::now() < deadline, "the gap is told");
        match inputs[0].fill(&mut RecordBatch::default(), ALL) {
            Ok(fetched) => assert_eq!(fetched.records, 0, "nothing is jumped over"),
            Err(error) => break error,
        }
        group.poll(Duration::from_millis(20));
    };
    assert_eq!((error.kind, error.code.as_str()), (Kind::Stop, "gap"));
    assert!(error.message.contains(&topic) && error.message.contains("offset 2"), "{error}");
    // Going on behind the gap: the same partition, given up and taken again elsewhere.
    assert_eq!(group.log_range(0, 0).unwrap(), (5, 10));
    group.unassign(&[0]).unwrap();
    let mut input = group.input(0, 0, Arc::new(Wakes::default())).unwrap();
    group.assign(&[(0, vec![5])]).unwrap();
    let mut batch = RecordBatch::default();
    fill_until(&mut *input, &mut batch, ALL, |_, fetched| fetched.at_end);
    assert_eq!(offsets(&batch), (5..10).collect::<Vec<_>>());
    let stale = inputs[0].fill(&mut batch, ALL).unwrap();
    assert_eq!(stale.records, 0, "an input of an earlier assignment is silent");
}

#[test]
fn partitions_added_to_a_topic_are_noticed_and_assigned() {
    let (topic, topics) = one_topic(1);
    let mut member = Member::join(&unique("g"), Some("a"), &topics, &Told::default());
    member.until("it has the partition", |member| member.partitions().len() == 1);
    grow_topic(&topic, 3);
    member.until("all three", |member| member.partitions().len() == 3);
    assert_eq!(member.group.topics().unwrap()[0].partitions, 3);
}

#[test]
fn times_and_offsets_are_looked_up_both_ways() {
    let (topic, topics) = one_topic(1);
    let writer = Writer::plain();
    for i in 0..10 {
        writer.send_at(&topic, 0, "v", 1_000 + i * 100);
        writer.flush();
    }
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    assert_eq!(group.offset_at(0, 0, 1_250).unwrap(), 3);
    assert_eq!(group.offset_at(0, 0, 9_999).unwrap(), 10);
    assert_eq!(group.timestamp_at(0, 0, 4).unwrap(), Some(1_400));
    assert_eq!(group.timestamp_at(0, 0, 10).unwrap(), None);
}

#[test]
fn a_record_wakes_the_worker_at_once() {
    let (topic, topics) = one_topic(1);
    let writer = Writer::plain();
    let mut kafka = plan(&unique("g"));
    kafka.librdkafka.insert("fetch.min.bytes".into(), "1".into());
    let mut group = open(&kafka, Some("a"), &topics);
    group.join().unwrap();
    let wakes = Arc::new(Wakes::default());
    let mut inputs = assigned(&mut group, 1, 0, &wakes);
    let mut batch = RecordBatch::default();
    fill_until(&mut *inputs[0], &mut batch, ALL, |_, fetched| fetched.at_end);
    for round in 0..20 {
        while inputs[0].fill(&mut batch, ALL).unwrap().records > 0 {}
        let before = wakes.0.load(Ordering::SeqCst);
        let records = batch.records.len();
        writer.send_many(&topic, 0, [round.to_string()]);
        let sent = Instant::now();
        while wakes.0.load(Ordering::SeqCst) == before {
            assert!(sent.elapsed() < Duration::from_secs(2), "round {round}: woken");
            std::hint::spin_loop();
        }
        let deadline = Instant::now() + WAIT;
        while batch.records.len() == records {
            assert!(Instant::now() < deadline, "the record is there");
            inputs[0].fill(&mut batch, ALL).unwrap();
        }
    }
}

#[test]
fn a_broker_that_is_not_there_is_told_as_a_sentence() {
    let mut kafka = plan(&unique("g"));
    kafka.brokers = vec!["127.0.0.1:1".into()];
    let mut group = open(&kafka, Some("a"), &["t".to_string()]);
    group.join().unwrap();
    let deadline = Instant::now() + WAIT;
    loop {
        assert!(Instant::now() < deadline, "the trouble is told");
        if let Some(GroupEvent::Trouble(error)) = group.poll(Duration::from_millis(100)) {
            assert_eq!(error.kind, Kind::Retry);
            assert!(error.message.contains("127.0.0.1:1"), "{error}");
            break;
        }
    }
}

#[test]
fn an_input_may_outlive_its_group() {
    let (topic, topics) = one_topic(1);
    Writer::plain().send_many(&topic, 0, (0..10).map(|i| i.to_string()));
    let mut group = open(&plan(&unique("g")), Some("a"), &topics);
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
    let mut batch = RecordBatch::default();
    fill_until(&mut *inputs[0], &mut batch, ALL, |batch, _| batch.records.len() == 10);
    let before = Instant::now();
    drop(group);
    let mut input = inputs.remove(0);
    let late = std::thread::spawn(move || input.fill(&mut RecordBatch::default(), ALL).unwrap());
    assert_eq!(late.join().unwrap().records, 0);
    assert!(before.elapsed() < Duration::from_secs(2), "nobody waits for the client to close");
}

#[test]
fn the_clients_own_mock_cluster_serves_a_member_too() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("demo", 2, 1).unwrap();
    let mut kafka = plan("g");
    kafka.brokers = vec![cluster.bootstrap_servers()];
    let topics = ["demo".to_string()];
    let mut group = KafkaGroup::open(weir::source::kafka::MemberOptions {
        kafka: &kafka,
        instance_id: Some("a"),
        topics: &topics,
        queued_bytes_per_partition: 0,
        with_headers: false,
        describe_by_broker: Some(1),
    })
    .unwrap();
    assert_eq!(group.topics().unwrap()[0].partitions, 2);
    group.join().unwrap();
    let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
    let mut batch = RecordBatch::default();
    fill_until(&mut *inputs[0], &mut batch, ALL, |_, fetched| fetched.at_end);
    group.commit(5, &[OffsetsToCommit { partition: 0, offsets: vec![0], metadata: "m".into() }]).unwrap();
    assert_eq!(answer(&mut group), (5, CommitOutcome::Accepted));
    assert_eq!(group.committed(&[0]).unwrap()[0].metadata, "m");
}

#[test]
fn a_setting_the_client_does_not_know_stops_with_its_name() {
    let mut kafka = plan("g");
    kafka.librdkafka.insert("no.such.setting".into(), "1".into());
    let topics = ["t".to_string()];
    let options = weir::source::kafka::MemberOptions {
        kafka: &kafka,
        instance_id: None,
        topics: &topics,
        queued_bytes_per_partition: 0,
        with_headers: false,
        describe_by_broker: None,
    };
    let error = KafkaGroup::open(options).err().unwrap();
    assert!(error.kind == Kind::Stop && error.message.contains("no.such.setting"), "{error}");
}

/// `cargo test --release --test kafka -- --ignored --nocapture cost`
#[test]
#[ignore = "a measurement, not a promise"]
fn the_cost_of_a_record_against_a_bare_consumer() {
    const RECORDS: usize = 1_000_000;
    let (topic, topics) = one_topic(1);
    let value = "x".repeat(320);
    Writer::plain().send_many(&topic, 0, (0..RECORDS).map(|_| value.clone()));
    let kafka = plan(&unique("g"));
    for _ in 0..3 {
        let cpu_before = cpu_time();
        let bare = drain_bare(&kafka, &topic, 64 << 20).unwrap();
        assert_eq!(bare.records, RECORDS as u64);
        let per_record = |time: Duration| time.as_nanos() as f64 / RECORDS as f64;
        let cpu = cpu_time() - cpu_before;
        eprintln!("bare: {:.0} ns a record, {:.0} of this thread", per_record(bare.elapsed), per_record(cpu));
        let mut group = KafkaGroup::open(weir::source::kafka::MemberOptions {
            kafka: &kafka,
            instance_id: None,
            topics: &topics,
            queued_bytes_per_partition: 64 << 20,
            with_headers: false,
            describe_by_broker: None,
        })
        .unwrap();
        group.join().unwrap();
        let mut inputs = assigned(&mut group, 1, 0, &Arc::default());
        let mut batch = RecordBatch::default();
        let (mut read, mut cpu) = (0, Duration::ZERO);
        let mut started = None;
        while read < RECORDS {
            batch.clear();
            let before = Instant::now();
            let limit = FetchLimit { records: 4096, bytes: 4 << 20, offset_end: i64::MAX };
            let cpu_before = cpu_time();
            let records = inputs[0].fill(&mut batch, limit).unwrap().records;
            cpu += cpu_time() - cpu_before;
            if records > 0 {
                started.get_or_insert(before);
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
            read += records;
        }
        let wall = started.unwrap().elapsed();
        eprintln!("fill: {:.0} ns a record, {:.0} of this thread", per_record(wall), per_record(cpu));
        group.leave().unwrap();
    }
}

/// What this thread has worked: on a machine that others use too, the fairer clock.
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is there to be filled.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
