//! The state directory deleted, put back old, in use, full.

use crate::flow::{Events, Flow, dice};
use crate::oracle::{assert_same, deduplicated, settle, stored};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
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
            sleep(Duration::from_millis(700));
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

fn copy_folder(from: &Path, to: &Path) {
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
    assert!(second.log().contains("another process"), "{}", second.log());
    settle(kafka, clickhouse, &stage, None, &mut [&mut first]);
}

#[test]
fn a_full_disk_stops_the_pipeline_with_that_sentence_and_loses_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("full_disk", kafka, clickhouse, 1);
    let state = stage.state("a");
    std::fs::create_dir_all(&state).unwrap();
    let Some(disk) = SmallDisk::mount(&state, 24) else {
        println!("full_disk: left out, this user cannot mount a small disk");
        return;
    };
    let mut events = Events::new(6);
    kafka.produce(&stage.name, &events.take(2000));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    let filling = disk.fill();
    kafka.produce(&stage.name, &events.take(40_000));
    let status = weir.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("No space left on device"), "{}", weir.log());
    std::fs::remove_file(filling).unwrap();
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    let expected = deduplicated(&kafka.read_all(&stage.name), None);
    assert_same(&stage.name, &stored(clickhouse, &stage.table()), &expected);
}

/// A few MiB of memory as a disk.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    /// `None` where this user may not.
    fn mount(at: &Path, mib: u32) -> Option<SmallDisk<'_>> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "weir-test"]).arg(at);
        command.status().is_ok_and(|status| status.success()).then_some(SmallDisk(at))
    }

    /// Leaves not a byte; what to delete afterwards.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.0.join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
