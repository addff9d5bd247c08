//! Questions to the broker, and what a client that cannot work says.

use super::*;

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
    group.commit(5, &[OffsetsToCommit { partition: 0, offsets: vec![Some(0)], metadata: "m".into() }]).unwrap();
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
