//! `kill -9` of weir, of ClickHouse, of the broker, at random moments while records flow.

use crate::flow::{Flow, dice};
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Several windows pass while the test runs: event time moves on by ten seconds a record.
const WINDOW: &str = "4h";
const WINDOW_MS: i64 = 4 * 3_600_000;

/// Dedup by the payload's time.
fn by_event_time(stage: Stage) -> Stage {
    Stage {
        steps: format!("[ {{ dedup: {{ key: id, window: {WINDOW} }} }} ]"),
        source: "time: { field: ts, unit: ms }".to_owned(),
        ..stage
    }
}

#[test]
fn weir_killed_in_a_loop_loses_nothing_and_doubles_nothing() {
    let kills: u64 = std::env::var("WEIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = by_event_time(Stage::new("killed_weir", kafka, clickhouse, 4));
    let mut dice = dice("killed_weir");
    let flow = Flow::start(kafka, &stage.name, 1500, dice.below(u64::MAX));
    let mut back: Vec<Duration> = Vec::new();
    for _ in 0..kills {
        let mut weir = stage.weir("a");
        match dice.below(4) {
            // In the middle of the start.
            0 if !back.is_empty() => sleep(Duration::from_millis(dice.below(800))),
            _ => {
                back.push(weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0));
                sleep(Duration::from_millis(dice.below(1200)));
            }
        }
        weir.kill();
    }
    let (sent, _) = flow.stop();
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, Some(WINDOW_MS), &mut [&mut weir]);
    back.sort_unstable();
    let told = format!(
        "killed_weir: {kills} kills over {sent} records; from restart to the next acknowledged block: median {:?}, longest {:?}",
        back[back.len() / 2],
        back[back.len() - 1]
    );
    println!("{told}");
    // `make test` shows it at its end.
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("restarts"), told + "\n").unwrap();
}

#[test]
fn clickhouse_killed_in_a_loop_loses_nothing_and_doubles_nothing() {
    let (kafka, mut clickhouse) = (Kafka::shared(), ClickHouse::start());
    let stage = by_event_time(Stage::new("killed_clickhouse", kafka, &clickhouse, 2));
    let mut dice = dice("killed_clickhouse");
    let flow = Flow::start(kafka, &stage.name, 1500, dice.below(u64::MAX));
    let mut weir = stage.weir("a");
    for round in 0..6 {
        sleep(Duration::from_millis(500 + dice.below(1500)));
        clickhouse.kill();
        sleep(Duration::from_millis(dice.below(1500)));
        if round == 3 {
            // Both are gone; weir comes back before ClickHouse does.
            weir.kill();
            weir = stage.weir("a");
            sleep(Duration::from_secs(1));
        }
        clickhouse.restart();
    }
    flow.stop();
    settle(kafka, &clickhouse, &stage, Some(WINDOW_MS), &mut [&mut weir]);
}

#[test]
fn the_broker_killed_in_a_loop_loses_nothing_and_doubles_nothing() {
    let (mut kafka, clickhouse) = (Kafka::start(), ClickHouse::shared());
    let stage = by_event_time(Stage::new("killed_broker", &kafka, clickhouse, 2));
    let mut dice = dice("killed_broker");
    let flow = Flow::start(&kafka, &stage.name, 1000, dice.below(u64::MAX));
    let mut weir = stage.weir("a");
    for round in 0..3 {
        sleep(Duration::from_millis(1500 + dice.below(1500)));
        kafka.kill();
        if round == 1 {
            // Both are gone; weir comes back before the broker does.
            weir.kill();
            weir = stage.weir("a");
        }
        // Now and then for longer than the session timeout.
        sleep(Duration::from_millis(if round == 2 { 8000 } else { dice.below(1500) }));
        kafka.restart();
        let restarted = Instant::now();
        let before = weir.metric("weir_blocks_acknowledged_total", "").unwrap_or(0.0);
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", before + 1.0);
        println!("killed_broker: a block was acknowledged {:?} after the broker was back", restarted.elapsed());
    }
    flow.stop();
    settle(&kafka, clickhouse, &stage, Some(WINDOW_MS), &mut [&mut weir]);
}
