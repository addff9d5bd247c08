//! What a start says while it waits, what it refuses, and what the summary of a run shows.

use crate::stage::{ENGINE, Stage};
use crate::support::clickhouse::ClickHouse;
use crate::support::process::Process;
use crate::support::{PATIENCE, free_port, wait_for};

/// Starts weir, and waits until `/readyz` refuses with these words.
fn waiting(stage: &Stage, words: &str) -> Process {
    let mut weir = stage.start();
    let mut last = None;
    wait_for(&format!("/readyz to say `{words}`"), PATIENCE, || {
        weir.assert_running();
        last = stage.ready().or(last.take());
        last.as_ref().filter(|(status, text)| *status == 503 && text.contains(words)).map(|_| ())
    });
    weir
}

#[test]
fn a_start_that_waits_for_clickhouse_says_so_when_asked_and_goes_on() {
    let mut stage = Stage::new("waits_for_clickhouse");
    let mut clickhouse = ClickHouse::start();
    clickhouse.query(&format!("CREATE DATABASE {}", stage.name));
    clickhouse.query(&format!("CREATE TABLE {}.t (id Int64) {ENGINE}", stage.name));
    stage.clickhouse_url = clickhouse.url();
    clickhouse.kill();
    let mut weir = waiting(&stage, "waits_for_clickhouse is starting: ClickHouse cannot be reached");
    clickhouse.restart();
    wait_for("/readyz", PATIENCE, || stage.ready().filter(|(status, _)| *status == 200));
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}

#[test]
fn a_start_that_waits_for_kafka_says_so_when_asked() {
    let mut stage = Stage::without_topic("waits_for_kafka");
    stage.source = format!("kafka: {{ topic: t, brokers: [\"127.0.0.1:{}\"] }}", free_port());
    waiting(&stage, "waits_for_kafka is starting: ");
}

#[test]
fn a_plain_table_of_dead_letters_on_several_servers_is_refused_at_the_start() {
    let mut stage = Stage::new("letters_on_two");
    stage.sql(&format!("CREATE TABLE $.t (id Int64) {ENGINE}"));
    let url = stage.clickhouse_url.clone();
    stage.rest = format!("dead_letters: {{ clickhouse: {{ table: broken, urls: [\"{url}\", \"{url}/\"] }} }}");
    let fixed = stage.weir(&["check", "--connect", "--fix", "--yes"]);
    assert!(fixed.err.contains("CREATE TABLE"), "{}{}", fixed.out, fixed.err);
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("servers with plain tables share no window"), "{}", ran.err);
}

#[test]
fn the_summary_of_a_short_run_knows_what_the_state_takes() {
    let stage = Stage::new("short_run");
    stage.sql(&format!("CREATE TABLE $.t (id Int64) {ENGINE}"));
    stage.produce(&[r#"{"id":1}"#]);
    let ran = stage.weir(&["run", "--until-end", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let state = &ran.json()["pipelines"][0]["state_bytes"];
    for family in ["seen", "buffer", "outbox", "dead_letters"] {
        assert!(state[family].is_u64(), "{family}: {state}");
    }
}
