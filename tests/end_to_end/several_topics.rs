//! `topics: [a, b]`: one task reads the same partition of each, and a row is one row whichever topic had it.

use crate::flow::{BEGIN_MS, Events, Flow, SHARED, dice};
use crate::oracle::{Row, assert_same, deduplicated, settle_with, stored, wait_for_rows};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::weir::Weir;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

/// A stage that reads its own topic and a second one, which rides along.
fn two_topics(name: &str, partitions: i32) -> Stage {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    kafka.create_topic(&riding(name), partitions);
    Stage { topics: format!("topics: [{name}, {}]", riding(name)), ..Stage::new(name, kafka, clickhouse, partitions) }
}

fn riding(name: &str) -> String {
    format!("{name}_riding")
}

/// What each topic gives for itself. Of ids that both have, which row passes is a race: those are left out.
fn of_each(name: &str, window_ms: Option<i64>) -> Vec<Row> {
    let of = |topic: &str| deduplicated(&Kafka::shared().read_all(topic), window_ms);
    let mut rows = [of(name), of(&riding(name))].concat();
    rows.retain(|row| !row.id.starts_with(SHARED));
    rows
}

/// Every record with an id that both topics have.
fn shared(name: &str) -> BTreeSet<Row> {
    let of = |topic: &str| {
        let records = Kafka::shared().read_all(topic);
        // Without a memory every record passes.
        let alone = |record| deduplicated(std::slice::from_ref(record), None);
        records.iter().flat_map(alone).filter(|row| row.id.starts_with(SHARED)).collect::<BTreeSet<_>>()
    };
    &of(name) | &of(&riding(name))
}

fn ids(rows: impl IntoIterator<Item = Row>) -> Vec<(i32, String)> {
    let mut ids: Vec<_> = rows.into_iter().map(|row| (row.partition, row.id)).collect();
    ids.sort_unstable();
    ids
}

/// Waits for every row, stops, and compares: own ids row for row, shared ids each once and as some record had it.
fn settle_both(stage: &Stage, window_ms: Option<i64>, weirs: &mut [&mut Weir]) {
    let clickhouse = ClickHouse::shared();
    let (own, candidates) = (of_each(&stage.name, window_ms), shared(&stage.name));
    let mut wanted = ids(candidates.clone());
    wanted.dedup();
    wait_for_rows(clickhouse, stage, own.len() + wanted.len(), weirs);
    weirs.iter_mut().for_each(|weir| weir.stop());
    let (of_both, of_one): (Vec<Row>, Vec<Row>) =
        stored(clickhouse, &stage.table()).into_iter().partition(|row| row.id.starts_with(SHARED));
    assert_same(&stage.name, &of_one, &own);
    let strange: Vec<&Row> = of_both.iter().filter(|row| !candidates.contains(row)).collect();
    assert!(strange.is_empty(), "rows that no record gives: {strange:?}");
    assert_eq!(ids(of_both), wanted, "each id of both topics once");
    println!("{}: {} rows of one topic, {} of both", stage.name, own.len(), wanted.len());
}

#[test]
fn each_row_of_two_topics_comes_once_while_weir_is_killed_in_a_loop() {
    let kafka = Kafka::shared();
    let stage = two_topics("two_topics", 3);
    let mut dice = dice("two_topics");
    let events = |prefix: &str, seed| Events::new(seed).named(prefix).sharing(5);
    let slow = Flow::go_on(kafka, &stage.name, 150, events("slow-", dice.below(u64::MAX)));
    let fast = Flow::go_on(kafka, &riding(&stage.name), 1500, events("fast-", dice.below(u64::MAX)));
    for _ in 0..8 {
        let mut weir = stage.weir("a");
        if dice.below(4) > 0 {
            weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        }
        sleep(Duration::from_millis(dice.below(1200)));
        weir.kill();
    }
    let sent = slow.stop().0 + fast.stop().0;
    let mut weir = stage.weir("a");
    settle_both(&stage, None, &mut [&mut weir]);
    println!("two_topics: {sent} records");
}

/// The faster topic runs far ahead in event time; what it gave is remembered until the slower one has passed it.
#[test]
fn windows_pass_by_the_event_time_of_the_slower_topic() {
    let kafka = Kafka::shared();
    let stage = Stage {
        source: "time: { field: ts, unit: ms, idle: 10m }".to_owned(),
        steps: "[ { dedup: { key: id, window: 4h } } ]".to_owned(),
        ..two_topics("two_paces", 2)
    };
    let slow = Flow::go_on(kafka, &stage.name, 200, Events::new(21).named("slow-"));
    let fast = Flow::go_on(kafka, &riding(&stage.name), 2000, Events::new(22).named("fast-"));
    for _ in 0..4 {
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 3.0);
        weir.kill();
    }
    slow.stop();
    fast.stop();
    let mut weir = stage.weir("a");
    settle_both(&stage, Some(4 * 3_600_000), &mut [&mut weir]);
}

