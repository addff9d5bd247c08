use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use clickhouse::{Client, Row};

const TABLE: &str = "CREATE TABLE d.t (a UInt64, b String) ENGINE = MergeTree ORDER BY a \
                     SETTINGS non_replicated_deduplication_window = 100";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[derive(Row, serde::Deserialize, Debug, PartialEq)]
struct Line {
    a: u64,
    b: String,
}

/// One Native block of `rows` rows, beginning at `first`.
fn block(first: u64, rows: u64) -> Vec<u8> {
    let mut block = vec![2, rows as u8, 1, b'a', 6];
    block.extend(b"UInt64");
    (first..first + rows).for_each(|a| block.extend(a.to_le_bytes()));
    block.extend([1, b'b', 6]);
    block.extend(b"String");
    (first..first + rows).for_each(|a| block.extend([2, b'x', b'0' + (a % 10) as u8]));
    block
}

fn insert(client: &Client, token: &str, block: Vec<u8>) -> clickhouse::error::Result<()> {
    let insert = client
        .insert_formatted_with("INSERT INTO d.t (a, b) FORMAT Native")
        .with_setting("insert_deduplication_token", token)
        .with_setting("async_insert", "0")
        .with_setting("wait_end_of_query", "1");
    runtime().block_on(async move {
        let mut insert = insert;
        insert.send(block.into()).await?;
        insert.end().await
    })
}

#[test]
fn the_clickhouse_crate_writes_and_reads_with_parameters() {
    let clickhouse = ClickHouse::start();
    clickhouse.query("CREATE DATABASE d");
    clickhouse.query(TABLE);
    let client = Client::default().with_url(clickhouse.url()).with_database("d");
    insert(&client, "one", block(0, 3)).unwrap();
    let query = client.query("SELECT a, b FROM {table:Identifier} WHERE b != ? ORDER BY a").bind("it's");
    let lines = runtime().block_on(query.param("table", "t").fetch_all::<Line>()).unwrap();
    let line = |a: u64| Line { a, b: format!("x{a}") };
    assert_eq!(lines, [line(0), line(1), line(2)]);
}

#[test]
fn a_token_is_written_once_also_across_a_kill() {
    let mut clickhouse = ClickHouse::start();
    clickhouse.query("CREATE DATABASE d");
    clickhouse.query(TABLE);
    for round in 0..5 {
        let client = Client::default().with_url(clickhouse.url());
        for n in 0..=round {
            insert(&client, &format!("token {n}"), block(n * 10, 10)).unwrap();
        }
        clickhouse.kill();
        clickhouse.restart();
        assert_eq!(clickhouse.count("SELECT count() FROM d.t"), (round + 1) * 10, "after kill {round}");
    }
}

#[test]
fn settings_and_databases_do_not_leak_between_requests() {
    let clickhouse = ClickHouse::shared();
    let get = |address: &str| {
        let url = format!("{}/?{address}", clickhouse.url());
        ureq::get(url).call().map(|mut answer| answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(get("max_threads=3&query=SELECT%20getSetting('max_threads')").unwrap(), "3\n");
    assert_eq!(get("database=system&query=SELECT%20currentDatabase()").unwrap(), "system\n");
    assert_eq!(get("query=SELECT%20currentDatabase(),getSetting('max_threads')=3").unwrap(), "default\t0\n");
    assert!(matches!(get("query=CREATE%20DATABASE%20x"), Err(ureq::Error::StatusCode(500))), "GET is readonly");
}

#[test]
fn errors_come_as_the_servers() {
    let clickhouse = ClickHouse::shared();
    let error = clickhouse.try_query("SELECT * FROM system.nosuch").unwrap_err();
    assert!(
        error.starts_with("Code: 60. DB::Exception: ") && error.contains("(UNKNOWN_TABLE) (version 26."),
        "{error}"
    );
    let agent = ureq::Agent::from(ureq::Agent::config_builder().http_status_as_error(false).build());
    let answer = agent.post(clickhouse.url()).send("SELECT nosuch").unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["X-ClickHouse-Exception-Code"]),
        (404, &"47".parse().unwrap())
    );
    let answer = agent.post(clickhouse.url()).header("X-ClickHouse-User", "me").send("SELECT 1").unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["X-ClickHouse-Exception-Code"]),
        (403, &"516".parse().unwrap())
    );
}

#[test]
fn a_password_is_asked_for() {
    let clickhouse = ClickHouse::start_with_password("open sesame");
    assert_eq!(clickhouse.query("SELECT 1"), "1");
    let client = Client::default().with_url(clickhouse.url()).with_user("default").with_password("wrong");
    let error = runtime().block_on(client.query("SELECT 1").execute()).unwrap_err().to_string();
    assert!(error.contains("Code: 516."), "{error}");
}

#[test]
fn a_broken_block_writes_nothing() {
    let clickhouse = ClickHouse::start();
    clickhouse.query("CREATE DATABASE d");
    clickhouse.query(TABLE);
    let client = Client::default().with_url(clickhouse.url());
    let whole = block(0, 20);
    for cut in [whole.len() - 1, whole.len() / 2, 1] {
        let error = insert(&client, &format!("cut {cut}"), whole[..cut].to_vec()).unwrap_err().to_string();
        assert!(error.contains("Code: 33.") || error.contains("Code: 32."), "{error}");
    }
    assert_eq!(clickhouse.count("SELECT count() FROM d.t"), 0);
}

#[test]
fn requests_run_side_by_side() {
    let clickhouse = ClickHouse::start();
    let asleep = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(3)%'";
    let is_seen = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let waits = || !is_seen.load(std::sync::atomic::Ordering::Relaxed);
                (0..100).take_while(|_| waits()).for_each(|_| drop(clickhouse.query("SELECT sleep(3)")));
            });
        }
        // One after the other they would never be seen by a fourth, let alone together.
        clickhouse.wait_for_answer(asleep, "3", PATIENCE);
        is_seen.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
