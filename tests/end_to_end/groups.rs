//! What people do to the group's offsets.

use crate::flow::Events;
use crate::oracle::{Row, deduplicated, settle, settle_with};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use std::time::Duration;

/// A pipeline that has read 2000 records of one partition, and left the group.
fn ran_once(name: &str) -> (Stage, Events) {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new(name, kafka, clickhouse, 1);
    let mut events = Events::new(7);
    kafka.produce(&stage.name, &events.take(2000));
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    (stage, events)
}

#[test]
fn reset_offsets_are_followed_with_the_state_of_the_time_before() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let (stage, mut events) = ran_once("reset_follow");
    kafka.reset_offsets(&stage.group(), &stage.name, "--to-offset 1200");
    kafka.produce(&stage.name, &events.take(1000));
    let mut weir = stage.weir("a");
    // What lies behind the new position is sent again; the state knows what came before it.
    let once = deduplicated(&kafka.read_all(&stage.name), None);
    let again: Vec<Row> = once.iter().filter(|row| (1200..2000).contains(&row.offset)).cloned().collect();
    settle_with(clickhouse, &stage, &[once, again].concat(), &mut [&mut weir]);
    assert!(weir.whole_log().contains("somebody moved the group's offset"), "{}", weir.log());
}

#[test]
fn reset_offsets_halt_the_pipeline_where_that_was_asked_for() {
    let kafka = Kafka::shared();
    let (mut stage, _) = ran_once("reset_halt");
    stage.lines.push("on_offset_reset: halt".to_owned());
    kafka.reset_offsets(&stage.group(), &stage.name, "--to-earliest");
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("on_offset_reset: halt"), "{}", weir.log());
}

#[test]
fn a_deleted_group_goes_on_from_the_ledger() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let (stage, mut events) = ran_once("deleted_group");
    kafka.delete_group(&stage.group());
    kafka.produce(&stage.name, &events.take(1000));
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    assert!(weir.whole_log().contains("case=\"unmarked\""), "{}", weir.log());
}

#[test]
fn after_sigterm_the_member_keeps_its_place_and_a_restart_has_its_partitions_at_once() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    // Longer than a busy machine needs for a start.
    let session_timeout_ms = 60_000;
    let stage = Stage { session_timeout_ms, ..Stage::new("clean_stop", kafka, clickhouse, 2) };
    let mut events = Events::new(8);
    for round in 0..3 {
        kafka.produce(&stage.name, &events.take(1000));
        let mut weir = stage.weir("a");
        let back = weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        println!("clean_stop: {back:?} from start to the first acknowledged block");
        assert!(
            round == 0 || back < Duration::from_millis(session_timeout_ms),
            "a restart does not wait for the group"
        );
        settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
        if round == 0 {
            let said = kafka.refused_reset(&stage.group(), &stage.name, "--to-earliest");
            assert!(said.contains("is inactive, but the current state is"), "{said}");
        }
        let committed: i64 = kafka.committed(&stage.group(), &stage.name).iter().map(|(offset, _)| offset).sum();
        assert_eq!(committed, 1000 * (round + 1), "a clean stop commits all it has read");
    }
}
