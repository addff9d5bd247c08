//! What the table must hold, from the topic alone, and the comparison row for row.

use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, Produced};
use crate::support::wait_for;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A row, known by where it came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    pub seq: u64,
}

/// Of each id of a partition what is a window or more behind the one that passed before it. In these topics event
/// time rises with the offset, so this is all of dedup's definition. `None`: a window as long as the test.
pub fn deduplicated(records: &[Produced], window_ms: Option<i64>) -> Vec<Row> {
    let mut passed: HashMap<(i32, String), i64> = HashMap::new();
    let mut rows = Vec::new();
    for record in records {
        let payload = record.record.payload.as_deref().unwrap_or_default();
        let Ok(event) = serde_json::from_slice::<serde_json::Value>(payload) else { continue };
        let (id, ts) = (event["id"].as_str().unwrap_or_default().to_owned(), event["ts"].as_i64().unwrap_or_default());
        let key = (record.partition, id.clone());
        let is_new = passed.get(&key).is_none_or(|before| window_ms.is_some_and(|window| ts - before >= window));
        if is_new {
            passed.insert(key, ts);
            let seq = event["seq"].as_u64().unwrap_or_default();
            rows.push(Row { partition: record.partition, offset: record.offset, id, seq });
        }
    }
    rows
}

/// All rows of the table.
pub fn stored(clickhouse: &ClickHouse, table: &str) -> Vec<Row> {
    let answer = clickhouse.query(&format!("SELECT _partition, _offset, id, seq FROM {table} FORMAT TSV"));
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().expect("four columns were asked for");
        Row {
            partition: field().parse().unwrap(),
            offset: field().parse().unwrap(),
            id: field().to_owned(),
            seq: field().parse().unwrap(),
        }
    };
    answer.lines().map(row).collect()
}

/// Waits until the table holds as many rows.
pub fn wait_for_rows(clickhouse: &ClickHouse, table: &str, count: usize, wait: Duration) {
    let mut last = String::new();
    wait_for(&format!("{count} rows in {table}"), wait, || {
        last = clickhouse.try_query(&format!("SELECT count() FROM {table}")).unwrap_or_else(|error| error);
        last.parse::<usize>().is_ok_and(|there| there >= count).then_some(())
    });
}

/// The table holds exactly these rows, each once.
pub fn assert_same(what: &str, stored: &[Row], expected: &[Row]) {
    let mut counts: BTreeMap<&Row, i64> = BTreeMap::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    stored.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    let few = |wanted: fn(i64) -> bool| -> (usize, Vec<&Row>) {
        let rows: Vec<&Row> = counts.iter().filter(|(_, count)| wanted(**count)).map(|(row, _)| *row).collect();
        (rows.len(), rows.into_iter().take(5).collect())
    };
    let (missing, extra) = (few(|count| count < 0), few(|count| count > 0));
    assert!(
        missing.0 == 0 && extra.0 == 0,
        "{what}: the table has {} rows, the oracle {}; missing {}: {:?} …; too many {}: {:?} …",
        stored.len(),
        expected.len(),
        missing.0,
        missing.1,
        extra.0,
        extra.1
    );
}

/// Waits for the rows of the oracle, and compares. `expected` from the whole topic as it is now.
pub fn assert_table(kafka: &Kafka, clickhouse: &ClickHouse, topic: &str, table: &str, window_ms: Option<i64>) -> usize {
    let expected = deduplicated(&kafka.read_all(topic), window_ms);
    wait_for_rows(clickhouse, table, expected.len(), crate::support::PATIENCE);
    assert_same(topic, &stored(clickhouse, table), &expected);
    expected.len()
}
