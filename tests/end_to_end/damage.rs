//! State directories that cannot be used, or are damaged: said, set aside, restored from the topic.

use crate::flow::Events;
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use std::path::{Path, PathBuf};

/// Runs twice, so that the state is in table files and not in the log alone, does the damage while weir is down, and
/// runs once more: the rows have to be the oracle's, duplicates of all that was before included.
fn survives(name: &str, damage: impl Fn(&Path)) {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new(name, kafka, clickhouse, 2);
    let mut events = Events::new(51);
    for _ in 0..3 {
        kafka.produce(&stage.name, &events.take(1000));
        let mut weir = stage.weir("a");
        settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    }
    damage(&stage.state("a").join(name));
    std::fs::remove_file(stage.log("a")).unwrap();
    kafka.produce(&stage.name, &events.take(1500));
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    let log = weir.whole_log();
    assert!(log.contains("is damaged") && log.contains("set aside, starting without it"), "{log}");
    let aside = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().starts_with(&format!("{name}.corrupt-"));
    assert_eq!(files_of(&stage.state("a")).iter().filter(|file| aside(file)).count(), 1, "the old one is kept");
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Flips a bit every so often in the first half of each table file of a column family: among keys and values.
fn flip_bits(folder: &Path, family: &str) {
    let mut flipped = 0;
    for path in files_of(folder).iter().filter(|path| path.extension().is_some_and(|is| is == "sst")) {
        let mut bytes = std::fs::read(path).unwrap();
        // The family's name stands among the file's properties.
        if !holds(&bytes, family) {
            continue;
        }
        let half = bytes.len() / 2;
        bytes[..half].iter_mut().step_by(64).for_each(|byte| *byte ^= 0x10);
        std::fs::write(path, bytes).unwrap();
        flipped += 1;
    }
    assert!(flipped > 0, "there is a table file of {family}");
}

#[test]
fn a_bit_flipped_in_the_ledger_is_found_and_the_state_restored() {
    survives("flipped_ledger", |folder| flip_bits(folder, "ledger"));
}

#[test]
fn a_bit_flipped_in_the_dedup_table_is_found_and_the_state_restored() {
    survives("flipped_seen", |folder| flip_bits(folder, "seen"));
}

#[test]
fn a_manifest_that_is_cut_is_found_and_the_state_restored() {
    survives("cut_manifest", |folder| {
        let is_it = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST");
        let manifest = files_of(folder).iter().find(is_it).unwrap().clone();
        let bytes = std::fs::read(&manifest).unwrap();
        std::fs::write(manifest, &bytes[..bytes.len() / 3]).unwrap();
    });
}

#[test]
fn a_directory_without_its_current_file_is_found_and_the_state_restored() {
    survives("no_current", |folder| std::fs::remove_file(folder.join("CURRENT")).unwrap());
}

#[test]
fn a_strict_pipeline_stops_at_a_damaged_directory_and_touches_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("strict_damage", kafka, clickhouse, 1);
    stage.lines.push("strict: true".to_owned());
    kafka.produce(&stage.name, &Events::new(52).take(500));
    settle(kafka, clickhouse, &stage, None, &mut [&mut stage.weir("a")]);
    std::fs::write(stage.state("a").join("strict_damage").join("CURRENT"), "nonsense").unwrap();
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    assert!(weir.log().contains("is damaged; set it aside, Kafka still has the records"), "{}", weir.log());
    assert_eq!(files_of(&stage.state("a")).len(), 1, "nothing is set aside");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("unusable", kafka, clickhouse, 1);
    // A file stands in its way; permissions would not stop root.
    std::fs::write(stage.state("a"), "a file").unwrap();
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let (log, path) = (weir.log(), stage.state("a").display().to_string());
    assert!(log.contains("cannot be used") && log.contains(&path), "{log}");
}
