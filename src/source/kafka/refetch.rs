//! Single records read again, by their offsets, beside everything that the group's inputs read.
//!
//! Owns a short-lived consumer without a group. Promises: what is appended has exactly the offsets asked for; one
//! that the log does not hold any more is left out; a broker that does not answer is an error, never a gap.

use super::client::{Client, PartitionList, millis};
use super::events::{code_name, error_text};
use super::input::push;
use super::lookup::{assign_alone, log_range};
use super::settings::Settings;
use crate::codec::record::RecordBatch;
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Appends those of the records at `offsets` that are there. Each has `wait` to come: many take longer than one.
pub(super) fn records_at(
    kafka: &KafkaPlan,
    topic: &CStr,
    partition: i32,
    offsets: &[i64],
    into: &mut RecordBatch,
    wait: Duration,
) -> Result<()> {
    let mut settings = Settings::fetching(kafka, 0);
    settings.set("queued.min.messages", 1);
    settings.set("fetch.min.bytes", 1);
    let client = Client::consumer(&settings, 0)?;
    let read = log_range(&client, topic, partition, wait).and_then(|(first, end)| {
        let there = offsets.iter().filter(|offset| (first..end).contains(offset));
        there.copied().try_for_each(|offset| read_one(&client, topic, partition, offset, into, wait))
    });
    client.close();
    read
}

fn read_one(
    client: &Arc<Client>,
    topic: &CStr,
    partition: i32,
    offset: i64,
    into: &mut RecordBatch,
    wait: Duration,
) -> Result<()> {
    let mut list = PartitionList::new();
    list.add(topic, partition, offset);
    assign_alone(client, &list)?;
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the client is live; the message is ours and destroyed below.
        let message = unsafe { sys::rd_kafka_consumer_poll(client.ptr(), millis(left)) };
        if message.is_null() {
            let place = format!("`{}` {partition} at {offset}", topic.to_string_lossy());
            return Err(Error::retry("timed_out", format!("the record of {place} did not come in time")));
        }
        // SAFETY: the message is live until it is destroyed here, and everything is copied out before. Its error is
        // read as a number, because a newer broker may send one that the enum does not know.
        let (code, found) = unsafe {
            let code = (&raw const (*message).err).cast::<i32>().read();
            let found = (code == 0).then(|| {
                if (*message).offset == offset {
                    push(into, &*message, true);
                }
                (*message).offset
            });
            sys::rd_kafka_message_destroy(message);
            (code, found)
        };
        match found {
            // The one asked for, or the next that compaction has left.
            Some(found) if found >= offset => return Ok(()),
            Some(_) => {}
            None if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 => return Ok(()),
            None if code == err::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32 => return Ok(()),
            None if code == err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32 => {
                let name = topic.to_string_lossy();
                let message = format!("Kafka does not let this user read `{name}`: {}", error_text(code));
                return Err(Error::stop(code_name(code), message));
            }
            None => tracing::debug!("reading one record again: {}", error_text(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::KafkaSecurity;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    #[test]
    fn a_broker_that_falls_silent_is_an_error_and_each_record_has_its_own_time_to_come() {
        const WAIT: Duration = Duration::from_secs(10);
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        for value in ["a", "b", "c"] {
            producer.send(BaseRecord::<str, str>::to("t").partition(0).payload(value)).unwrap();
        }
        producer.flush(WAIT).unwrap();
        let kafka = KafkaPlan {
            brokers: vec![brokers],
            group: "g".into(),
            instance_id: None,
            security: KafkaSecurity::default(),
            librdkafka: Default::default(),
        };
        let mut batch = RecordBatch::default();
        records_at(&kafka, c"t", 0, &[0, 2, 9], &mut batch, WAIT).unwrap();
        assert_eq!(batch.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 2]);
        let mut settings = Settings::fetching(&kafka, 0);
        settings.set("queued.min.messages", 1);
        settings.set("fetch.min.bytes", 1);
        let client = Client::consumer(&settings, 0).unwrap();
        log_range(&client, c"t", 0, WAIT).unwrap();
        cluster.broker_round_trip_time(1, Duration::from_secs(3_600)).unwrap();
        let mut none = RecordBatch::default();
        let silent = read_one(&client, c"t", 0, 1, &mut none, Duration::from_millis(300)).unwrap_err();
        assert_eq!((silent.kind, silent.code.as_str()), (crate::error::Kind::Retry, "timed_out"));
        assert!(silent.message.contains("`t` 0 at 1 did not come in time"), "{silent}");
        assert!(none.records.is_empty());
        client.close();
    }
}
