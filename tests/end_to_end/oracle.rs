//! What the table must hold, from the topic alone, and the comparison row for row.

use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, Produced};
use crate::weir::Weir;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A row, known by where it came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    pub seq: u64,
    pub ts: i64,
    pub text: String,
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
            let text = event["text"].as_str().unwrap_or_default().to_owned();
            rows.push(Row { partition: record.partition, offset: record.offset, id, seq, ts, text });
        }
    }
    rows
}

/// All rows of the table.
pub fn stored(clickhouse: &ClickHouse, table: &str) -> Vec<Row> {
    let answer = clickhouse.query(&format!("SELECT _partition, _offset, id, seq, ts, text FROM {table} FORMAT TSV"));
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().expect("six columns were asked for");
        Row {
            partition: field().parse().unwrap(),
            offset: field().parse().unwrap(),
            id: field().to_owned(),
            seq: field().parse().unwrap(),
            ts: field().parse().unwrap(),
            text: field().to_owned(),
        }
    };
    answer.lines().map(row).collect()
}

/// The table holds exactly these rows, each once.
pub fn assert_same<R: Ord + Debug>(what: &str, stored: &[R], expected: &[R]) {
    let mut counts: BTreeMap<&R, i64> = BTreeMap::new();
    expected.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    stored.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    let few = |wanted: fn(i64) -> bool| -> (usize, Vec<&R>) {
        let rows: Vec<&R> = counts.iter().filter(|(_, count)| wanted(**count)).map(|(row, _)| *row).collect();
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

/// Waits for the oracle's rows, stops weir cleanly, and compares. The topic is read as it is now.
pub fn settle(kafka: &Kafka, clickhouse: &ClickHouse, stage: &Stage, window_ms: Option<i64>, weirs: &mut [&mut Weir]) {
    let expected = deduplicated(&kafka.read_all(&stage.name), window_ms);
    settle_with(clickhouse, stage, &expected, weirs);
}

/// The same with rows that the test knows.
pub fn settle_with(clickhouse: &ClickHouse, stage: &Stage, expected: &[Row], weirs: &mut [&mut Weir]) {
    wait_for_rows(clickhouse, stage, expected.len(), weirs);
    weirs.iter_mut().for_each(|weir| weir.stop());
    assert_same(&stage.name, &stored(clickhouse, &stage.table()), expected);
    println!("{}: {} rows, as the oracle has them", stage.name, expected.len());
}

/// Waits until the table holds as many rows. Says so and goes on when it takes too long: the comparison tells more.
pub fn wait_for_rows(clickhouse: &ClickHouse, stage: &Stage, count: usize, weirs: &mut [&mut Weir]) {
    let query = format!("SELECT count() FROM {}", stage.table());
    let mut last = String::new();
    let begun = Instant::now();
    while last.parse::<usize>().ok().is_none_or(|there| there < count) {
        weirs.iter_mut().for_each(|weir| weir.assert_running());
        if begun.elapsed() > PATIENCE {
            let logs: Vec<String> = weirs.iter().map(|weir| weir.log()).collect();
            eprintln!("waited {PATIENCE:?} for {count} rows in {}: {last}\n{}", stage.name, logs.join("\n---\n"));
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        last = clickhouse.try_query(&query).unwrap_or_else(|error| error);
    }
}
