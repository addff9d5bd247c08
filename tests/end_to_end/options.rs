//! Every option of a join once, with the real broker and the real engine: what is asked for reaches the table.
//!
//! What each means is tested where it is decided (`tests/joins`, `src/runtime/chain/tests.rs`). The topics are
//! `<name>` with `l` in its records, and `<name>_right` with `r`.

use crate::joined::{Joined, stored};
use crate::oracle::assert_same;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use crate::support::{PATIENCE, wait_for};
use std::collections::BTreeMap;

const BEGIN_MS: i64 = 1_700_000_000_000;

/// A record of one partition: its key, the number under `l` or `r`, and its time.
type Record = (&'static str, u64, i64);

fn records(field: &str, of: &[Record]) -> Vec<TestRecord> {
    let record = |(id, number, ts): &Record| {
        TestRecord::new(format!(r#"{{"id":"{id}","{field}":{number}}}"#)).key(*id).timestamp_ms(BEGIN_MS + ts)
    };
    of.iter().map(record).collect()
}

fn right(name: &str) -> String {
    format!("{name}_right")
}

/// Topics with these records, and a pipeline that joins them with these options. `with` follows the topic.
fn stage(name: &str, with: &str, options: &str, lefts: &[Record], rights: &[Record]) -> Stage {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let topic = right(name);
    let stage = Stage {
        steps: format!(
            "[ {{ join: {{ with: {{ kafka: {{ topic: {topic} }}{with} }}, as: right, key: id, max_skew: 1h, {options} \
             }} }} ]"
        ),
        memory_limit: "1GiB".to_owned(),
        ..Stage::bare(name, kafka, clickhouse)
    };
    kafka.create_topic(name, 1);
    kafka.create_topic(&topic, 1);
    clickhouse.query(&format!("CREATE DATABASE {name}"));
    stage.create_table(clickhouse, "id String, l Nullable(UInt64), r Nullable(UInt64)");
    kafka.produce(name, &records("l", lefts));
    kafka.produce(&topic, &records("r", rights));
    stage
}

/// Runs to the end of the topics, and compares the table.
fn gives(stage: &Stage, expected: &[(&str, Option<u64>, Option<u64>)]) {
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let row = |(id, l, r): &(&str, Option<u64>, Option<u64>)| Joined { id: (*id).to_owned(), l: *l, r: *r };
    let expected: Vec<Joined> = expected.iter().map(row).collect();
    assert_same(&stage.name, &stored(ClickHouse::shared(), &stage.table()), &expected);
}

/// Topic, offset and reason of each dead letter.
fn letters(stage: &Stage) -> Vec<(String, i64, String)> {
    let text = |letter: &serde_json::Value, field: &str| letter[field].as_str().unwrap().to_owned();
    let place = |letter: &serde_json::Value| {
        (text(letter, "topic"), letter["offset"].as_i64().unwrap(), text(letter, "reason"))
    };
    let mut letters: Vec<_> = stage.letters("a").iter().map(place).collect();
    letters.sort();
    letters
}

#[test]
fn a_late_row_joins_is_dropped_or_is_a_dead_letter() {
    for (late, met) in [("join", true), ("drop", false), ("dead_letter", false)] {
        // The right row of `a` serves still when the left one comes too late.
        let lefts = [("z", 1, 60_000), ("a", 2, 50_000)];
        let rights = [("z", 1, 60_000), ("a", 2, 55_000)];
        let name = format!("late_{late}");
        let options = format!("kind: interval, before: 10s, after: 5s, late: {late}");
        let stage = stage(&name, "", &options, &lefts, &rights);
        let all = [("z", Some(1), Some(1)), ("a", Some(2), Some(2))];
        gives(&stage, if met { &all } else { &all[..1] });
        let fallen = (late == "dead_letter").then(|| (name.clone(), 1, "late".to_owned()));
        assert_eq!(letters(&stage), Vec::from_iter(fallen));
    }
}

#[test]
fn a_key_over_its_limit_is_a_dead_letter() {
    let lefts = [("a", 1, 0), ("a", 2, 1), ("a", 3, 2), ("b", 4, 2)];
    let options = "kind: interval, within: 10s, max_rows_per_key: 2";
    let stage = stage("rows_per_key", "", options, &lefts, &[("a", 7, 10), ("b", 8, 10)]);
    gives(&stage, &[("a", Some(1), Some(7)), ("a", Some(2), Some(7)), ("b", Some(4), Some(8))]);
    assert_eq!(letters(&stage), [("rows_per_key".to_owned(), 2, "max_rows_per_key".to_owned())]);
}

#[test]
fn a_table_is_read_before_the_first_row_unless_it_is_told_otherwise() {
    for (bootstrap, met) in [(true, 2), (false, 1)] {
        // Two versions, the older one comes later: whoever waits takes the first that comes.
        let with = format!(", retain: forever, bootstrap: {bootstrap}");
        let name = format!("bootstrap_{bootstrap}");
        let rights = [("a", 1, 1_000), ("a", 2, 500)];
        let stage = stage(&name, &with, "kind: temporal, within: 10s, type: left", &[("a", 5, 0)], &rights);
        gives(&stage, &[("a", Some(5), Some(met))]);
    }
}

#[test]
fn a_right_join_keeps_the_right_rows_alone() {
    let lefts = [("a", 1, 0), ("b", 2, 0), ("end-l", 3, 60_000)];
    let rights = [("a", 4, 0), ("c", 5, 0), ("end-r", 6, 60_000)];
    let stage = stage("right_type", "", "kind: interval, within: 1s, type: right", &lefts, &rights);
    gives(&stage, &[("a", Some(1), Some(4)), ("c", None, Some(5))]);
}

#[test]
fn an_interval_may_lie_wholly_behind_the_left_row() {
    let rights = [("a", 1, 999), ("a", 2, 1_000), ("a", 3, 3_000), ("a", 4, 3_001)];
    let stage = stage("shifted", "", "kind: interval, before: -1s, after: 3s", &[("a", 9, 0)], &rights);
    gives(&stage, &[("a", Some(9), Some(2)), ("a", Some(9), Some(3))]);
}

#[test]
fn a_topic_is_joined_with_itself() {
    let lefts = [("a", 1, 0), ("a", 2, 800), ("a", 3, 1_500), ("b", 4, 1_500)];
    let mut stage = stage("with_itself", "", "kind: interval, before: 0s, after: 1s", &lefts, &[]);
    stage.steps = stage.steps.replace("with_itself_right", "with_itself");
    stage.sink = ", columns: { r: right.l }".to_owned();
    let own = [("a", 1), ("a", 2), ("a", 3), ("b", 4)].map(|(id, number)| (id, Some(number), Some(number)));
    let next = [("a", Some(1), Some(2)), ("a", Some(2), Some(3))];
    gives(&stage, &[&own[..], &next].concat());
}

#[test]
fn a_right_side_may_be_several_topics() {
    let kafka = Kafka::shared();
    let lefts = [("a", 1, 0), ("b", 2, 0)];
    let mut stage = stage("two_rights", "", "kind: interval, within: 1s", &lefts, &[("a", 3, 0)]);
    kafka.create_topic("two_rights_more", 1);
    kafka.produce("two_rights_more", &records("r", &[("a", 4, 500), ("b", 5, 500)]));
    stage.steps = stage.steps.replace("topic: two_rights_right", "topics: [two_rights_right, two_rights_more]");
    gives(&stage, &[("a", Some(1), Some(3)), ("a", Some(1), Some(4)), ("b", Some(2), Some(5))]);
}

/// The books of the only partition, once they hold so many records.
fn books(stage: &Stage, weir: &mut crate::weir::Weir, records: u64) -> serde_json::Value {
    let path = format!("/api/v1/pipelines/{}/ledger", stage.name);
    wait_for(&format!("the books of {records} records, all of them delivered"), PATIENCE, || {
        let (status, body) = weir.get(&path)?;
        let books: serde_json::Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        let partition = &books["partitions"][0];
        (partition["records"] == records && partition["outbox"] == 0).then(|| books.clone())
    })
}

#[test]
fn the_books_of_joined_rows_add_up_while_some_wait_and_some_have_fallen() {
    let lefts = [("a", 1, 0), ("a", 1, 0), ("b", 300, 0), ("c", 3, 0), ("d", 4, 59_000), ("now", 9, 60_000)];
    let rights = [("a", 1, 100), ("a", 2, 200), ("b", 3, 100), ("alone", 4, 0), ("now", 9, 60_000)];
    let mut stage = stage("joined_books", "", "kind: interval, within: 10s, type: full", &lefts, &rights);
    let dedup = "{ dedup: { key: [id, l], window: 1h } }";
    let table = "{ join: { with: { kafka: { topic: joined_books_table }, retain: forever }, as: t, key: id, kind: \
                 temporal, within: 1s, type: left } }";
    stage.steps =
        format!("[ {dedup}, {}, {table}, {{ filter: \"id != 'alone'\" }} ]", &stage.steps[1..stage.steps.len() - 1]);
    ClickHouse::shared().query(&format!("ALTER TABLE {} MODIFY COLUMN l Nullable(UInt8)", stage.table()));
    let kafka = Kafka::shared();
    kafka.create_topic("joined_books_table", 1);
    kafka.produce("joined_books_table", &records("t", &[("a", 1, 0), ("c", 1, 0)]));
    let mut weir = stage.weir("a");
    let total = (lefts.len() + rights.len() + 2) as u64;
    let before = books(&stage, &mut weir, total);
    assert_eq!(before["balanced"], true, "{before:#}");
    let steps = before["partitions"][0]["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["waiting"].as_u64() > Some(0)), "somebody waits: {before:#}");
    // And after a restart, with a row more.
    weir.stop();
    kafka.produce(&right(&stage.name), &records("r", &[("d", 7, 60_000)]));
    let mut weir = stage.weir("a");
    let after = books(&stage, &mut weir, total + 1);
    assert_eq!(after["balanced"], true, "{after:#}");
    weir.stop();
    let reasons: BTreeMap<i64, String> = letters(&stage).into_iter().map(|(_, offset, why)| (offset, why)).collect();
    assert_eq!(reasons, BTreeMap::from([(2, "value_out_of_range".to_owned())]));
}

#[test]
fn a_column_that_is_added_while_rows_wait_is_filled_from_them() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    for (name, with, join) in [
        ("added_column", "", "kind: interval, within: 1h"),
        ("added_to_table", ", retain: forever", "kind: temporal, within: 1h, type: left"),
    ] {
        let stage = stage(name, with, join, &[], &[]);
        let mut sides = [(name.to_owned(), "l"), (right(name), "r")];
        if !with.is_empty() {
            sides.reverse();
        }
        let [(first, of_first), (other, of_other)] = sides;
        // One that waits, or a version of a table; and another pair, which shows that it is stored.
        let noted = format!(r#"{{"id":"a","{of_first}":1,"note":"of the first","more":"too"}}"#);
        kafka.produce(&first, &[TestRecord::new(noted).key("a").timestamp_ms(BEGIN_MS)]);
        kafka.produce(&first, &records(of_first, &[("z", 2, 1)]));
        kafka.produce(&other, &records(of_other, &[("z", 2, 1)]));
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        weir.stop();
        clickhouse
            .query(&format!("ALTER TABLE {} ADD COLUMN note String, ADD COLUMN more String FIRST", stage.table()));
        kafka.produce(&other, &records(of_other, &[("a", 1, 2)]));
        let mut weir = stage.weir("a");
        let row = wait_for("the row of `a`", PATIENCE, || {
            let query = format!("SELECT l, r, note, more FROM {} WHERE id = 'a' FORMAT TSV", stage.table());
            Some(clickhouse.query(&query)).filter(|answer| !answer.is_empty())
        });
        assert_eq!(row, "1\t1\tof the first\ttoo", "{}", weir.log());
        weir.stop();
        assert!(weir.whole_log().contains("case=\"replanned\""), "{}", weir.log());
        assert!(!weir.whole_log().contains("corrupt"), "{}", weir.log());
        // Nothing came twice of what was read again.
        assert_eq!(clickhouse.query(&format!("SELECT count() FROM {} FORMAT TSV", stage.table())), "2");
    }
}
