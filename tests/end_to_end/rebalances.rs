//! Several instances: partitions move, come back, and are still written once.

use crate::flow::{Flow, dice};
use crate::oracle::settle;
use crate::stage::{SESSION_TIMEOUT_MS, Stage};
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::weir::Weir;
use std::thread::sleep;
use std::time::Duration;

/// Long enough for the broker to give a member up.
const PAST_THE_SESSION: Duration = Duration::from_millis(SESSION_TIMEOUT_MS + 2_000);

fn wait_for_partitions(weir: &mut Weir) {
    weir.wait_for_metric("weir_rebalances_total", "", 1.0);
}

#[test]
fn partitions_that_go_to_another_instance_and_come_back_are_written_once() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("there_and_back", kafka, clickhouse, 4);
    let mut dice = dice("there_and_back");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let mut a = stage.weir("a");
    a.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
    for round in 0..3 {
        // B comes and takes half.
        let mut b = stage.weir("b");
        b.wait_for_metric("weir_blocks_acknowledged_total", "", 3.0);
        sleep(Duration::from_millis(dice.below(1000)));
        // It goes: killed, stopped, or killed with its disk.
        match round {
            0 => b.kill(),
            1 => b.stop(),
            _ => {
                b.kill();
                std::fs::remove_dir_all(stage.state("b")).unwrap();
            }
        }
        // Its partitions come back to A, whose ledger is behind now.
        sleep(PAST_THE_SESSION);
    }
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a]);
}

#[test]
fn one_of_two_that_is_killed_and_loses_its_disk_costs_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("two_and_a_disk", kafka, clickhouse, 4);
    let mut dice = dice("two_and_a_disk");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let mut a = stage.weir("a");
    let mut b = stage.weir("b");
    wait_for_partitions(&mut a);
    wait_for_partitions(&mut b);
    for _ in 0..3 {
        sleep(Duration::from_millis(500 + dice.below(1500)));
        b.kill();
        std::fs::remove_dir_all(stage.state("b")).unwrap();
        sleep(Duration::from_millis(dice.below(1500)));
        b = stage.weir("b");
        sleep(Duration::from_millis(dice.below(1500)));
        a.kill();
        a = stage.weir("a");
    }
    sleep(PAST_THE_SESSION);
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a, &mut b]);
}

#[test]
fn an_instance_stopped_past_the_session_timeout_wakes_up_and_writes_nothing_twice() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("zombie", kafka, clickhouse, 4);
    let mut dice = dice("zombie");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let mut a = stage.weir("a");
    let mut b = stage.weir("b");
    a.wait_for_metric("weir_blocks_acknowledged_total", "", 2.0);
    b.wait_for_metric("weir_blocks_acknowledged_total", "", 2.0);
    for _ in 0..2 {
        sleep(Duration::from_millis(dice.below(700)));
        a.signal(libc::SIGSTOP);
        sleep(PAST_THE_SESSION + Duration::from_millis(dice.below(1000)));
        a.signal(libc::SIGCONT);
        // Both have to get on afterwards.
        sleep(Duration::from_secs(1));
        let before = a.metric("weir_blocks_acknowledged_total", "").unwrap_or(0.0);
        a.wait_for_metric("weir_blocks_acknowledged_total", "", before + 2.0);
    }
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a, &mut b]);
}
