use crate::support::PATIENCE;
use crate::support::kafka::{Kafka, Outcome, PASSWORD, TestRecord, USER};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

fn records(count: usize) -> Vec<TestRecord> {
    (0..count)
        .map(|n| TestRecord::new(format!("value {n}")).key(format!("key {n}")).timestamp_ms(n as i64 + 1))
        .collect()
}

fn commit(kafka: &Kafka, group: &str, topic: &str, offset: i64, metadata: &str) {
    let consumer: BaseConsumer = kafka.client().set("group.id", group).create().unwrap();
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    places.find_partition(topic, 0).unwrap().set_metadata(metadata);
    consumer.commit(&places, CommitMode::Sync).unwrap();
}

#[test]
fn what_is_produced_is_read_with_its_key_time_and_headers() {
    let kafka = Kafka::shared();
    kafka.create_topic("roundtrip", 3);
    let mut wanted = records(50);
    wanted[7].headers = vec![("trace".to_owned(), b"abc".to_vec())];
    wanted[8].payload = None;
    kafka.produce("roundtrip", &wanted);
    let mut got: Vec<_> = kafka.read_all("roundtrip").into_iter().map(|produced| produced.record).collect();
    assert!(got.iter().any(|record| record.partition != got[0].partition), "the keys are spread");
    got.iter_mut().for_each(|record| record.partition = None);
    got.sort_by_key(|record| record.timestamp_ms);
    assert_eq!(got, wanted);
}

#[test]
fn a_topic_grows_loses_its_beginning_goes_and_comes_again() {
    let kafka = Kafka::shared();
    kafka.create_topic("changing", 1);
    kafka.produce("changing", &records(10));
    kafka.delete_records("changing", 0, 4);
    kafka.add_partitions("changing", 2);
    assert_eq!(kafka.log_ranges("changing"), [(4, 10), (0, 0)]);
    kafka.delete_topic("changing");
    kafka.create_topic("changing", 1);
    assert_eq!(kafka.log_ranges("changing"), [(0, 0)]);
}

#[test]
fn a_transactions_marker_takes_an_offset_and_what_was_aborted_is_not_read() {
    let kafka = Kafka::shared();
    kafka.create_topic("transactions", 1);
    kafka.produce_in_transaction("transactions", &records(3), Outcome::Commit);
    kafka.produce_in_transaction("transactions", &records(2), Outcome::Abort);
    assert_eq!(kafka.log_ranges("transactions"), [(0, 7)]);
    assert_eq!(kafka.read_all("transactions").len(), 3);
}

#[test]
fn the_real_tool_resets_a_groups_offsets() {
    let kafka = Kafka::shared();
    kafka.create_topic("reset", 1);
    kafka.produce("reset", &records(10));
    commit(kafka, "reset-group", "reset", 6, "mark");
    assert_eq!(kafka.committed("reset-group", "reset"), [(6, "mark".to_owned())]);
    kafka.reset_offsets("reset-group", "reset", "--to-offset 2");
    assert_eq!(kafka.committed("reset-group", "reset"), [(2, String::new())]);
    kafka.delete_group("reset-group");
    assert_eq!(kafka.committed("reset-group", "reset"), [(-1, String::new())]);
}

#[test]
fn a_killed_broker_comes_back_with_its_records_and_offsets() {
    let mut kafka = Kafka::start();
    kafka.create_topic("kept", 2);
    kafka.produce("kept", &records(100));
    commit(&kafka, "kept-group", "kept", 5, "mark");
    let before = kafka.read_all("kept");
    for _ in 0..2 {
        kafka.kill();
        kafka.restart();
    }
    assert_eq!(kafka.read_all("kept"), before);
    assert_eq!(kafka.committed("kept-group", "kept")[0], (5, "mark".to_owned()));
}

#[test]
fn sasl_lets_in_who_knows_the_password() {
    let kafka = Kafka::shared();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for (password, welcome) in [(PASSWORD, true), ("guessed", false)] {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", kafka.sasl_brokers()).set("security.protocol", "sasl_plaintext");
            config.set("sasl.mechanism", mechanism).set("sasl.username", USER).set("sasl.password", password);
            assert_eq!(connects_within(&mut config, welcome), welcome, "{mechanism} with {password}");
        }
    }
}

#[test]
fn tls_is_checked_against_the_authority_and_takes_a_clients_certificate() {
    let kafka = Kafka::shared();
    let made = kafka.certificates();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.tls_brokers()).set("security.protocol", "ssl");
    config.set("ssl.ca.location", made.ca().to_str().unwrap());
    assert!(connects_within(&mut config, true), "without a certificate of its own");
    config.set("ssl.certificate.location", made.client_certificate().to_str().unwrap());
    config.set("ssl.key.location", made.client_key().to_str().unwrap());
    assert!(connects_within(&mut config, true), "with one");
    config.set("ssl.ca.location", made.client_certificate().to_str().unwrap());
    assert!(!connects_within(&mut config, false), "with a wrong authority");
}

/// A refused client tries on and on, so a refusal is seen by its silence: two seconds do.
fn connects_within(config: &mut ClientConfig, welcome: bool) -> bool {
    let consumer: BaseConsumer = config.set("log_level", "0").create().unwrap();
    let wait = if welcome { PATIENCE } else { std::time::Duration::from_secs(2) };
    consumer.fetch_metadata(None, wait).is_ok()
}
