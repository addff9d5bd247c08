//! Where dead letters end up: the local store that is full, and a table.

use crate::flow::Events;
use crate::oracle::{deduplicated, settle};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use std::time::SystemTime;

#[test]
fn a_full_store_stops_the_pipeline_with_that_sentence_and_loses_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("letters_full", kafka, clickhouse, 1);
    stage.lines = vec!["dead_letters: { local: { bytes: 1MiB } }".to_owned()];
    let mut events = Events::new(81);
    let broken = |number: usize| TestRecord::new(format!("{{broken {number} {}", "x".repeat(60_000)));
    for number in 0..30 {
        kafka.produce(&stage.name, &events.take(20));
        kafka.produce(&stage.name, &[broken(number).key(format!("key-{number}"))]);
    }
    // A restart finds it as full as it was.
    for _ in 0..2 {
        let mut weir = stage.weir("a");
        assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
        for part in ["the dead-letter store is full", "of 1048576 bytes", "raise dead_letters.local.bytes"] {
            assert!(weir.log().contains(part), "it does not say `{part}`:\n{}", weir.log());
        }
    }
    stage.lines = vec!["dead_letters: { local: { bytes: 4MiB } }".to_owned()];
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    let letters = stage.letters("a");
    let keys: Vec<&str> = letters.iter().map(|letter| letter["key"].as_str().unwrap()).collect();
    assert_eq!(keys, (0..30).map(|number| format!("key-{number}")).collect::<Vec<_>>());
}

#[test]
fn a_table_of_dead_letters_holds_them_byte_for_byte_with_the_noted_clock() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("whole_letters", kafka, clickhouse, 1);
    stage.lines = vec!["dead_letters: { clickhouse: { table: broken } }".to_owned()];
    let mended = stage.run("a", &["check", "--connect", "--fix", "--yes"]);
    assert_eq!(mended.code, 0, "{}{}", mended.out, mended.err);
    kafka.produce(&stage.name, &Events::new(82).take(50));
    let bytes: Vec<u8> = (0..=255).collect();
    let timestamp_ms = 1_767_225_600_123;
    let odd = TestRecord {
        headers: vec![("h\"\\".to_owned(), bytes.clone()), ("h".to_owned(), vec![]), ("h".to_owned(), b"2".to_vec())],
        ..TestRecord::new(bytes.clone()).key(bytes.clone()).timestamp_ms(timestamp_ms)
    };
    let plain = TestRecord::new("{\"it's\": \"\\t\\\\").timestamp_ms(timestamp_ms);
    kafka.produce(&stage.name, &[odd, plain]);
    let now_ms = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let before_ms = now_ms();
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let all = hex(&bytes);
    let rows = clickhouse.query(
        "SELECT offset, pipeline, step, reason, topic, partition, toUnixTimestamp64Milli(timestamp), hex(key), hex(value), \
         arrayMap(h -> (hex(h.1), hex(h.2)), headers) FROM whole_letters.broken ORDER BY offset FORMAT TSVRaw",
    );
    let place = format!("whole_letters\tsource\tnot_json\twhole_letters\t0\t{timestamp_ms}");
    let expected = [
        format!("50\t{place}\t{all}\t{all}\t[('68225C','{all}'),('68',''),('68','32')]"),
        format!("51\t{place}\t\\N\t{}\t[]", hex(b"{\"it's\": \"\\t\\\\")),
    ];
    assert_eq!(rows.trim_end().lines().collect::<Vec<_>>(), expected);
    let message = clickhouse.query("SELECT message FROM whole_letters.broken WHERE offset = 50 FORMAT TSVRaw");
    assert!(message.starts_with("the payload is broken at byte 0: byte 0x00"), "{message}");
    // The clock of the epoch that both are of.
    let times = clickhouse.query("SELECT DISTINCT toUnixTimestamp64Milli(time) FROM whole_letters.broken");
    let noted_ms: u64 = times.trim().parse().unwrap_or_else(|_| panic!("not one time: {times}"));
    assert!((before_ms..=now_ms()).contains(&noted_ms), "{noted_ms}");
    assert_eq!(
        clickhouse.count("SELECT count() FROM whole_letters.t"),
        deduplicated(&kafka.read_all(&stage.name), None).len() as u64
    );
}
