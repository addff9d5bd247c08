//! A plan that changes while blocks of the former one wait: they go out as they are, then the new plan takes over.

use crate::flow::{Events, Flow};
use crate::oracle::{Row, assert_same, deduplicated, settle_with, stored};
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, wait_for};
use crate::weir::Weir;

/// Kills weir while blocks are stored and not delivered.
fn killed_with_blocks(proxy: &Proxy, weir: &mut Weir) {
    proxy.outage(true);
    weir.wait_for_metric("weir_outbox_blocks", "", 4.0);
    weir.kill();
    proxy.outage(false);
}

fn of_topic(topic: &str) -> Vec<Row> {
    deduplicated(&Kafka::shared().read_all(topic), None)
}

#[test]
fn an_input_more_and_then_one_less_takes_over_behind_the_blocks_that_wait() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let name = "inputs_change";
    kafka.create_topic("inputs_change_more", 2);
    let mut stage = Stage {
        url: proxy.url(),
        batch: "rows: 100, interval: 200ms".to_owned(),
        ..Stage::new(name, kafka, clickhouse, 2)
    };
    let flow = Flow::go_on(kafka, name, 800, Events::new(51).named("own-"));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
    killed_with_blocks(&proxy, &mut weir);

    let more = Flow::go_on(kafka, "inputs_change_more", 800, Events::new(52).named("more-"));
    stage.topics = "topics: [inputs_change, inputs_change_more]".to_owned();
    let mut weir = stage.weir("a");
    wait_for("rows of the second topic", PATIENCE, || {
        weir.assert_running();
        let count = clickhouse.try_query("SELECT count() FROM inputs_change.t WHERE id LIKE 'more-%'").ok()?;
        (count.parse::<u64>().ok()? > 500).then_some(())
    });
    killed_with_blocks(&proxy, &mut weir);

    stage.topics = "topic: inputs_change".to_owned();
    let mut weir = stage.weir("a");
    flow.stop();
    more.stop();
    wait_for("the rows of the first topic", PATIENCE, || {
        weir.assert_running();
        let count = clickhouse.try_query("SELECT count() FROM inputs_change.t WHERE id LIKE 'own-%'").ok()?;
        (count.parse::<usize>().ok()? >= of_topic(name).len()).then_some(())
    });
    weir.stop();
    let (own, of_more): (Vec<Row>, Vec<Row>) =
        stored(clickhouse, &stage.table()).into_iter().partition(|row| row.id.starts_with("own-"));
    assert_same(name, &own, &of_topic(name));
    // Of the other topic there is what was read before it was taken out: the first of each partition, each once.
    let mut expected = of_topic("inputs_change_more");
    let reached = |partition| of_more.iter().filter(|row| row.partition == partition).map(|row| row.offset).max();
    let reached = [reached(0), reached(1)];
    expected.retain(|row| reached[row.partition as usize].is_some_and(|last| row.offset <= last));
    assert_same("inputs_change_more", &of_more, &expected);
    assert!(weir.whole_log().contains(r#"case="replanned""#), "{}", weir.log());
}

#[test]
fn blocks_of_a_former_table_wait_for_it_and_say_so() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let mut stage = Stage { url: proxy.url(), ..Stage::new("former_table", kafka, clickhouse, 1) };
    clickhouse.query("CREATE TABLE former_table.other AS former_table.t");
    kafka.produce(&stage.name, &Events::new(53).take(500));
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
    proxy.outage(true);
    kafka.produce(&stage.name, &Events::new(54).named("more-").take(500));
    weir.wait_for_metric("weir_outbox_blocks", "", 1.0);
    weir.kill();
    proxy.outage(false);
    stage.table = "other".to_owned();
    let mut weir = stage.weir("a");
    weir.wait_for_log("is for a table that this pipeline does not write any more");
    assert_eq!(clickhouse.query("SELECT count() FROM former_table.other").trim(), "0");
    weir.kill();
    stage.table = "t".to_owned();
    let mut weir = stage.weir("a");
    settle_with(clickhouse, &stage, &of_topic(&stage.name), &mut [&mut weir]);
}

#[test]
fn a_key_that_comes_through_two_partitions_is_said_once() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("scattered", kafka, clickhouse, 2);
    let record = |id: &str, seq: u64| {
        let payload = format!(r#"{{"id":"{id}","seq":{seq},"ts":1}}"#);
        TestRecord::new(payload).key(id)
    };
    kafka.produce(&stage.name, &[record("a", 1).partition(0), record("b", 2).partition(1)]);
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_rows_written_total", "", 2.0);
    assert_eq!(weir.metric("weir_scattered_keys", "step=\"0\""), Some(0.0));
    kafka.produce(&stage.name, &[record("a", 3).partition(1), record("b", 4).partition(0)]);
    weir.wait_for_metric("weir_scattered_keys", "step=\"0\"", 1.0);
    weir.stop();
    assert_eq!(weir.whole_log().matches("the same key of step 0 (dedup) has come through").count(), 1);
}
