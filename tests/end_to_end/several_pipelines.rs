//! Several pipelines in one process: they share workers and memory, and one that fails leaves the others alone.

use crate::flow::{Events, Flow, dice};
use crate::oracle::{assert_same, deduplicated, settle, stored, wait_for_rows};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use std::thread::sleep;
use std::time::Duration;

/// A stage whose file holds the pipelines of the others, too.
fn together(name: &str, others: &[&Stage]) -> Stage {
    let stage = Stage::new(name, Kafka::shared(), ClickHouse::shared(), 2);
    Stage { neighbours: others.iter().map(|other| other.pipeline()).collect(), ..stage }
}

fn assert_as_the_oracle(stage: &Stage) {
    let expected = deduplicated(&Kafka::shared().read_all(&stage.name), None);
    assert_same(&stage.name, &stored(ClickHouse::shared(), &stage.table()), &expected);
}

#[test]
fn a_pipeline_that_fails_leaves_the_others_at_work_across_kills() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let second = Stage::new("neighbour_good", kafka, clickhouse, 3);
    // One cannot start, one fails on the way.
    let absent = Stage::bare("neighbour_absent", kafka, clickhouse);
    let grows = Stage::new("neighbour_grows", kafka, clickhouse, 1);
    let stage = together("neighbours", &[&second, &absent, &grows]);
    let mut dice = dice("neighbours");
    let flows = [&stage, &second, &grows].map(|stage| Flow::start(kafka, &stage.name, 500, dice.below(u64::MAX)));
    for _ in 0..4 {
        let mut weir = stage.weir("a");
        for name in ["neighbours", "neighbour_good", "neighbour_grows"] {
            weir.wait_for_metric("weir_blocks_acknowledged_total", &format!("pipeline=\"{name}\""), 1.0);
        }
        sleep(Duration::from_millis(dice.below(500)));
        weir.kill();
    }
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "pipeline=\"neighbour_grows\"", 1.0);
    kafka.add_partitions("neighbour_grows", 2);
    for failed in ["neighbour_absent", "neighbour_grows"] {
        let of = format!("pipeline=\"{failed}\",state=\"failed\"");
        weir.wait_for_metric("weir_pipeline_up", &of, 1.0);
    }
    let (status, why) = weir.get("/readyz").expect("it answers");
    assert!(status == 503 && why.contains("neighbour_absent"), "{status} {why}");
    // The others get on, also with what comes now.
    flows.into_iter().for_each(|flow| drop(flow.stop()));
    kafka.produce(&stage.name, &Events::new(31).named("after-").take(500));
    for good in [&stage, &second] {
        let expected = deduplicated(&kafka.read_all(&good.name), None);
        wait_for_rows(clickhouse, good, expected.len(), &mut [&mut weir]);
    }
    assert_eq!(weir.terminate().code(), Some(1), "a pipeline had failed:\n{}", weir.log());
    [&stage, &second].into_iter().for_each(assert_as_the_oracle);
    let log = weir.whole_log();
    assert!(log.contains("topic `neighbour_absent` does not exist"), "{log}");
    assert!(log.contains("`neighbour_grows` grew from 1 to 2 partitions"), "{log}");
}

#[test]
fn a_process_with_no_pipeline_left_ends_with_1() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let others = ["nobody_1", "nobody_2"].map(|name| Stage::bare(name, kafka, clickhouse));
    let stage = Stage { neighbours: others[1].pipeline(), ..Stage::bare("nobody_1", kafka, clickhouse) };
    let mut weir = stage.weir("a");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
    let log = weir.whole_log();
    assert!(others.iter().all(|other| log.contains(&format!("topic `{}` does not exist", other.name))), "{log}");
}

#[test]
fn only_the_pipelines_that_are_named_run() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let other = Stage::new("not_picked", kafka, clickhouse, 1);
    let stage = together("picked", &[&other]);
    [&stage, &other].into_iter().for_each(|stage| kafka.produce(&stage.name, &Events::new(32).take(300)));
    let mut weir = stage.weir_with("a", &["--pipeline", "picked", "--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    assert_as_the_oracle(&stage);
    assert_eq!(stored(clickhouse, &other.table()), []);
    let mut weir = stage.weir_with("a", &["--pipeline", "pickd"]);
    assert_eq!(weir.wait(PATIENCE).code(), Some(1));
    assert!(weir.log().contains("it has: picked, not_picked"), "{}", weir.log());
}

#[test]
fn pipelines_share_the_memory_and_those_that_do_not_fit_are_refused_with_the_sum() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    // So many tasks need a longer memory of the table, or rarer blocks.
    let batch = "rows: 2000, interval: 2s".to_owned();
    let other = Stage { batch, ..Stage::new("large_share", kafka, clickhouse, 60) };
    let stage = Stage { memory_limit: "256MiB".to_owned(), ..together("small_share", &[&other]) };
    let flow = Flow::start(kafka, &stage.name, 500, 33);
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_pipeline_up", "pipeline=\"large_share\",state=\"failed\"", 1.0);
    assert!(weir.whole_log().contains("60 tasks need at least"), "{}", weir.log());
    weir.wait_for_metric("weir_blocks_acknowledged_total", "pipeline=\"small_share\"", 1.0);
    assert!(weir.whole_log().contains("memory: 2 tasks"), "{}", weir.log());
    flow.stop();
    let expected = deduplicated(&kafka.read_all(&stage.name), None);
    wait_for_rows(clickhouse, &stage, expected.len(), &mut [&mut weir]);
    assert_eq!(weir.terminate().code(), Some(1), "{}", weir.log());
    assert_as_the_oracle(&stage);
    // Alone, and with more, the large one runs.
    kafka.produce(&other.name, &Events::new(34).take(600));
    let alone = Stage { memory_limit: "2GiB".to_owned(), ..other };
    settle(kafka, clickhouse, &alone, None, &mut [&mut alone.weir("a")]);
}
