//! The state directory deleted, put back old, in use, full.

use crate::flow::{Events, Flow, dice};
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::disk::{SmallDisk, in_own_namespace};
use crate::support::kafka::Kafka;
use crate::support::proxy::{Fate, Proxy};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_lost_state_directory_is_restored_from_the_topic() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let stage = Stage { url: proxy.url(), ..Stage::new("lost_disk", kafka, clickhouse, 3) };
    let mut dice = dice("lost_disk");
    let flow = Flow::start(kafka, &stage.name, 1500, dice.below(u64::MAX));
    for round in 0..5 {
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 3.0);
        sleep(Duration::from_millis(dice.below(1000)));
        if round % 2 == 1 {
            // What is announced stays unclear.
            proxy.every_insert(Fate::LoseAnswer);
            let before = weir.metric("weir_insert_retries_total", "").unwrap();
            weir.wait_for_metric("weir_insert_retries_total", "", before + 1.0);
        }
        weir.kill();
        proxy.every_insert(Fate::Pass);
        std::fs::remove_dir_all(stage.state("a")).unwrap();
    }
    flow.stop();
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    assert!(weir.whole_log().contains("case=\"restore\""), "nothing was restored");
}

#[test]
fn an_old_copy_of_the_state_directory_catches_up() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("old_copy", kafka, clickhouse, 3);
    let mut dice = dice("old_copy");
    let flow = Flow::start(kafka, &stage.name, 1500, dice.below(u64::MAX));
    let copy = stage.folder.path().join("copy");
    for _ in 0..3 {
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
        weir.kill();
        copy_folder(&stage.state("a"), &copy);
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 8.0);
        sleep(Duration::from_millis(dice.below(800)));
        weir.kill();
        std::fs::remove_dir_all(stage.state("a")).unwrap();
        std::fs::rename(&copy, stage.state("a")).unwrap();
    }
    flow.stop();
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    assert!(weir.whole_log().contains("case=\"catch_up\""), "nothing had to catch up");
}

pub fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_directory_in_use_is_refused_with_that_sentence() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("in_use", kafka, clickhouse, 1);
    let mut events = Events::new(5);
    kafka.produce(&stage.name, &events.take(500));
    let mut first = stage.weir("a");
    first.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    let mut second = stage.weir("a");
    let status = second.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", second.log());
    let sentence =
        format!("the state directory {} is in use by another process", stage.state("a").join("in_use").display());
    assert!(second.whole_log().contains(&sentence), "`{sentence}` is not in:\n{}", second.log());
    settle(kafka, clickhouse, &stage, None, &mut [&mut first]);
}

/// More than the disk takes while weir runs, then a restart with space.
fn a_disk_that_fills_up(stage: &mut Stage, fill: impl FnOnce(), make_space: impl FnOnce()) {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut events = Events::new(6);
    kafka.produce(&stage.name, &events.take(2000));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    fill();
    kafka.produce(&stage.name, &events.take(60_000));
    let status = weir.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", weir.log());
    let sentence = format!("the disk of the state directory {}", stage.state("a").join(&stage.name).display());
    assert!(weir.log().contains(&format!("{sentence} is full; nothing is lost, make space")), "{}", weir.log());
    make_space();
    stage.file_bytes_max = None;
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, stage, None, &mut [&mut weir]);
}

/// Enough for the first records, far from enough for the log of all.
const FILE_BYTES: u64 = 700 << 10;

/// Works everywhere: no file may grow beyond a few hundred KiB, so the log of the state does not.
#[test]
fn a_disk_that_takes_no_more_stops_the_pipeline_with_that_sentence_and_loses_nothing() {
    let mut stage = Stage::new("limited_disk", Kafka::shared(), ClickHouse::shared(), 1);
    stage.file_bytes_max = Some(FILE_BYTES);
    a_disk_that_fills_up(&mut stage, || {}, || {});
}

/// The real thing: a disk of a few MiB.
#[test]
fn a_full_disk_stops_the_pipeline_with_that_sentence_and_loses_nothing() {
    if !SmallDisk::may_mount() {
        return in_own_namespace("disk::a_full_disk_stops_the_pipeline_with_that_sentence_and_loses_nothing");
    }
    let mut stage = Stage::new("full_disk", Kafka::shared(), ClickHouse::shared(), 1);
    let state = stage.state("a");
    std::fs::create_dir_all(&state).unwrap();
    let disk = SmallDisk::mount(&state, 24);
    let filling = state.join("filling");
    a_disk_that_fills_up(&mut stage, || drop(disk.fill()), || std::fs::remove_file(filling).unwrap());
}
