use crate::support::clickhouse::ClickHouse;
use crate::support::{PATIENCE, wait_for};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use weir::clock::SystemClock;
use weir::demo::broker::Broker;
use weir::demo::generator::{BEHIND_BYTES_MAX, Generator, GeneratorOptions, GroundTruth};
use weir::demo::proof::{Aggregate, Proof};
use weir::demo::scenarios::{Scenario, What, sessions};

fn options(broker: &Broker, events_per_second: u64) -> GeneratorOptions {
    GeneratorOptions {
        brokers: broker.address().to_owned(),
        scenario: Scenario::Sessions,
        seed: 1,
        events_per_second,
        groups: vec!["demo-reader".to_owned()],
    }
}

fn reader(broker: &Broker) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address()).set("group.id", "demo-reader");
    config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[sessions::TOPIC]).unwrap();
    consumer
}

#[test]
fn a_group_of_the_in_process_kafka_starts_at_once_and_reads_the_ground_truth() {
    let broker = Broker::start(Scenario::Sessions.topics()).unwrap();
    let generator = Generator::start(options(&broker, 5000), Arc::new(SystemClock)).unwrap();
    let consumer = reader(&broker);
    let begun = std::time::Instant::now();
    let (mut records, mut keys, mut places) = (0, BTreeSet::new(), BTreeSet::new());
    let mut truth: Option<GroundTruth> = None;
    let mut running = Some(generator);
    wait_for("all records of the generator", PATIENCE, || {
        if begun.elapsed() > Duration::from_secs(3)
            && let Some(generator) = running.take()
        {
            truth = Some(generator.stop().unwrap());
        }
        while let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let message = message.unwrap();
            records += 1;
            let key = message.key().unwrap().to_vec();
            places.insert((key.clone(), message.partition()));
            keys.insert(key);
        }
        truth.filter(|truth| truth.records == records)
    });
    let truth = truth.unwrap();
    assert_eq!(keys.len() as u64, truth.distinct_keys);
    assert_eq!(places.len(), keys.len(), "every key has one partition");
    assert!(truth.records > 5000, "{truth:?} in three seconds at 5000 a second");
}

#[test]
fn the_generator_waits_for_a_reader_that_does_not_commit() {
    let broker = Broker::start(Scenario::Sessions.topics()).unwrap();
    let generator = Generator::start(options(&broker, 100_000), Arc::new(SystemClock)).unwrap();
    wait_for("the generator to wait", PATIENCE, || generator.is_waiting().then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    let consumer = reader(&broker);
    for partition in 0..sessions::PARTITIONS {
        let (first, end) = consumer.fetch_watermarks(sessions::TOPIC, partition, PATIENCE).unwrap();
        assert_eq!(first, 0, "nothing was forgotten");
        assert!(end as u64 * 300 < BEHIND_BYTES_MAX + (1 << 20), "{end} records");
    }
    let stuck = generator.truth().records;
    let mut ends = TopicPartitionList::new();
    for partition in 0..sessions::PARTITIONS {
        let (_, end) = consumer.fetch_watermarks(sessions::TOPIC, partition, PATIENCE).unwrap();
        ends.add_partition_offset(sessions::TOPIC, partition, rdkafka::Offset::Offset(end)).unwrap();
    }
    // Only a member's commits count.
    wait_for("the assignment", PATIENCE, || {
        consumer.poll(Duration::from_millis(50));
        consumer.assignment().is_ok_and(|partitions| partitions.count() > 0).then_some(())
    });
    consumer.commit(&ends, CommitMode::Sync).unwrap();
    wait_for("the generator to go on", PATIENCE, || (generator.truth().records > stuck).then_some(()));
}

/// The first records of a scenario's main topic go into its table as any loader would bring them, in its own database.
fn load(scenario: Scenario) -> (clickhouse::Client, GroundTruth) {
    let clickhouse = ClickHouse::shared();
    let database = format!("proof_{}", scenario.name());
    clickhouse.query(&format!("CREATE DATABASE {database}"));
    let client = clickhouse::Client::default().with_url(clickhouse.url()).with_database(&database);
    for statement in scenario.tables() {
        block_on(client.query(statement).execute()).unwrap();
    }
    let mut traffic = scenario.traffic(5);
    let (mut truth, mut lines) = (GroundTruth::default(), Vec::new());
    for n in 0..500 {
        let event = traffic.next_event(1_790_000_000_000 + n);
        truth.records += 1;
        truth.rows += u64::from(event.what != What::Other);
        if let What::First { cents } = event.what {
            truth.distinct_keys += 1;
            truth.cents += cents;
            lines.extend_from_slice(&event.payload);
            lines.push(b'\n');
        }
    }
    let (table, lines) = (scenario.result().table, String::from_utf8(lines).unwrap());
    let settings = "SETTINGS input_format_skip_unknown_fields = 1, date_time_input_format = 'best_effort'";
    clickhouse.query(&format!("INSERT INTO {database}.{table} {settings} FORMAT JSONEachRow\n{lines}"));
    (client, truth)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn the_proof_asks_clickhouse_itself() {
    let (client, truth) = load(Scenario::Sessions);
    let proof = block_on(Proof::ask(&client, Scenario::Sessions.result(), truth)).unwrap();
    assert!(proof.holds(), "{proof:?}");
}

#[test]
fn the_proof_of_a_join_fails_when_nothing_was_joined() {
    let (client, truth) = load(Scenario::Transactions);
    let proof = block_on(Proof::ask(&client, Scenario::Transactions.result(), truth)).unwrap();
    assert_eq!((proof.rows, proof.cents), (truth.distinct_keys, truth.cents));
    assert!(!proof.holds() && proof.claims == [0], "{proof:?}");
}

#[test]
fn the_aggregates_of_clickhouse_add_up_to_what_was_loaded() {
    let (client, truth) = load(Scenario::Analytics);
    let proof = block_on(Proof::ask(&client, Scenario::Analytics.result(), truth)).unwrap();
    assert_eq!(proof.claims, [truth.distinct_keys, truth.cents, 0], "{proof:?}");
    let aggregates = block_on(Aggregate::ask(&client, Scenario::Analytics.aggregates().unwrap())).unwrap();
    assert_eq!(aggregates.iter().map(|aggregate| aggregate.many).sum::<u64>(), truth.distinct_keys);
    assert!(aggregates.iter().all(|aggregate| aggregate.of == "unknown"), "{aggregates:?}");
}
