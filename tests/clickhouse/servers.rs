//! What the server refuses, what it does not know, and where to turn when it cannot.

use crate::fixture::{Database, ENGINE, LOAD, connection, errors};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use weir::config::plan::DeliveryGuarantee;
use weir::error::Kind;
use weir::sink::clickhouse::client::Client;
use weir::sink::clickhouse::mapping::PINNED;
use weir::sink::clickhouse::schema::{read_server, read_view_targets};
use weir::sink::clickhouse::table::{self, Load};
use weir::sink::{NOT_SENT, Sink, Token};

/// A server that gives one answer to whatever it is asked, for as long as the test runs.
fn always(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let mut request = [0; 1 << 16];
            let _ = stream.read(&mut request);
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            // What is still coming in is read, or the answer could be lost with it.
            while stream.read(&mut request).is_ok_and(|len| len > 0) {}
        }
    });
    url
}

/// Its answer says that it did not work, and the block may be there all the same: the engine writes table and view side
/// by side, so it takes a few tries to see that.
#[tokio::test]
async fn a_block_that_a_view_refuses_may_be_in_the_table() {
    let database = Database::new("test_throwing_view");
    database.run(&format!("CREATE TABLE $.t (id UInt32) {ENGINE}"));
    database.run(&format!("CREATE TABLE $.target (id UInt32) {ENGINE}"));
    database.run("CREATE MATERIALIZED VIEW $.mv TO $.target AS SELECT throwIf(id >= 7, 'no') + id AS id FROM $.t");
    let table = database.open("t").await;
    let sink = table.sink();
    for id in 7..507 {
        let (block, _) = table.encode(&[format!("{{\"id\":{id}}}")]);
        let (token, block) = (Token(format!("v{id}")), block.unwrap());
        let refused = sink.insert(&token, &block).await.unwrap_err();
        assert_eq!((refused.kind, refused.code.as_str()), (Kind::Stop, "395"));
        assert_ne!(refused.code, NOT_SENT);
        if database.run("SELECT count() FROM $.t") == "0" {
            continue;
        }
        database.run("DROP VIEW $.mv");
        database.run("CREATE MATERIALIZED VIEW $.mv TO $.target AS SELECT id FROM $.t");
        sink.insert(&token, &block).await.unwrap();
        assert_eq!(database.run("SELECT count(), (SELECT count() FROM $.target) FROM $.t"), "1\t1");
        return;
    }
    panic!("in 500 tries the engine has stored none of the blocks that it refused");
}

