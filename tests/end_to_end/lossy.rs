//! Requests and answers that get lost, and a ClickHouse that is away for a while.

use crate::flow::{Flow, dice};
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::support::proxy::{Fate, Proxy};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn behind(proxy: &Proxy, stage: Stage) -> Stage {
    Stage { url: proxy.url(), ..stage }
}

#[test]
fn lost_requests_and_answers_cost_no_row_and_double_none() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let mut stage = behind(&proxy, Stage::new("lossy", kafka, clickhouse, 3));
    stage.batch = "rows: 100, interval: 200ms".to_owned();
    let mut dice = dice("lossy");
    let fates = [
        Fate::LoseRequest,
        Fate::LoseAnswer,
        Fate::LoseAnswer,
        Fate::CutRequest,
        Fate::Delay(Duration::from_millis(300)),
        Fate::Answer(503, "the gateway is busy"),
        Fate::Pass,
        Fate::Pass,
    ];
    proxy.next_inserts((0..100).map(|_| fates[dice.below(fates.len() as u64) as usize]).collect::<Vec<_>>());
    let flow = Flow::start(kafka, &stage.name, 1500, dice.below(u64::MAX));
    for life in 0..4 {
        let mut weir = stage.weir("a");
        if life == 0 {
            weir.wait_for_metric("weir_insert_retries_total", "", 3.0);
        }
        sleep(Duration::from_millis(1000 + dice.below(2000)));
        weir.kill();
    }
    flow.stop();
    let mut weir = stage.weir("a");
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
    println!("lossy: {} inserts, many of the first 100 with trouble", proxy.inserts());
}

#[test]
fn an_outage_is_waited_out_and_a_clean_stop_in_it_leaves_the_rest_for_the_next_start() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let stage = behind(&proxy, Stage::new("outage", kafka, clickhouse, 2));
    let flow = Flow::start(kafka, &stage.name, 800, 3);
    let mut weir = stage.weir("a");
    weir.wait_for_metric("weir_blocks_acknowledged_total", "", 5.0);
    proxy.outage(true);
    weir.wait_for_metric("weir_insert_retries_total", "", 4.0);
    let waiting = weir.metric("weir_outbox_blocks", "").unwrap();
    assert!(waiting > 0.0, "what is tried again waits in the outbox");
    let begun = Instant::now();
    weir.stop();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "a clean stop waits ten seconds for ClickHouse, not {took:?}");
    std::fs::remove_file(stage.log("a")).unwrap();
    let mut weir = stage.weir("a");
    weir.wait_for_log("ClickHouse cannot be reached");
    proxy.outage(false);
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
}
