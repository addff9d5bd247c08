use crate::support::clickhouse::ClickHouse;
use crate::support::proxy::{Fate, Proxy};
use std::time::{Duration, Instant};

fn insert(proxy: &Proxy, table: &str, value: u64) -> Result<(), ureq::Error> {
    let agent = ureq::Agent::from(ureq::Agent::config_builder().http_status_as_error(true).build());
    agent.post(proxy.url()).send(format!("INSERT INTO {table} VALUES ({value})")).map(drop)
}

#[test]
fn the_proxy_loses_requests_and_answers_on_command() {
    let clickhouse = ClickHouse::shared();
    let proxy = Proxy::start(&clickhouse.url());
    clickhouse.query("CREATE DATABASE lossy");
    clickhouse.query("CREATE TABLE lossy.t (a UInt64) ENGINE = MergeTree ORDER BY a");
    proxy.next_inserts([Fate::LoseRequest, Fate::LoseAnswer, Fate::CutRequest, Fate::Answer(503, "busy"), Fate::Pass]);
    let heard: Vec<bool> = (0..5).map(|n| insert(&proxy, "lossy.t", n).is_ok()).collect();
    assert_eq!(heard, [false, false, false, false, true]);
    assert_eq!(clickhouse.query("SELECT groupArray(a) FROM (SELECT a FROM lossy.t ORDER BY a)"), "[1,4]");
    assert_eq!(proxy.inserts(), 5);
}

#[test]
fn the_proxy_delays_and_takes_the_server_away() {
    let clickhouse = ClickHouse::shared();
    let proxy = Proxy::start(&clickhouse.url());
    clickhouse.query("CREATE DATABASE slow");
    clickhouse.query("CREATE TABLE slow.t (a UInt64) ENGINE = MergeTree ORDER BY a");
    proxy.every_insert(Fate::Delay(Duration::from_millis(300)));
    let begun = Instant::now();
    insert(&proxy, "slow.t", 1).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    proxy.outage(true);
    assert!(insert(&proxy, "slow.t", 2).is_err());
    proxy.outage(false);
    insert(&proxy, "slow.t", 3).unwrap();
    assert_eq!(clickhouse.count("SELECT count() FROM slow.t"), 2);
}
