//! Several instances: partitions move, come back, and are still written once.

use crate::flow::{Dice, Flow, dice};
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::support::{PATIENCE, wait_for};
use crate::weir::Weir;
use std::thread::sleep;
use std::time::Duration;

/// B comes to A, takes half of four partitions, and goes: killed, stopped, killed with its disk. A has them back.
pub fn there_and_back(stage: &Stage, a: &mut Weir, dice: &mut Dice) {
    for round in 0..3 {
        let mut b = stage.weir("b");
        b.wait_for_metric("weir_blocks_acknowledged_total", "", 3.0);
        sleep(Duration::from_millis(dice.below(1000)));
        let before = a.recoveries("");
        match round {
            0 => b.kill(),
            1 => b.stop(),
            _ => {
                b.kill();
                std::fs::remove_dir_all(stage.state("b")).unwrap();
            }
        }
        // A's ledger of them is behind now.
        a.wait_for_metric("weir_recoveries_total", "", before + 2.0);
    }
    let (caught_up, all) = (a.recoveries("catch_up"), a.recoveries(""));
    assert!(caught_up >= 3.0, "{caught_up} of {all} partitions caught up with what B had done");
}

#[test]
fn partitions_that_go_to_another_instance_and_come_back_are_written_once() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("there_and_back", kafka, clickhouse, 4);
    let mut dice = dice("there_and_back");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let mut a = stage.weir("a");
    a.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
    there_and_back(&stage, &mut a, &mut dice);
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a]);
}

#[test]
fn one_of_two_that_is_killed_and_loses_its_disk_costs_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("two_and_a_disk", kafka, clickhouse, 4);
    let mut dice = dice("two_and_a_disk");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let (mut a, mut b) = (stage.weir("a"), stage.weir("b"));
    for weir in [&mut a, &mut b] {
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    }
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
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a, &mut b]);
}

/// What an instance says that the group has given up.
const GIVEN_UP: [&str; 2] = ["lost=true", "fenced: nothing is sent until the next assignment"];

#[test]
fn an_instance_stopped_past_the_session_timeout_wakes_up_and_writes_nothing_twice() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("zombie", kafka, clickhouse, 4);
    let mut dice = dice("zombie");
    let flow = Flow::start(kafka, &stage.name, 1000, dice.below(u64::MAX));
    let (mut a, mut b) = (stage.weir("a"), stage.weir("b"));
    for weir in [&mut a, &mut b] {
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 2.0);
    }
    for _ in 0..2 {
        sleep(Duration::from_millis(dice.below(700)));
        let (before, told) = (b.recoveries(""), a.lines_with(&GIVEN_UP));
        a.signal(libc::SIGSTOP);
        // B has taken over A's half, and gone on with it.
        b.wait_for_metric("weir_recoveries_total", "", before + 2.0);
        let acknowledged = b.metric("weir_blocks_acknowledged_total", "").unwrap();
        b.wait_for_metric("weir_blocks_acknowledged_total", "", acknowledged + 4.0);
        a.signal(libc::SIGCONT);
        // It is told that it is nobody any more, by the group or at its first commit.
        wait_for("A to hear of its loss", PATIENCE, || (a.lines_with(&GIVEN_UP) > told).then_some(()));
        // Both have to get on afterwards.
        for weir in [&mut a, &mut b] {
            let before = weir.metric("weir_blocks_acknowledged_total", "").unwrap();
            weir.wait_for_metric("weir_blocks_acknowledged_total", "", before + 2.0);
        }
    }
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut a, &mut b]);
}
