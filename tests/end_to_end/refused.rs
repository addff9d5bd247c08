//! What cannot work is said at the start, in a sentence, with exit code 1.

use crate::flow::Events;
use crate::oracle::settle;
use crate::stage::{COLUMNS, Stage};
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;

/// A stage with a topic and an empty database.
fn without_table(name: &str) -> Stage {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    kafka.create_topic(name, 1);
    clickhouse.query(&format!("CREATE DATABASE {name}"));
    Stage::bare(name, kafka, clickhouse)
}

fn assert_refused(stage: &Stage, sentence: &str) {
    let mut weir = stage.weir("a");
    let status = weir.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains(sentence), "it does not say `{sentence}`:\n{}", weir.log());
}

#[test]
fn a_missing_topic_is_named() {
    let stage = Stage::bare("no_topic", Kafka::shared(), ClickHouse::shared());
    assert_refused(&stage, "topic `no_topic` does not exist");
}

#[test]
fn a_missing_table_is_named() {
    assert_refused(&without_table("no_table"), "`no_table`.`t`");
}

#[test]
fn a_table_that_forgets_is_refused_with_the_statement_that_mends_it() {
    let stage = without_table("forgetful");
    let clickhouse = ClickHouse::shared();
    clickhouse.query(&format!("CREATE TABLE forgetful.t ({COLUMNS}) ENGINE = MergeTree ORDER BY id"));
    assert_refused(&stage, "ALTER TABLE `forgetful`.`t` MODIFY SETTING non_replicated_deduplication_window");
}

#[test]
fn a_column_of_an_unknown_type_is_refused_by_its_name() {
    let stage = without_table("odd_column");
    stage.create_table(ClickHouse::shared(), "id String, odd AggregateFunction(sum, UInt64)");
    assert_refused(&stage, "column `odd` of `t`: ");
}

#[test]
fn a_corrupt_state_directory_is_set_aside_and_restored_from_the_topic() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("corrupt", kafka, clickhouse, 2);
    let mut events = Events::new(17);
    kafka.produce(&stage.name, &events.take(1500));
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    let database = stage.state("a").join(&stage.name);
    for entry in std::fs::read_dir(&database).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("MANIFEST") || name == "CURRENT" {
            std::fs::write(entry.path(), b"nonsense").unwrap();
        }
    }
    kafka.produce(&stage.name, &events.take(1500));
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    assert!(weir.whole_log().contains("set aside"), "{}", weir.log());
}
