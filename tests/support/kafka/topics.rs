//! Topics made, deleted, grown and cut off.

use super::super::{PATIENCE, wait_for};
use super::Kafka;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

impl Kafka {
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// `settings` are the topic's, such as `("cleanup.policy", "compact")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let admin = self.admin();
        // A topic that was just deleted may be on its way out still.
        wait_for(&format!("the creation of topic {name}"), PATIENCE, || {
            let results = admin.wait(admin.client.create_topics([&topic], &admin.options));
            match &results[0] {
                Ok(_) => Some(()),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => None,
                Err((_, error)) => panic!("cannot create topic {name}: {error}"),
            }
        });
        self.wait_for_partitions(name, partitions as usize);
    }

    pub fn delete_topic(&self, name: &str) {
        let admin = self.admin();
        let results = admin.wait(admin.client.delete_topics(&[name], &admin.options));
        results[0].as_ref().unwrap_or_else(|(_, error)| panic!("cannot delete topic {name}: {error}"));
        self.wait_for_partitions(name, 0);
    }

    /// Makes it `total` partitions.
    pub fn add_partitions(&self, name: &str, total: usize) {
        let partitions = NewPartitions::new(name, total);
        let admin = self.admin();
        let results = admin.wait(admin.client.create_partitions([&partitions], &admin.options));
        results[0].as_ref().unwrap_or_else(|(_, error)| panic!("cannot grow topic {name}: {error}"));
        self.wait_for_partitions(name, total);
    }

    /// Deletes the records before `offset`, as retention would.
    pub fn delete_records(&self, name: &str, partition: i32, offset: i64) {
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(name, partition, Offset::Offset(offset)).unwrap();
        let admin = self.admin();
        let answer = admin.wait(admin.client.delete_records(&places, &admin.options));
        let place = answer.find_partition(name, partition).expect("the partition asked for");
        place.error().unwrap_or_else(|error| panic!("cannot delete records of {name}: {error}"));
    }

    /// First offset and end, per partition.
    pub fn log_ranges(&self, name: &str) -> Vec<(i64, i64)> {
        let consumer = self.reader();
        let metadata = consumer.fetch_metadata(Some(name), PATIENCE).expect("metadata");
        let mut partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
        partitions.sort_unstable();
        let range = |partition| consumer.fetch_watermarks(name, partition, PATIENCE).expect("the log's range");
        partitions.into_iter().map(range).collect()
    }

    /// What the group has committed, per partition: offset (-1 without) and metadata.
    pub fn committed(&self, group: &str, name: &str) -> Vec<(i64, String)> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut places = TopicPartitionList::new();
        for partition in 0..self.log_ranges(name).len() {
            places.add_partition(name, partition as i32);
        }
        let committed = consumer.committed_offsets(places, PATIENCE).expect("committed offsets");
        let of = |partition: i32| {
            let place = committed.find_partition(name, partition).expect("the partition asked for");
            (place.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(-1), place.metadata().to_owned())
        };
        (0..committed.count() as i32).map(of).collect()
    }

    pub(super) fn reader(&self) -> BaseConsumer {
        self.client()
            .set("group.id", "weir-test-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap()
    }

    fn wait_for_partitions(&self, name: &str, count: usize) {
        let consumer = self.reader();
        wait_for(&format!("{count} partitions of topic {name}"), PATIENCE, || {
            let metadata = consumer.fetch_metadata(Some(name), PATIENCE).ok()?;
            let topic = &metadata.topics()[0];
            let ready = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
            (ready == count).then_some(())
        });
    }

    fn admin(&self) -> Admin {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Admin { client: self.client().create().unwrap(), options, runtime }
    }
}

struct Admin {
    client: AdminClient<DefaultClientContext>,
    options: AdminOptions,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    fn wait<T>(&self, answer: impl Future<Output = KafkaResult<T>>) -> T {
        self.runtime.block_on(answer).expect("an answer of the broker")
    }
}
