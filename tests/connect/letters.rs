//! Dead letters and the outbox through the command line, while weir runs and while it is stopped.

use crate::stage::{ENGINE, Ended, Stage};
use crate::support::clickhouse::ClickHouse;
use crate::support::{PATIENCE, wait_for};
use serde_json::Value;

/// Two broken records around a good one, in partition 0.
fn with_letters(name: &str) -> Stage {
    let stage = Stage::new(name);
    stage.sql(&format!("CREATE TABLE $.t (id UInt8) {ENGINE}"));
    stage.produce(&["{broken", r#"{"id":1}"#, r#"{"id":300}"#]);
    stage
}

fn ids(listed: &Ended) -> Vec<String> {
    let page = listed.json();
    let letters = page["dead_letters"].as_array().unwrap();
    letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

fn list(stage: &Stage, more: &[&str]) -> Ended {
    stage.weir(&[&["dead-letters", "list", "--format", "json"], more].concat())
}

#[track_caller]
fn judged(stage: &Stage) {
    let all = list(stage, &[]);
    assert_eq!(all.code, 0, "{}", all.err);
    assert_eq!(ids(&all), ["0-0", "0-1"]);
    assert_eq!(all.json()["total"], 2);
    let first = list(stage, &["--limit", "1"]);
    assert_eq!((ids(&first), first.json()["next"].as_str()), (vec!["0-0".to_owned()], Some("0-1")));
    assert_eq!(ids(&list(stage, &["--cursor", "0-1"])), ["0-1"]);
    assert_eq!(ids(&list(stage, &["--step", "sink"])), ["0-1"]);
    assert_eq!(ids(&list(stage, &["--step", "source"])), ["0-0"]);
    assert_eq!(ids(&list(stage, &["--to", "2020-01-01T00:00:00Z"])), Vec::<String>::new());
    let shown = stage.weir(&["dead-letters", "show", "0-1"]);
    assert!(shown.out.contains(r#"value      {"id":300}"#) && shown.out.contains("UInt8"), "{}", shown.out);
    let exported = stage.weir(&["dead-letters", "export"]);
    let lines: Vec<Value> = exported.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[0]["value"].as_str()), (2, Some("{broken")));
    let missing = stage.weir(&["dead-letters", "show", "7-7"]);
    assert_eq!((missing.code, missing.err.contains("there is no dead letter 7-7")), (1, true), "{}", missing.err);
    let deleted = stage.weir(&["dead-letters", "delete", "0-0"]);
    assert_eq!((deleted.code, deleted.err.contains("1 deleted")), (0, true), "{}", deleted.err);
    assert_eq!(ids(&list(stage, &[])), ["0-1"]);
    assert_eq!(stage.weir(&["dead-letters", "delete", "0-0"]).code, 1);
    let unnamed = stage.weir(&["dead-letters", "delete"]);
    assert!(unnamed.err.contains("name letters, give a filter, or --all"), "{}", unnamed.err);
    assert_eq!(stage.weir(&["dead-letters", "delete", "--all"]).code, 0);
    assert_eq!(ids(&list(stage, &[])), Vec::<String>::new());
}

#[test]
fn letters_are_listed_shown_exported_and_deleted_while_weir_is_stopped() {
    let stage = with_letters("letters_stopped");
    assert_eq!(stage.run_until_end().code, 0);
    judged(&stage);
}

#[test]
fn letters_are_listed_shown_exported_and_deleted_while_weir_runs() {
    let stage = with_letters("letters_running");
    let mut weir = stage.start();
    ClickHouse::shared().wait_for_answer("SELECT count() FROM letters_running.t", "1", PATIENCE);
    judged(&stage);
    let foreign = ureq::get(format!("http://127.0.0.1:{}/api/v1/pipelines/letters_running/dead-letters", stage.port))
        .header("Origin", "https://elsewhere.example")
        .config()
        .http_status_as_error(false)
        .build()
        .call()
        .unwrap();
    assert_eq!(foreign.status().as_u16(), 403);
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}

#[test]
fn a_pipeline_that_has_never_run_has_no_letters_to_show() {
    let stage = Stage::without_topic("never_ran");
    let listed = list(&stage, &[]);
    assert_eq!(listed.code, 1);
    assert!(listed.err.contains("the pipeline has not run with this directory yet"), "{}", listed.err);
    let blocks = stage.weir(&["outbox", "list", "--format", "json"]).json();
    assert_eq!(blocks["blocks"], serde_json::json!([]));
}

fn blocks(stage: &Stage) -> Vec<Value> {
    let listed = stage.weir(&["outbox", "list", "--format", "json"]);
    listed.json()["blocks"].as_array().unwrap_or_else(|| panic!("{}", listed.err)).clone()
}

#[test]
fn a_block_that_the_table_never_takes_is_discarded_and_the_rest_goes_on() {
    let mut server = ClickHouse::start();
    let mut stage = Stage::new("stuck");
    stage.clickhouse_url = server.url();
    server.query("CREATE DATABASE stuck");
    server.query(&format!("CREATE TABLE stuck.t (id Int64) {ENGINE}"));
    stage.produce(&[r#"{"id":1}"#]);
    let mut weir = stage.start();
    server.wait_for_answer("SELECT groupArray(id) FROM stuck.t", "[1]", PATIENCE);
    server.kill();
    stage.produce(&[r#"{"id":2}"#]);
    // The first epoch's block is there, too, until its acknowledgement is committed.
    let is_second = |block: &Value| block["token"].as_str().is_some_and(|token| token.contains("/2/0/stuck/t"));
    let block = wait_for("the second block in the outbox", PATIENCE, || {
        blocks(&stage).into_iter().find(|block| is_second(block))
    });
    let token = block["token"].as_str().unwrap().to_owned();
    let running = stage.weir(&["outbox", "discard", &token]);
    assert_eq!(running.code, 1);
    assert!(running.err.contains("may be in the table already") && running.err.contains("--force"), "{}", running.err);
    weir.terminate(PATIENCE);

    let listed = blocks(&stage);
    assert_eq!((listed.len(), listed[0]["standing"].as_str()), (1, Some("unclear")), "{listed:?}");
    let file = stage.folder.path().join("block.native");
    let exported = stage.weir(&["outbox", "export", &token, "--to", file.to_str().unwrap()]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    assert!(std::fs::read(&file).unwrap().windows(5).any(|bytes| bytes == b"Int64"));
    let refused = stage.weir(&["outbox", "discard", &token]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("may be in the table already") && refused.err.contains("--force"), "{}", refused.err);
    let discarded = stage.weir(&["outbox", "discard", &token, "--force"]);
    assert_eq!(discarded.code, 0, "{}", discarded.err);
    assert!(discarded.err.contains("block discarded"), "it is in the log: {}", discarded.err);
    assert_eq!(blocks(&stage), Vec::<Value>::new());

    server.restart();
    stage.produce(&[r#"{"id":3}"#]);
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(server.query("SELECT groupArray(id) FROM (SELECT id FROM stuck.t ORDER BY id)"), "[1,3]");
}

#[test]
fn a_block_is_discarded_while_weir_runs_and_the_rest_goes_on() {
    let mut server = ClickHouse::start();
    let mut stage = Stage::new("stuck_running");
    stage.clickhouse_url = server.url();
    server.query("CREATE DATABASE stuck_running");
    server.query(&format!("CREATE TABLE stuck_running.t (id Int64) {ENGINE}"));
    stage.produce(&[r#"{"id":1}"#]);
    let mut weir = stage.start();
    server.wait_for_answer("SELECT groupArray(id) FROM stuck_running.t", "[1]", PATIENCE);
    server.kill();
    stage.produce(&[r#"{"id":2}"#]);
    let is_second = |block: &Value| block["token"].as_str().is_some_and(|token| token.contains("/2/0/stuck_running/t"));
    let block = wait_for("the second block in the outbox", PATIENCE, || {
        blocks(&stage).into_iter().find(|block| is_second(block))
    });
    let token = block["token"].as_str().unwrap().to_owned();
    let discarded = stage.weir(&["outbox", "discard", &token, "--force"]);
    assert_eq!((discarded.code, discarded.err.contains("discarded: 1 rows")), (0, true), "{}", discarded.err);
    let again = stage.weir(&["outbox", "discard", &token, "--force"]);
    assert_eq!((again.code, again.err.contains("there is no block")), (1, true), "{}", again.err);
    assert!(stage.metrics().contains(r#"weir_blocks_discarded_total{pipeline="stuck_running"} 1"#));
    server.restart();
    stage.produce(&[r#"{"id":3}"#]);
    server.wait_for_answer(
        "SELECT groupArray(id) FROM (SELECT id FROM stuck_running.t ORDER BY id)",
        "[1,3]",
        PATIENCE,
    );
    let ledger = wait_for("the last row in the books", PATIENCE, || {
        let ledger = stage.get("/api/v1/pipelines/stuck_running/ledger");
        (ledger["partitions"][0]["written"] == 2).then_some(ledger)
    });
    assert_eq!((&ledger["balanced"], &ledger["partitions"][0]["discarded"]), (&true.into(), &1.into()), "{ledger}");
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}

/// A table that takes numbers up to 255, and three records, two of which do not fit.
fn with_large_numbers(name: &str) -> Stage {
    let stage = Stage::new(name);
    stage.sql(&format!("CREATE TABLE $.t (id UInt8) {ENGINE}"));
    stage.produce(&[r#"{"id":1}"#, r#"{"id":300}"#, "{broken", r#"{"id":301}"#]);
    stage
}

fn all_ids(name: &str) -> String {
    format!("SELECT groupArray(id) FROM (SELECT id FROM {name}.t ORDER BY id)")
}

#[test]
fn letters_come_through_once_the_table_is_mended_and_what_fails_again_stays() {
    let name = "replayed";
    let mut stage = with_large_numbers(name);
    stage.rest = "steps: [ { dedup: { key: id, window: 24h } } ]".to_owned();
    let clickhouse = ClickHouse::shared();
    let mut weir = stage.start();
    clickhouse.wait_for_answer(&all_ids(name), "[1]", PATIENCE);
    wait_for("the letters", PATIENCE, || (ids(&list(&stage, &[])).len() == 3).then_some(()));
    let unmended = stage.weir(&["dead-letters", "replay", "0-0"]);
    assert!(unmended.code == 0 && unmended.err.contains("0 replayed; 1 failed again"), "{}", unmended.err);
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());

    let stopped = stage.weir(&["dead-letters", "replay", "--all"]);
    assert_eq!(stopped.code, 1);
    assert!(stopped.err.contains("partition 0 of pipeline `replayed` does not run"), "{}", stopped.err);
    stage.sql("ALTER TABLE $.t MODIFY COLUMN id UInt16");
    let mut weir = stage.start();
    let replayed = wait_for("the partition to run", PATIENCE, || {
        let replayed = stage.weir(&["dead-letters", "replay", "--all"]);
        (replayed.code == 0).then_some(replayed)
    });
    assert!(replayed.err.contains("2 replayed; 1 failed again"), "{}", replayed.err);
    assert_eq!(stage.sql(&all_ids(name).replace(name, "$")), "[1,300,301]");
    let left = list(&stage, &[]);
    assert_eq!(ids(&left), ["0-1"]);
    assert_eq!(left.json()["dead_letters"][0]["value"], "{broken");
    let unknown = stage.weir(&["dead-letters", "replay", "0-0"]);
    assert_eq!((unknown.code, unknown.err.contains("there is no dead letter 0-0")), (1, true), "{}", unknown.err);
    let unnamed = stage.weir(&["dead-letters", "replay"]);
    assert!(unnamed.err.contains("name letters, give a filter, or --all"), "{}", unnamed.err);
    let ledger = stage.get(&format!("/api/v1/pipelines/{name}/ledger"));
    assert_eq!(
        (ledger["balanced"].as_bool(), ledger["partitions"][0]["written"].as_u64()),
        (Some(true), Some(3)),
        "{ledger}"
    );
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}

#[test]
fn a_replay_that_is_killed_at_any_moment_comes_through_once() {
    let name = "replay_killed";
    let stage = Stage::new(name);
    stage.sql(&format!("CREATE TABLE $.t (id UInt8) {ENGINE}"));
    let records: Vec<String> = (0..400).map(|id| format!(r#"{{"id":{}}}"#, 1_000 + id)).collect();
    stage.produce(&records.iter().map(String::as_str).collect::<Vec<_>>());
    let mut weir = stage.start();
    // Before its directory is made there is nothing to list.
    let total =
        || Some(list(&stage, &[])).filter(|listed| listed.code == 0).map(|listed| listed.json()["total"].clone());
    wait_for("the letters", PATIENCE, || total().filter(|total| *total == 400));
    weir.terminate(PATIENCE);
    stage.sql("ALTER TABLE $.t MODIFY COLUMN id UInt16");
    let replay = format!("/api/v1/pipelines/{name}/dead-letters/replay?limit=40");
    // The last one is waited for.
    for wait_ms in [0, 40, 80, 120, 160, 200, PATIENCE.as_millis() as u64] {
        let mut weir = stage.start();
        wait_for("the partition to run", PATIENCE, || stage.post(&replay, wait_ms).then_some(()));
        weir.kill();
    }
    let left = total().and_then(|total| total.as_u64()).expect("the letters are counted");
    assert!((120..=360).contains(&left), "{left} letters are left of 400, of which at most 280 were to be replayed");
    let mut weir = stage.start();
    wait_for("the rest", PATIENCE, || {
        stage.weir(&["dead-letters", "replay", "--all"]);
        total().filter(|total| *total == 0)
    });
    assert_eq!(stage.sql("SELECT (count(), uniqExact(id)) FROM $.t"), "(400,400)");
    assert!(weir.terminate(PATIENCE).success(), "{}", weir.log_end());
}
