//! Ends that somebody asks for: a second signal, and a twin on a copied directory.

use crate::disk::copy_folder;
use crate::flow::Flow;
use crate::oracle::settle;
use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::Kafka;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, wait_for};

#[test]
fn a_second_signal_ends_weir_at_once_and_loses_nothing() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxy = Proxy::start(&clickhouse.url());
    let stage = Stage { url: proxy.url(), ..Stage::new("second_signal", kafka, clickhouse, 2) };
    let flow = Flow::start(kafka, &stage.name, 800, 41);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut weir = stage.weir("a");
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", 3.0);
        // The first one waits for a ClickHouse that is away.
        proxy.outage(true);
        let sealed = weir.metric("weir_blocks_sealed_total", "").unwrap_or(0.0);
        weir.wait_for_metric("weir_blocks_sealed_total", "", sealed + 1.0);
        weir.signal(libc::SIGTERM);
        weir.wait_for_log("a second signal exits at once");
        weir.assert_running();
        weir.signal(signal);
        // A clean stop in an outage would end with 0.
        assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.log());
        proxy.outage(false);
        std::fs::remove_file(stage.log("a")).unwrap();
    }
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut stage.weir("a")]);
}

#[test]
fn of_two_processes_on_copies_of_one_directory_one_stops_with_that_sentence() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let stage = Stage::new("twins", kafka, clickhouse, 3);
    let flow = Flow::start(kafka, &stage.name, 1000, 42);
    let mut original = stage.weir("a");
    original.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
    original.kill();
    copy_folder(&stage.state("a"), &stage.state("b"));
    let mut original = stage.weir("a");
    let before = original.wait_for_metric("weir_blocks_acknowledged_total", "", 4.0);
    let mut twin = stage.weir("b");
    let loser_is_twin = wait_for("one of the twins to give up", PATIENCE, || {
        let ended = [&mut original, &mut twin].map(|weir| weir.has_ended());
        ended.contains(&true).then_some(ended[1])
    });
    let (loser, winner) = if loser_is_twin { (&mut twin, &mut original) } else { (&mut original, &mut twin) };
    assert_eq!(loser.wait(PATIENCE).code(), Some(1), "{}", loser.log());
    let sentence = "another process uses this pipeline's identity";
    assert!(loser.log().contains(sentence), "{}", loser.log());
    println!("twins: {} stopped; the original's first blocks took {before:?}", if loser_is_twin { "b" } else { "a" });
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [winner]);
}
