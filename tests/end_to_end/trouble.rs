//! Records that cannot be read, and a table that changes while blocks wait for it.

use crate::flow::Events;
use crate::oracle::{Row, deduplicated, settle, settle_with, wait_for_rows};
use crate::stage::{COLUMNS, Stage};
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use crate::support::proxy::Proxy;

/// Payloads that are no rows, each with what its dead letter is to say.
const BROKEN: [(&[u8], &str); 5] = [
    (b"{\"id\":\"cut", "bad-0"),
    (b"[1,2]", "bad-1"),
    (b"{\"id\":\"a\",\"seq\":NaN}", "bad-2"),
    (b"{\"id\":\"\xff\xfe\",\"seq\":1}", "bad-3"),
    (b"{\"id\":\"far-too-far\",\"seq\":18446744073709551616,\"ts\":1}", "bad-4"),
];

#[test]
fn broken_records_become_dead_letters_and_do_not_hold_the_rest() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("broken", kafka, clickhouse, 1);
    let mut events = Events::new(14);
    for (payload, key) in BROKEN {
        kafka.produce(&stage.name, &events.take(100));
        kafka.produce(&stage.name, &[TestRecord::new(payload).key(key)]);
    }
    kafka.produce(&stage.name, &[TestRecord { payload: None, ..TestRecord::default() }.key("tombstone")]);
    let mut weir = stage.weir_with("a", &["--until-end", "--format", "json"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let summary: serde_json::Value = serde_json::from_str(&weir.output()).unwrap();
    let pipeline = &summary["pipelines"][0];
    assert_eq!(pipeline["dead_letters"]["total"], BROKEN.len(), "{pipeline}");
    assert_eq!(pipeline["records"]["tombstones"], 1, "{pipeline}");
    // The row whose number does not fit is none.
    let mut expected = deduplicated(&kafka.read_all(&stage.name), None);
    expected.retain(|row| row.id.starts_with("id-"));
    settle_with(clickhouse, &stage, &expected, &mut []);
}

#[test]
fn dead_letters_in_a_table_are_written_once_across_kills() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("letters_table", kafka, clickhouse, 2);
    stage.lines.push("dead_letters: { clickhouse: { table: letters } }".to_owned());
    clickhouse.query(&format!(
        "CREATE TABLE {}.letters (time DateTime64(3), pipeline String, step String, reason String, message String, \
         topic String, partition Int32, offset Int64, timestamp DateTime64(3), key Nullable(String), \
         value Nullable(String), headers Array(Tuple(String, Nullable(String)))) ENGINE = MergeTree ORDER BY time \
         SETTINGS non_replicated_deduplication_window = 1000000",
        stage.name
    ));
    let mut events = Events::new(15);
    let mut broken = 0;
    for _ in 0..6 {
        for (payload, key) in BROKEN {
            kafka.produce(&stage.name, &events.take(60));
            kafka.produce(&stage.name, &[TestRecord::new(payload).key(format!("{key}-{broken}"))]);
            broken += 1;
        }
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        weir.kill();
    }
    let mut expected = deduplicated(&kafka.read_all(&stage.name), None);
    expected.retain(|row| row.id.starts_with("id-"));
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    settle_with(clickhouse, &stage, &expected, &mut []);
    let letters = clickhouse.query("SELECT count(), uniqExact(partition, offset) FROM letters_table.letters");
    assert_eq!(letters, format!("{broken}\t{broken}"));
}

#[test]
fn a_column_dropped_while_blocks_wait_stops_delivery_until_it_is_mended() {
    let column = "text String DEFAULT 'nothing'";
    changed_while_blocks_wait("dropped_column", column, "DROP COLUMN text", &format!("ADD COLUMN {column}"), |table| {
        format!("column `text` (String) is gone from {table}; a stored block has it and waits: add it back")
    });
}

#[test]
fn a_column_retyped_while_blocks_wait_stops_delivery_until_it_is_mended() {
    changed_while_blocks_wait(
        "retyped_column",
        "text String",
        "MODIFY COLUMN ts String",
        "MODIFY COLUMN ts Int64",
        |table| {
            format!("column `ts` of {table} was Int64 and is String now; a stored block has the old type and waits")
        },
    );
}

/// `hurt` is done to the table while blocks wait; until `mend`, nothing goes in, across a restart, too.
fn changed_while_blocks_wait(name: &str, text: &str, hurt: &str, mend: &str, sentence: impl Fn(&str) -> String) {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let stage = Stage { url: proxy.url(), ..Stage::bare(name, kafka, clickhouse) };
    kafka.create_topic(name, 1);
    clickhouse.query(&format!("CREATE DATABASE {name}"));
    stage.create_table(clickhouse, &COLUMNS.replace("text String", text));
    let (alter, sentence) = (format!("ALTER TABLE {name}.t"), sentence(&format!("`{name}`.`t`")));
    let mut events = Events::new(16);
    kafka.produce(name, &events.take(500));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    let before = deduplicated(&kafka.read_all(name), None);
    wait_for_rows(clickhouse, &stage, before.len(), &mut [&mut weir]);
    proxy.outage(true);
    let sealed = weir.metric("weir_blocks_sealed_total", "").unwrap();
    kafka.produce(name, &events.take(500));
    weir.wait_for_metric("weir_blocks_sealed_total", "", sealed + 1.0);
    clickhouse.query(&format!("{alter} {hurt}"));
    let inserts = proxy.inserts();
    proxy.outage(false);
    weir.wait_for_log(&sentence);
    weir.kill();
    // A restart changes nothing about it.
    std::fs::remove_file(stage.log("a")).unwrap();
    let mut weir = stage.weir("a");
    weir.wait_for_log(&sentence);
    assert_eq!(proxy.inserts(), inserts, "nothing is sent meanwhile");
    assert_eq!(clickhouse.count(&format!("SELECT count() FROM {name}.t")), before.len() as u64);
    clickhouse.query(&format!("{alter} {mend}"));
    let expected = deduplicated(&kafka.read_all(name), None);
    wait_for_rows(clickhouse, &stage, expected.len(), &mut [&mut weir]);
    // What was there before the change went through it; what waited is as it was sent.
    let lost_texts = hurt.contains("text").then_some("nothing");
    let as_changed = |row: &Row| Row { text: lost_texts.map_or(row.text.clone(), str::to_owned), ..row.clone() };
    let expected: Vec<Row> =
        expected.iter().map(|row| if row.offset < 500 { as_changed(row) } else { row.clone() }).collect();
    settle_with(clickhouse, &stage, &expected, &mut [&mut weir]);
}

/// What only a person can mend is said in the server's words and tried again; nothing is skipped.
#[test]
fn rows_that_the_server_refuses_wait_until_a_person_has_mended_it() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("refuses", kafka, clickhouse, 1);
    let mut events = Events::new(19);
    kafka.produce(&stage.name, &events.take(300));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    clickhouse.query("ALTER TABLE refuses.t ADD CONSTRAINT early CHECK seq < 300");
    kafka.produce(&stage.name, &events.take(300));
    weir.wait_for_metric("weir_insert_retries_total", "code=\"469\"", 2.0);
    weir.kill();
    // To the end it cannot get either, and says so.
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("early") && weir.log().contains("469"), "{}", weir.log());
    clickhouse.query("ALTER TABLE refuses.t DROP CONSTRAINT early");
    settle(kafka, clickhouse, &stage, None, &mut [&mut stage.weir("a")]);
}
