//! Logins, certificates and compression on both sides, all the way through.

use crate::flow::{Events, Flow};
use crate::oracle::{assert_same, deduplicated, settle, stored};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, PASSWORD, USER};
use crate::support::proxy::Proxy;
use rdkafka::producer::{BaseRecord, Producer};

/// Every codec that Kafka has.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn produce_with_every_codec(topic: &str) {
    let mut events = Events::new(71);
    for codec in CODECS {
        let producer = Kafka::shared().producer(&[("compression.type", codec), ("linger.ms", "50")]);
        for _ in 0..200 {
            let (id, payload) = events.next();
            producer.send(BaseRecord::to(topic).key(&id).payload(&payload)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }
}

#[test]
fn every_login_codec_and_compression_gets_every_row_through() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let certificates = kafka.certificates();
    let proxy = Proxy::start_tls(&clickhouse.url(), certificates, true);
    let (ca, cert, key) = (certificates.ca(), certificates.client_certificate(), certificates.client_key());
    let tls = format!("tls: {{ ca: {}, cert: {}, key: {} }}", ca.display(), cert.display(), key.display());
    let login = |mechanism: &str| format!("sasl: {{ mechanism: {mechanism}, username: {USER}, password: {PASSWORD} }}");
    for (name, brokers, security, compression, auth) in [
        ("by_plain", kafka.sasl_brokers(), login("plain"), "none", "basic"),
        ("by_scram_256", kafka.sasl_brokers(), login("scram-sha-256"), "lz4", "headers"),
        ("by_scram_512", kafka.sasl_brokers(), login("scram-sha-512"), "zstd", "basic"),
        ("by_certificate", kafka.tls_brokers(), tls.clone(), "lz4", "headers"),
    ] {
        let stage = Stage {
            brokers,
            security: format!("security: {{ {security} }}"),
            url: proxy.url(),
            connection: format!(", auth: {auth}, {tls}"),
            sink: format!(", compression: {compression}"),
            ..Stage::new(name, kafka, clickhouse, 2)
        };
        produce_with_every_codec(name);
        let mut weir = stage.weir_with("a", &["--until-end"]);
        assert!(weir.wait(PATIENCE).success(), "{name}: {}", weir.log());
        let expected = deduplicated(&kafka.read_all(name), None);
        assert!(expected.len() > 500);
        assert_same(name, &stored(clickhouse, &stage.table()), &expected);
    }
}

#[test]
fn another_server_is_taken_when_one_is_away() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let proxies = [Proxy::start(&clickhouse.url()), Proxy::start(&clickhouse.url())];
    let mut stage = Stage::new("failover", kafka, clickhouse, 2);
    stage.sink = format!(", urls: [\"{}\", \"{}\"]", proxies[0].url(), proxies[1].url());
    // Plain tables of different servers share no window; these two are one.
    stage.lines.push("delivery: at_least_once".to_owned());
    let flow = Flow::start(kafka, &stage.name, 500, 72);
    let mut weir = stage.weir("a");
    for away in [0, 1, 0] {
        proxies[away].outage(true);
        let (acknowledged, elsewhere) =
            (weir.metric("weir_blocks_acknowledged_total", ""), proxies[1 - away].inserts());
        weir.wait_for_metric("weir_blocks_acknowledged_total", "", acknowledged.unwrap_or(0.0) + 3.0);
        assert!(proxies[1 - away].inserts() > elsewhere, "the other one takes them");
        proxies[away].outage(false);
    }
    flow.stop();
    settle(kafka, clickhouse, &stage, None, &mut [&mut weir]);
}