/// Tasks share the sink: what one block has met says nothing of another one.
#[tokio::test]
async fn errors_that_nobody_knows_are_counted_by_block() {
    let database = Database::new("test_doubtful");
    database.run(&format!("CREATE TABLE $.t (id UInt32) {ENGINE}"));
    database.run(&format!("CREATE TABLE $.target (id UInt32) {ENGINE}"));
    database.run(
        "CREATE MATERIALIZED VIEW $.mv TO $.target AS \
         SELECT throwIf(id = 7, 'odd', toInt16(12345)) + id AS id FROM $.t \
         SETTINGS allow_custom_error_code_in_throwif = 1",
    );
    let mut table = database.open("t").await;
    table.plan.settings = [("allow_custom_error_code_in_throwif".to_owned(), "1".to_owned())].into();
    let (block, _) = table.encode(&[r#"{"id":7}"#]);
    let (sink, block) = (table.sink(), block.unwrap());
    let attempt = async |token: &str| sink.insert(&Token(token.to_owned()), &block).await.unwrap_err();
    for _ in 0..19 {
        let error = attempt("a").await;
        assert_eq!((error.kind, error.code.as_str()), (Kind::Retry, "12345"), "{error}");
    }
    assert_eq!(attempt("b").await.kind, Kind::Retry);
    let last = attempt("a").await;
    assert!(last.kind == Kind::Stop && last.message.contains("(20 times in a row)"), "{last}");
}

#[tokio::test]
async fn a_server_that_cannot_do_it_now_is_left_for_the_next_one() {
    let database = Database::new("test_left_server");
    let records = [r#"{"id":1}"#];
    database.run("CREATE TABLE $.t (id UInt32) ENGINE = MergeTree ORDER BY id");
    for (at, (status, body)) in [
        ("500 Internal Server Error", "Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)"),
        ("500 Internal Server Error", "Code: 225. DB::Exception: No ZooKeeper. (NO_ZOOKEEPER)"),
        ("503 Service Unavailable", "Code: 745. DB::Exception: Overloaded. (SERVER_OVERLOADED)"),
        ("502 Bad Gateway", "<h1>Error Code: 60. DB::Exception</h1>"),
        ("504 Gateway Timeout", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let urls = [always(status, body), database.engine.url()];
        let client = Arc::new(Client::new(&connection(&urls, &database.name)).unwrap());
        assert!(!read_server(&client).await.unwrap().settings.is_empty(), "{body}");
        assert_eq!(client.url(), urls[1], "{body}");

        let client = Arc::new(Client::new(&connection(&urls, &database.name)).unwrap());
        let table =
            Database { client, name: database.name.clone(), engine: database.engine }.open_at_least_once("t").await;
        let (block, _) = table.encode(&records);
        let (sink, token) = (table.sink(), Token(format!("f{at}")));
        sink.insert(&token, &block.unwrap()).await.unwrap();
    }
    assert_eq!(database.run("SELECT count() FROM $.t"), "5");
}

#[tokio::test]
async fn an_attempt_that_failed_at_one_url_goes_to_the_next() {
    let database = Database::new("test_next_url");
    let good = database.table("id UInt32").await;
    let (block, _) = good.encode(&[r#"{"id":1}"#]);
    let block = block.unwrap();
    let urls = [always("500 Internal Server Error", "Code: 242. DB::Exception: readonly"), database.engine.url()];
    let client = Client::new(&connection(&urls, &database.name)).unwrap();
    let statement = format!("INSERT INTO {}.t (id) FORMAT Native", database.name);
    let settings = [("decompress".to_owned(), "1".to_owned())];
    let wait = Duration::from_secs(30);
    let failed = client.insert(&statement, &settings, block.body.clone(), wait).await.unwrap_err();
    assert_eq!(failed.code, "242");
    client.insert(&statement, &settings, block.body.clone(), wait).await.unwrap();
    assert_eq!(database.run("SELECT count() FROM $.t"), "1");
}

#[tokio::test]
async fn settings_that_the_server_does_not_know_are_findings() {
    let database = Database::new("test_unknown_settings");
    let mut table = database.table("id UInt32").await;
    let user = [("max_memory_usag", "1"), ("insert_quorum", "0"), ("quota_key", "k"), ("SQL_own", "1")];
    table.plan.settings = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (_, _, problems) = table.map();
    let said = errors(&problems);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("no setting `max_memory_usag` (did you mean `max_memory_usage`?)"), "{said:?}");
}

/// A profile of the server, or the user's own settings, must not change what an INSERT means.
#[tokio::test]
async fn pinned_settings_win_over_the_users() {
    let database = Database::new("test_pinned");
    let mut table = database.table("id UInt32, d UInt8 DEFAULT id + 1").await;
    let other = |value: &str| if value == "0" { "1" } else { "0" }.to_owned();
    table.plan.settings = PINNED.iter().map(|(name, value)| ((*name).to_owned(), other(value))).collect();
    table.plan.settings.insert("min_insert_block_size_rows".to_owned(), "1".to_owned());
    table.plan.settings.insert("deduplicate_insert".to_owned(), "disable".to_owned());
    for _ in 0..2 {
        table.insert("p", &[r#"{"id":1}"#, r#"{"id":2,"d":9}"#]).await;
    }
    assert_eq!(database.run("SELECT id, d FROM $.t ORDER BY id FORMAT TSVRaw"), "1\t2\n2\t9");
    for (name, _) in PINNED {
        assert!(table.server.settings.contains(name) || name == "insert_deduplicate", "{name}");
    }
}

/// The TTL's TO is no target, so it is the inner table that needs the window.
#[tokio::test]
async fn a_view_with_a_table_of_its_own_that_moves_its_parts_is_judged_by_that_table() {
    let database = Database::new("test_moving_view");
    database.run(&format!("CREATE TABLE $.t (id UInt32, at DateTime) {ENGINE}"));
    database.run(
        "CREATE MATERIALIZED VIEW $.mv ENGINE = MergeTree ORDER BY id TTL at + INTERVAL 1 DAY TO DISK 'default' \
         AS SELECT id, at FROM $.t",
    );
    let targets = read_view_targets(&database.client, &database.name, "t").await.unwrap();
    let target = targets[0].target.as_ref().expect("the view's own table is found");
    assert!(target.table.starts_with(".inner"), "{targets:?}");
    let problems = database.inspect("t").await.problems;
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["no_window"]);
}

#[tokio::test]
async fn the_window_counts_the_partitions_that_inserts_touch() {
    let database = Database::new("test_touched");
    database.run(&format!(
        "CREATE TABLE $.t (country String) {}",
        ENGINE.replace("ORDER BY", "PARTITION BY country ORDER BY")
    ));
    database.run("INSERT INTO $.t SELECT toString(number) FROM numbers(60)");
    let busy = Load { tasks: 4, ..LOAD };
    let report = table::inspect(&database.client, &database.name, "t", busy, |_, _| vec![]).await.unwrap();
    assert_eq!(report.schema.as_ref().unwrap().partitions_written, 60);
    let fix = report.problems[0].fix_sql.as_ref().unwrap();
    assert!(fix.ends_with("= 172800"), "two hours of 4 tasks every 10 s into 60 partitions: {fix}");
    assert!(report.problems[0].message.contains("touch about 60 partitions"), "{:?}", report.problems);
    database.engine.query(fix);
    let report = table::inspect(&database.client, &database.name, "t", busy, |_, _| vec![]).await.unwrap();
    assert_eq!(report.problems, []);
}

#[tokio::test]
async fn at_least_once_takes_a_table_without_a_window() {
    let database = Database::new("test_at_least_once");
    database.run("CREATE TABLE $.t (id UInt32) ENGINE = Memory");
    let load = Load { delivery: DeliveryGuarantee::AtLeastOnce, ..LOAD };
    let report = table::inspect(&database.client, &database.name, "t", load, |_, _| vec![]).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(table::window_seconds(&report.server, &report.schema.unwrap(), load), u64::MAX);
}
