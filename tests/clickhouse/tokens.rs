//! A token counts once: in the table, behind its views, over partitions, whatever happens between the attempts.

use crate::fixture::{Database, ENGINE};
use weir::sink::{Sink, Token};

fn token(text: &str) -> Token {
    Token(text.to_owned())
}

#[tokio::test]
async fn the_same_token_counts_once_and_another_one_again() {
    let database = Database::new("test_tokens");
    let table = database.table("id UInt32").await;
    let sink = table.sink();
    let (block, _) = table.encode(&[r#"{"id":1}"#, r#"{"id":2}"#]);
    let block = block.unwrap();
    let name = "weir1/my%2Fpipe/0/00112233/7/0/db/t";
    sink.insert(&token(name), &block).await.unwrap();
    sink.insert(&token(name), &block).await.unwrap();
    table.sink().insert(&token(name), &block).await.unwrap();
    assert_eq!(database.run("SELECT count() FROM $.t"), "2");
    sink.insert(&token("other"), &block).await.unwrap();
    assert_eq!(database.run("SELECT count() FROM $.t"), "4");
}

#[tokio::test]
async fn a_block_over_many_partitions_counts_once() {
    let database = Database::new("test_partitions");
    let by_id = ENGINE.replace("ORDER BY", "PARTITION BY id % 150 ORDER BY").replace("= 10000", "= 100000");
    database.run(&format!("CREATE TABLE $.t (id UInt32) {by_id}"));
    let table = database.open("t").await;
    let records: Vec<String> = (0..450).map(|at| format!("{{\"id\":{at}}}")).collect();
    table.insert("p", &records).await;
    table.insert("p", &records).await;
    assert_eq!(database.run("SELECT count() FROM $.t"), "450");
}

#[tokio::test]
async fn views_behind_the_table_count_once_when_their_targets_have_a_window() {
    let database = Database::new("test_views");
    database.run(&format!("CREATE TABLE $.t (id UInt32) {ENGINE}"));
    database.run("CREATE TABLE $.sums (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple()");
    database.run("CREATE MATERIALIZED VIEW $.mv TO $.sums AS SELECT id AS n FROM $.t");
    database.run("CREATE MATERIALIZED VIEW $.inner ENGINE = MergeTree ORDER BY n AS SELECT n FROM $.sums");
    let report = database.inspect("t").await;
    let fixes: Vec<_> = report.problems.iter().map(|problem| problem.fix_sql.clone().unwrap()).collect();
    assert_eq!(fixes.len(), 2, "{:?}", report.problems);
    assert!(report.problems[0].message.contains("`sums`") && report.problems[0].message.contains(".mv"));
    for fix in &fixes {
        database.engine.query(fix);
    }
    let table = database.open("t").await;
    for _ in 0..2 {
        table.insert("v", &[r#"{"id":3}"#, r#"{"id":4}"#]).await;
    }
    assert_eq!(
        database.run("SELECT (SELECT sum(id) FROM $.t), (SELECT sum(n) FROM $.sums), (SELECT sum(n) FROM $.inner)"),
        "7\t7\t7"
    );
}

#[tokio::test]
async fn the_table_says_which_offsets_it_holds() {
    let database = Database::new("test_offsets");
    let table = database.table("id UInt32, _topic LowCardinality(String), _partition Int32, _offset Int64").await;
    let record = |offset: i64| format!("{{\"id\":1,\"_topic\":\"it's\",\"_partition\":3,\"_offset\":{offset}}}");
    table.insert("o", &[record(5), record(6), record(9)]).await;
    let sink = table.sink();
    assert_eq!(sink.holds_offsets("it's", 3, 5, 9).await, Ok(Some(2)));
    assert_eq!(sink.holds_offsets("it's", 2, 5, 9).await, Ok(Some(0)));
    let other = Database::new("test_no_offsets");
    let table = other.table("id UInt32").await;
    assert_eq!(table.sink().holds_offsets("t", 0, 0, 1).await, Ok(None));
}
