//! Joining, sharing, losing, leaving: who has which partition, and whose commits count.

use super::*;
use weir::config::plan::KafkaPlan;

/// Longer than a busy machine needs for anything that does not wait for it.
const SESSION: Duration = Duration::from_secs(60);

/// A group that gives nobody up while a test goes on.
fn patient() -> KafkaPlan {
    let mut kafka = plan(&unique("g"));
    kafka.librdkafka.insert("session.timeout.ms".into(), SESSION.as_millis().to_string());
    kafka
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
        OffsetsToCommit { partition: 0, offsets: vec![Some(3), Some(4)], metadata: mark.clone() },
        OffsetsToCommit { partition: 1, offsets: vec![Some(5), Some(0)], metadata: "x".into() },
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
    group.commit(1, &[OffsetsToCommit { partition: 0, offsets: vec![Some(1)], metadata: "m".repeat(4_097) }]).unwrap();
    assert!(matches!(answer(&mut group), (1, CommitOutcome::Repeat(_))));
}

#[test]
fn a_static_member_is_back_long_before_its_session_ends() {
    let (_, topics) = one_topic(2);
    let (group, told) = (patient(), Told::default());
    let mut other = Member::join_with(&group, Some("b"), &topics, &told);
    let mut member = Member::join_with(&group, Some("a"), &topics, &told);
    let deadline = Instant::now() + WAIT;
    while (member.partitions().len(), other.partitions().len()) != (1, 1) {
        assert!(Instant::now() < deadline, "both have one partition");
        member.step();
        other.step();
    }
    let had = member.partitions();
    drop(member); // says nothing to the group, like a killed process
    let back = Instant::now();
    let mut member = Member::join_with(&group, Some("a"), &topics, &told);
    member.until("the partition is back", |member| !member.partitions().is_empty());
    let took = back.elapsed();
    eprintln!("back after {took:?}");
    assert!(took < SESSION, "back after {took:?}");
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
    let tasks = [OffsetsToCommit { partition: 0, offsets: vec![Some(0)], metadata: "late".into() }];
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
    let tasks = [OffsetsToCommit { partition: 0, offsets: vec![Some(0)], metadata: "old".into() }];
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
    let (group, told) = (patient(), Told::default());
    let mut first = Member::join_with(&group, Some("a"), &topics, &told);
    first.until("it has both", |member| member.partitions().len() == 2);
    let mut second = Member::join_with(&group, Some("b"), &topics, &told);
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
    assert!(took < SESSION, "free after {took:?}, not after the session time-out");
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
