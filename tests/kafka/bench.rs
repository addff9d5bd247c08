//! The other side of Kafka: topics made and deleted, records produced, with and without transactions.

use crate::support::kafka::Kafka;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// As patient as all tests: only what hangs ever waits so long.
pub const WAIT: Duration = crate::support::PATIENCE;

/// The broker under test, without security.
pub fn bootstrap() -> String {
    Kafka::shared().brokers()
}

/// A name nobody else uses, in this run or an earlier one on the same broker.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", since.as_micros(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn admin<T>(work: impl AsyncFnOnce(AdminClient<DefaultClientContext>, AdminOptions) -> T) -> T {
    let client = ClientConfig::new().set("bootstrap.servers", bootstrap()).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(WAIT));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(client, options))
}

pub fn create_topic(name: &str, partitions: i32) {
    admin(async |client, options| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        client.create_topics([&topic], &options).await.unwrap()[0].as_ref().unwrap();
    });
}

pub fn delete_topic(name: &str) {
    admin(async |client, options| {
        client.delete_topics(&[name], &options).await.unwrap()[0].as_ref().unwrap();
    });
}

pub fn grow_topic(name: &str, partitions: usize) {
    admin(async |client, options| {
        let grown = NewPartitions::new(name, partitions);
        client.create_partitions([&grown], &options).await.unwrap()[0].as_ref().unwrap();
    });
}

/// Deletes the records of a partition before `offset`.
pub fn trim(topic: &str, partition: i32, offset: i64) {
    admin(async |client, options| {
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).unwrap();
        client.delete_records(&list, &options).await.unwrap();
    });
}

pub struct Writer {
    producer: BaseProducer,
}

impl Writer {
    pub fn plain() -> Writer {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap())
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "2000000")
            .create()
            .unwrap();
        Writer { producer }
    }

    /// One transaction around what `work` sends; committed or taken back.
    pub fn transaction(commit: bool, work: impl FnOnce(&Writer)) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap())
            .set("transactional.id", unique("tx"))
            .create()
            .unwrap();
        producer.init_transactions(WAIT).unwrap();
        producer.begin_transaction().unwrap();
        let writer = Writer { producer };
        work(&writer);
        writer.flush();
        if commit {
            writer.producer.commit_transaction(WAIT).unwrap();
        } else {
            writer.producer.abort_transaction(WAIT).unwrap();
        }
    }

    pub fn send(&self, topic: &str, partition: i32, value: &str) {
        self.send_record(BaseRecord::<str, str>::to(topic).partition(partition).payload(value));
    }

    pub fn send_at(&self, topic: &str, partition: i32, value: &str, timestamp_ms: i64) {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).payload(value);
        self.send_record(record.timestamp(timestamp_ms));
    }

    pub fn send_with_headers(&self, topic: &str, key: Option<&str>, value: Option<&str>, headers: OwnedHeaders) {
        let mut record = BaseRecord::<str, str>::to(topic).partition(0).headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        self.send_record(record);
    }

    pub fn send_record(&self, mut record: BaseRecord<'_, str, str>) {
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((_, back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
            };
        }
    }

    pub fn send_many(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = String>) {
        values.into_iter().for_each(|value| self.send(topic, partition, &value));
        self.flush();
    }

    pub fn flush(&self) {
        self.producer.flush(WAIT).unwrap();
    }
}
