//! Joins against the definition: crashes, rebalances, lost disks, ends.

use crate::flow::{Flow, dice};
use crate::joined::{Joined, Topics, stored};
use crate::oracle::{assert_same, wait_for_rows};
use crate::rebalances::there_and_back;
use crate::sides::{LATENESS, Side, SideFeed};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use crate::weir::Weir;
use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

const COLUMNS: &str = "id String, l Nullable(UInt64), r Nullable(UInt64)";
const BEFORE_MS: i64 = 3_000;
const AFTER_MS: i64 = 5_000;
const INTERVAL: &str = "kind: interval, before: 3s, after: 5s";
const WITHIN_MS: i64 = 4_000;

fn right(name: &str) -> String {
    format!("{name}_right")
}

/// The topics `<name>` and `<name>_right`, and a pipeline that joins them like this.
fn stage(name: &str, partitions: i32, with: &str, join: &str) -> Stage {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let time = format!("time: {{ lateness: {LATENESS}, idle: 10m }}");
    let stage = Stage {
        steps: format!(
            "[ {{ join: {{ with: {{ kafka: {{ topic: {} }}, {time}{with} }}, as: right, key: id, {join} }} }} ]",
            right(name)
        ),
        source: time,
        memory_limit: "2GiB".to_owned(),
        ..Stage::bare(name, kafka, clickhouse)
    };
    kafka.create_topic(name, partitions);
    kafka.create_topic(&right(name), partitions);
    clickhouse.query(&format!("CREATE DATABASE {name}"));
    stage.create_table(clickhouse, COLUMNS);
    stage
}

fn topics(stage: &Stage) -> Topics {
    Topics::read(Kafka::shared(), &stage.name, &right(&stage.name))
}

/// Both sides flow.
struct Flows {
    left: Flow<SideFeed>,
    right: Flow<SideFeed>,
}

impl Flows {
    fn start(stage: &Stage, per_second: u64, left: SideFeed, right_side: SideFeed) -> Flows {
        let kafka = Kafka::shared();
        Flows {
            left: Flow::go_on(kafka, &stage.name, per_second, left),
            right: Flow::go_on(kafka, &right(&stage.name), per_second, right_side),
        }
    }

    /// Ends both, and moves time past every window.
    fn stop(self, stage: &Stage, partitions: i32) -> u64 {
        let ((of_left, mut left), (of_right, mut right_side)) = (self.left.stop(), self.right.stop());
        Kafka::shared().produce(&stage.name, &left.ends(partitions));
        Kafka::shared().produce(&right(&stage.name), &right_side.ends(partitions));
        of_left + of_right
    }
}

fn feeds(seed: u64) -> (SideFeed, SideFeed) {
    (SideFeed::new(Side::Left, seed), SideFeed::new(Side::Right, seed ^ 0xfeed))
}

/// Starts weir and kills it, again and again, while both sides flow. Every third time its directory goes, too.
fn kill_in_a_loop(stage: &Stage, kills: u64, left: SideFeed, right_side: SideFeed) -> u64 {
    let mut dice = dice(&stage.name);
    let flows = Flows::start(stage, 500, left, right_side);
    for kill in 0..kills {
        let mut weir = stage.weir("a");
        if dice.below(4) > 0 {
            weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        }
        sleep(Duration::from_millis(dice.below(1200)));
        weir.kill();
        if kill % 3 == 2 {
            std::fs::remove_dir_all(stage.state("a")).unwrap();
        }
    }
    flows.stop(stage, 2)
}

/// Waits for the rows, stops, and compares.
fn settle(stage: &Stage, expected: &[Joined], weirs: &mut [&mut Weir]) {
    let clickhouse = ClickHouse::shared();
    wait_for_rows(clickhouse, stage, expected.len(), weirs);
    weirs.iter_mut().for_each(|weir| weir.stop());
    assert_same(&stage.name, &stored(clickhouse, &stage.table()), expected);
    let alone = |row: &&Joined| row.l.is_none() || row.r.is_none();
    println!("{}: {} rows, {} of them alone", stage.name, expected.len(), expected.iter().filter(alone).count());
}

#[test]
fn a_full_interval_join_killed_in_a_loop_is_what_the_definition_gives() {
    let stage = stage("killed_interval", 2, "", &format!("{INTERVAL}, type: full"));
    let (left, right_side) = feeds(31);
    kill_in_a_loop(&stage, 8, left, right_side);
    let mut weir = stage.weir("a");
    settle(&stage, &topics(&stage).full_interval(BEFORE_MS, AFTER_MS), &mut [&mut weir]);
}

