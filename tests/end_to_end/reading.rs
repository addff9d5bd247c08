//! Where reading begins, and records without a value.

use crate::flow::Events;
use crate::oracle::{assert_same, deduplicated, settle_with, stored};
use crate::stage::{COLUMNS, Stage};
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, Produced, TestRecord};

/// Reads what is there, to its end.
fn read_to_the_end(stage: &Stage) {
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
}

fn assert_stored(stage: &Stage, records: &[Produced]) {
    assert_same(&stage.name, &stored(ClickHouse::shared(), &stage.table()), &deduplicated(records, None));
}

#[test]
fn a_group_that_starts_at_the_latest_reads_what_comes_behind_its_first_start_and_nothing_before() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage { source: "start: latest".to_owned(), ..Stage::new("start_latest", kafka, clickhouse, 3) };
    let mut events = Events::new(71);
    kafka.produce(&stage.name, &events.take(300));
    let before = kafka.log_ranges(&stage.name);
    read_to_the_end(&stage);
    assert_stored(&stage, &[]);
    // From its first start on it has a place; `start` says nothing any more.
    kafka.produce(&stage.name, &events.take(300));
    read_to_the_end(&stage);
    kafka.produce(&stage.name, &events.take(100));
    let mut records = kafka.read_all(&stage.name);
    records.retain(|record| record.offset >= before[record.partition as usize].1);
    assert_eq!(records.len(), 400);
    let mut weir = stage.weir("a");
    settle_with(clickhouse, &stage, &deduplicated(&records, None), &mut [&mut weir]);
}

#[test]
fn a_group_that_starts_at_a_time_reads_from_the_first_record_of_that_time_on() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let start_ms = 1_767_225_600_000;
    let stage = Stage {
        source: "start: 2026-01-01T01:00:00+01:00".to_owned(),
        ..Stage::new("start_time", kafka, clickhouse, 2)
    };
    let mut events = Events::new(72);
    for (partition, from_ms) in [(0, start_ms - 50), (1, start_ms - 150)] {
        let at =
            |(number, record): (usize, TestRecord)| record.partition(partition).timestamp_ms(from_ms + number as i64);
        let records: Vec<TestRecord> = events.take(100).into_iter().enumerate().map(at).collect();
        kafka.produce(&stage.name, &records);
    }
    read_to_the_end(&stage);
    let mut records = kafka.read_all(&stage.name);
    records.retain(|record| record.record.timestamp_ms.is_some_and(|ms| ms >= start_ms));
    assert_eq!(records.len(), 50, "of the first partition the second half, of the second nothing");
    assert_stored(&stage, &records);
    // The second partition has nothing of that time: it begins at its end.
    kafka.produce(&stage.name, &events.take(1).into_iter().map(|record| record.partition(1)).collect::<Vec<_>>());
    read_to_the_end(&stage);
    let all = kafka.read_all(&stage.name);
    records.extend(all.into_iter().filter(|record| record.partition == 1 && record.offset == 100));
    assert_stored(&stage, &records);
}

#[test]
fn a_tombstone_that_is_kept_is_a_row_of_virtual_fields_at_its_kafka_timestamp() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    clickhouse.query("CREATE DATABASE tombstones");
    kafka.create_topic("tombstones", 1);
    let stage = Stage {
        source: "time: { field: ts, unit: ms }\n      tombstones: keep".to_owned(),
        // The second of a key within a minute is a duplicate, tombstone or not.
        steps: "[ { filter: \"id == null || seq < 10\" }, { dedup: { key: _key, window: 1m } } ]".to_owned(),
        sink: ", columns: { k: _key, at: { path: _timestamp, unit: ms }, h: _headers.h }".to_owned(),
        ..Stage::bare("tombstones", kafka, clickhouse)
    };
    stage.create_table(clickhouse, &format!("{COLUMNS}, k String, at DateTime64(3, 'UTC'), h Nullable(String)"));
    let at = 1_767_225_600_000;
    let tombstone = |key: &str, timestamp_ms: i64| TestRecord {
        key: Some(key.into()),
        timestamp_ms: Some(timestamp_ms),
        headers: vec![("h".to_owned(), b"gone".to_vec())],
        ..TestRecord::default()
    };
    let row = |key: &str, ts: i64| TestRecord::new(format!(r#"{{"id":"{key}","seq":1,"ts":{ts}}}"#)).key(key);
    kafka.produce(
        &stage.name,
        &[
            row("a", at).timestamp_ms(at),
            tombstone("a", at + 59_999),
            tombstone("a", at + 60_000),
            tombstone("b", at + 60_000),
            row("b", at + 60_001).timestamp_ms(at + 60_001),
        ],
    );
    read_to_the_end(&stage);
    let rows = clickhouse
        .query("SELECT _offset, id, seq, ts, k, toUnixTimestamp64Milli(at), h FROM tombstones.t ORDER BY _offset");
    let expected = [
        format!("0\ta\t1\t{at}\ta\t{at}\t\\N"),
        format!("2\t\t0\t0\ta\t{}\tgone", at + 60_000),
        format!("3\t\t0\t0\tb\t{}\tgone", at + 60_000),
    ];
    assert_eq!(rows.trim().lines().collect::<Vec<_>>(), expected);
    assert_eq!(stage.letters("a"), Vec::<serde_json::Value>::new());
}