#[test]
fn a_lost_disk_and_a_second_instance_cost_no_row_of_either_topic() {
    let kafka = Kafka::shared();
    let stage = two_topics("two_topics_two_weirs", 4);
    let mut dice = dice("two_topics_two_weirs");
    let first = Flow::go_on(kafka, &stage.name, 600, Events::new(dice.below(u64::MAX)).named("first-"));
    let second = Flow::go_on(kafka, &riding(&stage.name), 600, Events::new(dice.below(u64::MAX)).named("second-"));
    let (mut a, mut b) = (stage.weir("a"), stage.weir("b"));
    for _ in 0..2 {
        for weir in [&mut a, &mut b] {
            weir.wait_for_metric("weir_rebalances_total", "", 1.0);
        }
        sleep(Duration::from_millis(500 + dice.below(1500)));
        b.kill();
        std::fs::remove_dir_all(stage.state("b")).unwrap();
        b = stage.weir("b");
        sleep(Duration::from_millis(dice.below(1500)));
        a.kill();
        a = stage.weir("a");
    }
    first.stop();
    second.stop();
    settle_both(&stage, None, &mut [&mut a, &mut b]);
}

#[test]
fn an_empty_topic_holds_nobody_back() {
    let kafka = Kafka::shared();
    for (name, filled) in [("empty_second", "empty_second"), ("empty_first", "empty_first_riding")] {
        let stage = Stage { source: "time: { field: ts, unit: ms, idle: 1s }".to_owned(), ..two_topics(name, 2) };
        kafka.produce(filled, &Events::new(23).take(1500));
        let mut weir = stage.weir_with("a", &["--until-end"]);
        assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
        let expected = of_each(name, None);
        assert_same(name, &stored(ClickHouse::shared(), &stage.table()), &expected);
        // Idle, it is set aside, and the other one's time counts.
        let mut weir = stage.weir("a");
        let flow = Flow::go_on(kafka, filled, 100, Events::new(24).named("more-"));
        for partition in 0..2 {
            let of = format!("partition=\"{partition}\"");
            weir.wait_for_metric("weir_watermark_timestamp_seconds", &of, (BEGIN_MS / 1000) as f64);
        }
        flow.stop();
        settle_both(&stage, None, &mut [&mut weir]);
    }
}

#[test]
fn topics_of_unequal_partition_counts_are_refused_with_the_numbers() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    kafka.create_topic(&riding("unequal_counts"), 3);
    let stage = Stage {
        topics: "topics: [unequal_counts, unequal_counts_riding]".to_owned(),
        ..Stage::new("unequal_counts", kafka, clickhouse, 2)
    };
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let sentence = "topic `unequal_counts` has 2 partitions and `unequal_counts_riding` has 3";
    assert!(weir.log().contains(sentence), "{}", weir.log());
    // Also before ends are asked for of partitions that one of them does not have.
    let turned = Stage { topics: "topics: [unequal_counts_riding, unequal_counts]".to_owned(), ..stage };
    let mut weir = turned.weir_with("b", &["--until-end"]);
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let sentence = "topic `unequal_counts_riding` has 3 partitions and `unequal_counts` has 2";
    assert!(weir.log().contains(sentence), "{}", weir.log());
}

/// Also where growth as such is allowed: rows of the new partitions would have nobody to meet.
#[test]
fn a_riding_topic_that_grows_alone_stops_the_pipeline() {
    let kafka = Kafka::shared();
    let mut stage = two_topics("grows_alone", 1);
    stage.lines.push("on_partition_growth: continue".to_owned());
    kafka.produce(&stage.name, &Events::new(25).take(500));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    kafka.add_partitions(&riding(&stage.name), 2);
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("need equal counts"), "{}", weir.log());
    // Both grown, it goes on, and nothing is lost.
    kafka.add_partitions(&stage.name, 2);
    kafka.produce(&riding(&stage.name), &Events::new(26).named("more-").take(500));
    let mut weir = stage.weir("a");
    settle_both(&stage, None, &mut [&mut weir]);
}

#[test]
fn a_riding_topic_made_again_begins_anew_and_the_other_goes_on() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = two_topics("riding_again", 2);
    kafka.produce(&stage.name, &Events::new(27).named("stays-").take(800));
    kafka.produce(&riding(&stage.name), &Events::new(28).take(800));
    let mut weir = stage.weir("a");
    let before = of_each(&stage.name, None);
    settle_with(clickhouse, &stage, &before, &mut [&mut weir]);
    kafka.delete_topic(&riding(&stage.name));
    kafka.create_topic(&riding(&stage.name), 2);
    kafka.produce(&riding(&stage.name), &Events::new(28).take(900));
    kafka.produce(&stage.name, &Events::new(29).named("later-").take(300));
    let mut weir = stage.weir("a");
    // The state is empty: the ids of the topic made again are new.
    let later = deduplicated(&kafka.read_all(&stage.name), None).into_iter().filter(|row| row.id.starts_with("later-"));
    let after = [deduplicated(&kafka.read_all(&riding(&stage.name)), None), later.collect()].concat();
    settle_with(clickhouse, &stage, &[before, after].concat(), &mut [&mut weir]);
    assert!(weir.whole_log().contains("was deleted and created again"), "{}", weir.log());
}