#[test]
fn an_interval_join_that_loses_its_disk_is_what_the_definition_gives() {
    let stage = stage("interval_disk", 2, "", &format!("{INTERVAL}, type: inner"));
    let (left, right_side) = feeds(32);
    kill_in_a_loop(&stage, 6, left, right_side);
    let mut weir = stage.weir("a");
    settle(&stage, &topics(&stage).inner_interval(BEFORE_MS, AFTER_MS), &mut [&mut weir]);
}

#[test]
fn an_exact_join_killed_in_a_loop_takes_the_newest_at_each_rows_time() {
    let stage = stage("killed_exact", 2, "", "kind: temporal, within: 4s, exact: true, type: left");
    let (left, right_side) = feeds(33);
    kill_in_a_loop(&stage, 6, left, right_side);
    let mut weir = stage.weir("a");
    settle(&stage, &topics(&stage).exact_left(Some(WITHIN_MS)), &mut [&mut weir]);
}

#[test]
fn an_exact_table_with_deletions_gives_the_version_of_each_rows_time() {
    let join = "kind: temporal, within: 4s, exact: true, type: left";
    let stage = stage("exact_table", 2, ", retain: forever", join);
    let (left, right_side) = feeds(34);
    kill_in_a_loop(&stage, 6, left, right_side.of_a_table(10));
    let mut weir = stage.weir("a");
    settle(&stage, &topics(&stage).exact_left(None), &mut [&mut weir]);
}

/// Which right row it takes is a race between the topics; that each left row comes once is none.
#[test]
fn each_left_row_of_a_temporal_join_comes_once_with_a_row_that_is_allowed() {
    let stage = stage("killed_temporal", 2, "", "kind: temporal, within: 4s, type: left");
    let (left, right_side) = feeds(35);
    kill_in_a_loop(&stage, 6, left, right_side);
    let mut weir = stage.weir("a");
    let allowed = topics(&stage).allowed(WITHIN_MS);
    wait_for_rows(ClickHouse::shared(), &stage, allowed.len(), &mut [&mut weir]);
    weir.stop();
    let mut came: BTreeMap<Option<u64>, Vec<Joined>> = BTreeMap::new();
    for row in stored(ClickHouse::shared(), &stage.table()) {
        came.entry(row.l).or_default().push(row);
    }
    assert_eq!(came.len(), allowed.len(), "each left row");
    for allowed in &allowed {
        let left = allowed.first().expect("something is allowed").l;
        let rows = came.get(&left).map_or(&[][..], Vec::as_slice);
        assert!(rows.len() == 1 && allowed.contains(&rows[0]), "{left:?}: {rows:?} of {allowed:?}");
    }
}

/// Two instances that take partitions and give them back while both sides flow.
fn rebalance(stage: &Stage, left: SideFeed, right_side: SideFeed) -> Weir {
    let mut dice = dice(&stage.name);
    let flows = Flows::start(stage, 400, left, right_side);
    let mut a = stage.weir("a");
    a.wait_for_metric("weir_blocks_acknowledged_total", "", 2.0);
    there_and_back(stage, &mut a, &mut dice);
    flows.stop(stage, 4);
    a
}

#[test]
fn two_instances_that_take_and_give_partitions_join_as_one() {
    let stage = stage("join_rebalances", 4, "", &format!("{INTERVAL}, type: full"));
    let (left, right_side) = feeds(36);
    let mut a = rebalance(&stage, left, right_side);
    settle(&stage, &topics(&stage).full_interval(BEFORE_MS, AFTER_MS), &mut [&mut a]);
}

#[test]
fn two_instances_that_take_and_give_partitions_keep_one_table() {
    let join = "kind: temporal, within: 4s, exact: true, type: left";
    let stage = stage("table_rebalances", 4, ", retain: forever", join);
    let (left, right_side) = feeds(38);
    let mut a = rebalance(&stage, left, right_side.of_a_table(10));
    settle(&stage, &topics(&stage).exact_left(None), &mut [&mut a]);
}

