//! ClickHouse goes away and comes back, and what was promised decides what happens to the block between.

use crate::stage::Stage;
use crate::support::clickhouse::ClickHouse;
use crate::support::{PATIENCE, wait_for};

/// A table that remembers no block: what is unclear is sent again, and nobody has to come.
#[test]
fn at_least_once_sends_again_after_an_outage() {
    let mut server = ClickHouse::start();
    let mut stage = Stage::new("least_once");
    stage.clickhouse_url = server.url();
    server.query("CREATE DATABASE least_once");
    server.query("CREATE TABLE least_once.t (id Int64, _topic String, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY id");
    stage.rest = "delivery: at_least_once".to_owned();
    stage.produce(&[r#"{"id":1}"#]);
    let mut weir = stage.start();
    server.wait_for_answer("SELECT groupArray(id) FROM least_once.t", "[1]", PATIENCE);
    server.kill();
    stage.produce(&[r#"{"id":2}"#, r#"{"id":3}"#]);
    wait_for("an attempt that failed", PATIENCE, || {
        weir.log().contains("insert not acknowledged, trying again").then_some(())
    });
    // As if an attempt had brought a part of the block.
    server.restart();
    server.query("INSERT INTO least_once.t VALUES (2, 'least_once', 0, 1)");
    let distinct = "SELECT groupUniqArray(id) FROM (SELECT id FROM least_once.t ORDER BY id)";
    wait_for("all rows", PATIENCE, || (server.query(distinct).len() == "[1,2,3]".len()).then_some(()));
    assert!(!weir.log().contains("on_unclear"), "{}", weir.log_end());
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}
