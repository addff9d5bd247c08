//! Tables that weir makes: from a sample, and with columns for new fields.

use crate::stage::{ENGINE, Stage};

#[test]
fn a_missing_table_is_shown_by_check_and_created_by_the_start() {
    let mut stage = Stage::new("created");
    stage.sink = "table: t, create_table: { order_by: [id] }".to_owned();
    stage.produce(&[r#"{"id":1,"user":{"name":"ann"},"price":1.5}"#, r#"{"id":2,"at":"2026-01-01T00:00:00Z"}"#]);

    let checked = stage.check();
    assert_eq!(checked.code, 0, "{}", checked.out);
    let report = checked.json();
    let note = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["code"] == "creates_table")
        .unwrap()
        .clone();
    assert!(note["help"].as_str().unwrap().contains("CREATE TABLE IF NOT EXISTS `created`.`t`"), "{note}");
    assert_eq!(stage.sql("EXISTS TABLE $.t"), "0", "check only looks");

    let ran = stage.run_until_end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("CREATE TABLE IF NOT EXISTS"), "the statement is in the log: {}", ran.err);
    assert_eq!(stage.sql("SELECT id, `user.name`, price FROM $.t ORDER BY id FORMAT TSV"), "1\tann\t1.5\n2\t\\N\t\\N");
}

#[test]
fn the_sample_of_a_created_table_goes_through_the_select() {
    let mut stage = Stage::new("selected");
    stage.sink = "table: t, create_table: { order_by: [id] }".to_owned();
    stage.rest =
        "steps: [ { filter: \"id > 1\" }, { select: { id: id, twice: price * 2.0, name: user.name } } ]".to_owned();
    stage.produce(&[r#"{"id":1,"price":1.5}"#, r#"{"id":2,"user":{"name":"bob"},"price":2.5,"spare":true}"#]);
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        stage.sql("SELECT * FROM $.t FORMAT TSVWithNamesAndTypes"),
        "id\ttwice\tname\nInt64\tNullable(Float64)\tNullable(String)\n2\t5\tbob"
    );
}

#[test]
fn an_order_by_that_no_record_has_stops_the_start() {
    let mut stage = Stage::new("no_order");
    stage.sink = "table: t, create_table: { order_by: [nosuch] }".to_owned();
    stage.produce(&[r#"{"id":1}"#]);
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("`order_by` names `nosuch`, which none of the 1 sampled records has"), "{}", ran.err);
    assert_eq!(stage.sql("EXISTS TABLE $.t"), "0");
}

#[test]
fn evolve_adds_columns_for_new_fields_at_the_start() {
    let mut stage = Stage::new("evolves");
    stage.sql(&format!("CREATE TABLE $.t (id Int64) {ENGINE}"));
    stage.sink = "table: t, evolve: add_columns".to_owned();
    stage.produce(&[r#"{"id":1,"country":"DE"}"#]);
    let report = stage.check().json();
    let note = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["code"] == "adds_columns")
        .unwrap()
        .clone();
    assert!(note["help"].as_str().unwrap().contains("ADD COLUMN IF NOT EXISTS `country`"), "{note}");
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(stage.sql("SELECT id, country FROM $.t FORMAT TSV"), "1\tDE");
}

#[test]
fn a_missing_table_fails_its_pipeline_with_the_sentence() {
    let stage = Stage::new("fails");
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("table `fails`.`t` does not exist") && ran.err.contains("set `create_table`"),
        "{}",
        ran.err
    );
}

#[test]
fn a_missing_topic_fails_its_pipeline_with_the_sentence() {
    let stage = Stage::without_topic("no_topic");
    stage.sql(&format!("CREATE TABLE $.t (id Int64) {ENGINE}"));
    let ran = stage.run_until_end();
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("topic `no_topic` does not exist: create it, weir never does"), "{}", ran.err);
}