/// Who is set aside holds nobody back, whatever happens to the process and its disk.
#[test]
fn rows_that_wait_for_a_silent_side_come_alone_and_once_across_a_kill_and_a_lost_disk() {
    let kafka = Kafka::shared();
    let mut stage = stage("silent_side", 2, "", &format!("{INTERVAL}, type: left"));
    stage.steps = stage.steps.replace("idle: 10m", "idle: 1s");
    let (mut left, _) = feeds(39);
    for round in 0..4 {
        kafka.produce(&stage.name, &left.take(300));
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        weir.kill();
        if round == 2 {
            std::fs::remove_dir_all(stage.state("a")).unwrap();
        }
    }
    kafka.produce(&stage.name, &left.ends(2));
    let mut weir = stage.weir("a");
    // Nobody is there to meet, and the last rows of all wait.
    let mut alone = topics(&stage).full_interval_closed(BEFORE_MS, AFTER_MS);
    alone.retain(|row| !row.id.starts_with("end-"));
    assert!(alone.len() > 1_100 && alone.iter().all(|row| row.r.is_none()), "{} rows", alone.len());
    settle(&stage, &alone, &mut [&mut weir]);
}

#[test]
fn windows_stay_open_at_the_end_unless_they_are_closed() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = stage("closed_windows", 2, "", &format!("{INTERVAL}, type: full"));
    let (mut left, mut right_side) = feeds(37);
    let mut produce = |count| {
        kafka.produce(&stage.name, &left.take(count));
        kafka.produce(&right(&stage.name), &right_side.take(count));
    };
    let until_end = |arguments: &[&str]| {
        let mut weir = stage.weir_with("a", arguments);
        assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
        stored(clickhouse, &stage.table())
    };
    produce(1_000);
    let open = topics(&stage).full_interval(BEFORE_MS, AFTER_MS);
    assert_same("open windows", &until_end(&["--until-end"]), &open);
    // The same rows, and everybody who still waited, alone.
    let closed = until_end(&["--until-end", "--close-windows"]);
    let gone: BTreeSet<Joined> = closed.iter().filter(|row| !open.contains(row)).cloned().collect();
    let all_alone = topics(&stage).full_interval_closed(BEFORE_MS, AFTER_MS);
    assert_same("closed windows", &closed, &all_alone);
    assert!(!gone.is_empty() && gone.iter().all(|row| row.l.is_none() || row.r.is_none()), "{gone:?}");
    // Who went out alone meets nobody any more; who has met somebody, and whoever comes, does.
    produce(1_000);
    let mut later = topics(&stage).without(&gone).full_interval(BEFORE_MS, AFTER_MS);
    later.extend(gone);
    assert_same("a later run", &until_end(&["--until-end"]), &later);
}

#[test]
fn sides_of_unequal_partition_counts_are_refused_with_both_numbers() {
    let kafka = Kafka::shared();
    let stage = stage("unequal_sides", 2, "", INTERVAL);
    kafka.add_partitions(&right(&stage.name), 3);
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let sentence = "topic `unequal_sides` has 2 partitions and `unequal_sides_right` has 3";
    assert!(weir.log().contains(sentence), "{}", weir.log());
}

#[test]
fn a_row_that_falls_behind_a_join_is_its_left_record_and_falls_once() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = stage("behind_a_join", 1, "", &format!("{INTERVAL}, type: left"));
    clickhouse.query(&format!("ALTER TABLE {} ADD COLUMN small UInt8", stage.table()));
    let record = |side: &str, id: &str, number: u64, small: u64, ts: i64| {
        let payload = format!(r#"{{"id":"{id}","{side}":{number},"small":{small},"ts":{ts}}}"#);
        TestRecord::new(payload).key(id).timestamp_ms(1_700_000_000_000 + ts)
    };
    let rights = [record("r", "a", 1, 0, 0), record("r", "a", 2, 0, 100), record("r", "b", 3, 0, 100)];
    kafka.produce(&right(&stage.name), &rights);
    // The first meets two and fits with neither, the second fits, the third is alone and does not.
    let lefts = [record("l", "a", 1, 256, 0), record("l", "b", 2, 255, 0), record("l", "c", 3, 300, 0)];
    kafka.produce(&stage.name, &lefts);
    kafka.produce(&stage.name, &[record("l", "end", 4, 0, 60_000)]);
    kafka.produce(&right(&stage.name), &[record("r", "end-r", 4, 0, 60_000)]);
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let joined = |id: &str, l, r| Joined { id: id.to_owned(), l, r };
    assert_same(&stage.name, &stored(clickhouse, &stage.table()), &[joined("b", Some(2), Some(3))]);
    let letters = stage.letters("a");
    let place =
        |letter: &serde_json::Value| (letter["topic"].as_str().unwrap().to_owned(), letter["offset"].as_i64().unwrap());
    let mut places: Vec<_> = letters.iter().map(place).collect();
    places.sort();
    assert_eq!(places, [(stage.name.clone(), 0), (stage.name.clone(), 2)], "{letters:#?}");
    assert!(letters.iter().all(|letter| letter["reason"] == "value_out_of_range"), "{letters:#?}");
}
