//! Records written and read by plain clients, beside weir.

use super::super::{PATIENCE, wait_for};
use super::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

/// A record to produce. What is `None` is left to Kafka (as is a time of 0, which means now to the client); a `None`
/// payload is a tombstone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TestRecord {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub timestamp_ms: Option<i64>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl TestRecord {
    pub fn new(payload: impl Into<Vec<u8>>) -> TestRecord {
        TestRecord { payload: Some(payload.into()), ..TestRecord::default() }
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> TestRecord {
        self.key = Some(key.into());
        self
    }

    pub fn partition(mut self, partition: i32) -> TestRecord {
        self.partition = Some(partition);
        self
    }

    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> TestRecord {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// A record as it lies in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Produced {
    pub partition: i32,
    pub offset: i64,
    pub record: TestRecord,
}

/// What becomes of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Commit,
    Abort,
}

impl Kafka {
    /// Writes the records, in order per partition, and waits until the broker has all.
    pub fn produce(&self, topic: &str, records: &[TestRecord]) {
        let producer = self.producer(&[]);
        send_all(&producer, topic, records);
    }

    /// Writes the records in one transaction; its marker takes an offset of its own.
    pub fn produce_in_transaction(&self, topic: &str, records: &[TestRecord], outcome: Outcome) {
        let producer = self.producer(&[("transactional.id", "weir-test-transaction")]);
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send_all(&producer, topic, records);
        match outcome {
            Outcome::Commit => producer.commit_transaction(PATIENCE).unwrap(),
            Outcome::Abort => producer.abort_transaction(PATIENCE).unwrap(),
        }
    }

    /// A producer with the partitioner of the Java client, and these settings besides.
    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.client();
        config.set("partitioner", "murmur2_random").set("linger.ms", "5").set("enable.idempotence", "true");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    /// All records of the topic that a `read_committed` reader sees, by partition and offset.
    pub fn read_all(&self, topic: &str) -> Vec<Produced> {
        let consumer = self.reader();
        let mut produced = Vec::new();
        for (partition, (_, end)) in self.log_ranges(topic).into_iter().enumerate() {
            read_partition(&consumer, topic, partition as i32, end, &mut produced);
        }
        produced
    }
}

fn send_all(producer: &BaseProducer, topic: &str, records: &[TestRecord]) {
    for record in records {
        let mut message: BaseRecord<'_, Vec<u8>, Vec<u8>> = BaseRecord::to(topic);
        message.partition = record.partition;
        message.key = record.key.as_ref();
        message.payload = record.payload.as_ref();
        message.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            message.headers = Some(headers);
        }
        send(producer, message);
    }
    producer.flush(PATIENCE).unwrap();
}

fn send(producer: &BaseProducer, mut message: BaseRecord<'_, Vec<u8>, Vec<u8>>) {
    while let Err((error, back)) = producer.send(message) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "cannot produce");
        producer.poll(Duration::from_millis(10));
        message = back;
    }
}

/// Reads up to the end, which may be a transaction's marker that no reader is shown: hence the end of partition
/// event, not the last record, is what ends it.
fn read_partition(consumer: &BaseConsumer, topic: &str, partition: i32, end: i64, produced: &mut Vec<Produced>) {
    if end == 0 {
        return;
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&place).unwrap();
    wait_for(&format!("the end of {topic}/{partition} at {end}"), PATIENCE, || {
        loop {
            match consumer.poll(Duration::from_millis(200))? {
                Ok(message) => produced.push(Produced {
                    partition,
                    offset: message.offset(),
                    record: TestRecord {
                        partition: Some(partition),
                        key: message.key().map(<[u8]>::to_vec),
                        payload: message.payload().map(<[u8]>::to_vec),
                        timestamp_ms: message.timestamp().to_millis(),
                        headers: headers_of(&message),
                    },
                }),
                Err(KafkaError::PartitionEOF(_)) => return Some(()),
                Err(error) => panic!("cannot read {topic}/{partition}: {error}"),
            }
        }
    });
}

fn headers_of(message: &impl Message) -> Vec<(String, Vec<u8>)> {
    use rdkafka::message::Headers;
    let Some(headers) = message.headers() else { return Vec::new() };
    headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
}
