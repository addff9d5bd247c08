//! Topics that are deleted and made again, that grow, and that end in a marker.

use crate::flow::{Events, Flow};
use crate::oracle::{deduplicated, settle, settle_with, wait_for_rows};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, Outcome};

#[test]
fn a_topic_made_again_while_weir_is_down_begins_anew() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("recreated_down", kafka, clickhouse, 2);
    let mut events = Events::new(9);
    kafka.produce(&stage.name, &events.take(1500));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    let before = deduplicated(&kafka.read_all(&stage.name), None);
    settle_with(clickhouse, &stage, &before, &mut [&mut weir]);
    kafka.delete_topic(&stage.name);
    kafka.create_topic(&stage.name, 2);
    // The same ids once more: with empty state they are new.
    kafka.produce(&stage.name, &Events::new(9).take(2000));
    let mut weir = stage.weir("a");
    let after = deduplicated(&kafka.read_all(&stage.name), None);
    settle_with(clickhouse, &stage, &[before, after].concat(), &mut [&mut weir]);
    assert!(weir.whole_log().contains("was deleted and created again"), "{}", weir.log());
}

#[test]
fn a_topic_made_again_while_weir_runs_begins_anew() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("recreated_running", kafka, clickhouse, 2);
    let mut events = Events::new(10);
    kafka.produce(&stage.name, &events.take(1500));
    let mut weir = stage.weir("a");
    let before = deduplicated(&kafka.read_all(&stage.name), None);
    wait_for_rows(clickhouse, &stage, before.len(), &mut [&mut weir]);
    kafka.delete_topic(&stage.name);
    kafka.create_topic(&stage.name, 2);
    // Until somebody looks, nobody can tell a record of the new topic from one of the old by its offset: the first ones
    // lie where nobody reads any more.
    let mut events = Events::new(10);
    kafka.produce(&stage.name, &events.take(500));
    weir.wait_for_log("was deleted and created again");
    kafka.produce(&stage.name, &events.take(1500));
    let after = deduplicated(&kafka.read_all(&stage.name), None);
    settle_with(clickhouse, &stage, &[before, after].concat(), &mut [&mut weir]);
}

#[test]
fn a_topic_that_grows_stops_a_dedup_with_that_sentence() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("grown_halt", kafka, clickhouse, 1);
    kafka.produce(&stage.name, &Events::new(11).take(1000));
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_rebalances_total", "", 1.0);
    kafka.add_partitions(&stage.name, 2);
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("on_partition_growth"), "{}", weir.log());
    // A restart does not make it forget.
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("on_partition_growth"), "{}", weir.log());
}

#[test]
fn a_topic_that_grows_is_read_on_from_the_new_partitions_start_where_that_was_asked_for() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("grown", kafka, clickhouse, 1);
    stage.lines.push("on_partition_growth: continue".to_owned());
    let flow = Flow::start(kafka, &stage.name, 500, 12);
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 2.0);
    let (_, events) = flow.stop();
    kafka.add_partitions(&stage.name, 3);
    let flow = Flow::go_on(kafka, &stage.name, 500, events);
    weir.wait_for_metric("weir_recoveries_total", "", 3.0);
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
}

#[test]
fn a_topic_that_ends_in_a_transactions_marker_is_read_to_its_end() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("transactions", kafka, clickhouse, 2);
    let mut events = Events::new(13);
    for (count, outcome) in
        [(500, Outcome::Commit), (300, Outcome::Abort), (200, Outcome::Commit), (100, Outcome::Abort)]
    {
        kafka.produce_in_transaction(&stage.name, &events.take(count), outcome);
        let mut weir = stage.weir_with("a", &["--until-end"]);
        assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    }
    let ends: Vec<i64> = kafka.log_ranges(&stage.name).into_iter().map(|(_, end)| end).collect();
    let committed: Vec<i64> = kafka.committed(&stage.group(), &stage.name).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(committed, ends, "the markers are passed");
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_rebalances_total", "", 1.0);
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
}

#[test]
fn records_gone_before_they_were_read_stop_the_pipeline_or_are_passed_over_as_was_asked() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("retention", kafka, clickhouse, 1);
    let mut events = Events::new(18);
    kafka.produce(&stage.name, &events.take(1000));
    settle(kafka, clickhouse, &stage, None, &mut [&mut stage.weir("a")]);
    kafka.produce(&stage.name, &events.take(1000));
    let mut records = kafka.read_all(&stage.name);
    kafka.delete_records(&stage.name, 0, 1400);
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let sentence = "records 1000 to 1400 of `retention` partition 0 are gone before they were processed";
    assert!(weir.log().contains(sentence) && weir.log().contains("on_gap: continue"), "{}", weir.log());
    stage.lines.push("on_gap: continue".to_owned());
    records.retain(|record| !(1000..1400).contains(&record.offset));
    let mut weir = stage.weir("a");
    settle_with(clickhouse, &stage, &deduplicated(&records, None), &mut [&mut weir]);
}
