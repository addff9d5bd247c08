//! What an input hands over: order, ends, limits, gaps, wakes.

use super::*;

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
            assert!(sent.elapsed() < WAIT, "round {round}: woken");
            std::thread::yield_now();
        }
        let deadline = Instant::now() + WAIT;
        while batch.records.len() == records {
            assert!(Instant::now() < deadline, "the record is there");
            inputs[0].fill(&mut batch, ALL).unwrap();
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
    drop(group);
    let mut input = inputs.remove(0);
    let late = std::thread::spawn(move || input.fill(&mut RecordBatch::default(), ALL).unwrap());
    assert_eq!(late.join().unwrap().records, 0);
}
