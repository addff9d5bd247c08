//! A look at the newest records of a topic, for tables that weir makes, and for `check` and `explain`.
//!
//! Owns a short-lived consumer of its own. Promises: joins no group, commits nothing, ends within its time.

use super::client::{Client, PartitionList, millis};
use super::events::{code_name, error_text};
use super::lookup::assign_alone;
use super::settings::Settings;
use super::{REQUEST_WAIT, c_name, lookup};
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

/// What was seen of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Of every partition: its first offset and its readable end.
    pub ranges: Vec<(i64, i64)>,
    /// The newest ones of each partition, in the order in which they came.
    pub records: Vec<SampledRecord>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SampledRecord {
    pub partition: i32,
    pub offset: i64,
    /// -1 where it has none.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Sample {
    /// The values that are there.
    pub fn values(&self) -> Vec<&[u8]> {
        self.records.iter().filter_map(|record| record.value.as_deref()).collect()
    }

    /// Records per second, by the Kafka timestamps of what was seen; `None` where that says nothing.
    pub fn records_per_second(&self) -> Option<f64> {
        let mut sum = None;
        for partition in 0..self.ranges.len() as i32 {
            let mut seen = self.records.iter().filter(|record| record.partition == partition);
            let (Some(first), Some(last)) = (seen.next(), seen.next_back()) else { continue };
            let (records, ms) = (last.offset - first.offset, last.timestamp_ms - first.timestamp_ms);
            if records > 0 && ms > 0 {
                *sum.get_or_insert(0.0) += records as f64 * 1000.0 / ms as f64;
            }
        }
        sum
    }
}

/// Reads the newest records of a topic, at most about `records_max`, the same number of each partition.
pub fn sample(kafka: &KafkaPlan, topic: &str, by_broker: Option<i32>, records_max: usize) -> Result<Sample> {
    let mut settings = Settings::fetching(kafka, 0);
    settings.set("fetch.min.bytes", 1);
    let client = Client::consumer(&settings, 0)?;
    let seen = c_name(topic).and_then(|topic| read(&client, &topic, by_broker, records_max));
    client.close();
    seen
}

fn read(client: &Arc<Client>, topic: &CStr, by_broker: Option<i32>, records_max: usize) -> Result<Sample> {
    let partitions = lookup::topics(client, &[topic.to_owned()], by_broker, REQUEST_WAIT)?[0].partitions;
    let mut sample = Sample::default();
    let of_each = (records_max as i64 / i64::from(partitions.max(1))).max(1);
    let mut list = PartitionList::new();
    let mut going = 0;
    for partition in 0..partitions {
        let (first, end) = lookup::log_range(client, topic, partition, REQUEST_WAIT)?;
        sample.ranges.push((first, end));
        if first < end {
            list.add(topic, partition, (end - of_each).max(first));
            going += 1;
        }
    }
    if going == 0 {
        return Ok(sample);
    }
    assign_alone(client, &list)?;
    let deadline = Instant::now() + REQUEST_WAIT;
    while going > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the client is live; the message is ours and destroyed below.
        let message = unsafe { sys::rd_kafka_consumer_poll(client.ptr(), millis(left)) };
        if message.is_null() {
            // A slow broker: what came says enough, unless it is nothing.
            break;
        }
        // SAFETY: the message is live until it is destroyed here; everything is copied out before.
        let (code, record) = unsafe {
            let code = (&raw const (*message).err).cast::<i32>().read();
            let record = (code == 0).then(|| copied(message));
            sys::rd_kafka_message_destroy(message);
            (code, record)
        };
        match record {
            Some(record) => sample.records.push(record),
            None if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 => going -= 1,
            None if code == err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32 => {
                let name = topic.to_string_lossy();
                let message = format!("Kafka does not let this user read `{name}`: {}", error_text(code));
                return Err(Error::stop(code_name(code), message));
            }
            None => tracing::debug!("sampling: {}", error_text(code)),
        }
        if sample.records.len() >= 2 * records_max {
            break;
        }
    }
    match sample.records.is_empty() && going > 0 {
        true => Err(Error::retry("timed_out", format!("nothing came from `{}` in time", topic.to_string_lossy()))),
        false => Ok(sample),
    }
}

/// # Safety
/// `message` is live and without an error.
unsafe fn copied(message: *mut sys::rd_kafka_message_t) -> SampledRecord {
    let bytes = |start: *mut std::ffi::c_void, len: usize| {
        // SAFETY: the library gives a place and its length, or null for none.
        (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec())
    };
    // SAFETY: by the caller's promise.
    unsafe {
        SampledRecord {
            partition: (*message).partition,
            offset: (*message).offset,
            timestamp_ms: sys::rd_kafka_message_timestamp(message, ptr::null_mut()),
            key: bytes((*message).key, (*message).key_len),
            value: bytes((*message).payload, (*message).len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, timestamp_ms: i64) -> SampledRecord {
        SampledRecord { partition, offset, timestamp_ms, key: None, value: None }
    }

    #[test]
    fn the_rate_is_the_sum_of_the_partitions_rates() {
        let records = vec![record(0, 10, 1_000), record(1, 5, 0), record(0, 110, 2_000), record(1, 55, 1_000)];
        let sample = Sample { ranges: vec![(0, 111), (0, 56)], records };
        assert_eq!(sample.records_per_second(), Some(150.0));
    }

    #[test]
    fn one_record_of_a_partition_says_nothing_of_a_rate() {
        let sample = Sample { ranges: vec![(0, 1)], records: vec![record(0, 0, 5)] };
        assert_eq!(sample.records_per_second(), None);
    }
}
