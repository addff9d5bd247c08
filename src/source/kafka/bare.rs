//! A consumer that only counts: what librdkafka alone can do, for the benchmark to compare with.
//!
//! Fetches with the same settings as a pipeline does, joins no group, commits nothing.

use super::client::{Client, PartitionList};
use super::lookup::assign_alone;
use super::settings::Settings;
use super::{REQUEST_WAIT, c_name, lookup};
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// What went by.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct BareCount {
    pub records: u64,
    /// Keys and values.
    pub bytes: u64,
    /// From the first record to the last.
    pub elapsed: Duration,
}

/// Reads a topic from its start to its end, all partitions through one queue, and counts.
pub fn drain_bare(kafka: &KafkaPlan, topic: &str, queued_bytes_per_partition: u64) -> Result<BareCount> {
    let client = Client::consumer(&Settings::fetching(kafka, queued_bytes_per_partition), 0)?;
    let counted = count_all(&client, topic);
    client.close();
    counted
}

fn count_all(client: &std::sync::Arc<Client>, topic: &str) -> Result<BareCount> {
    let name = c_name(topic)?;
    let partitions = lookup::topics(client, std::slice::from_ref(&name), None, REQUEST_WAIT)?[0].partitions;
    let mut list = PartitionList::new();
    for partition in 0..partitions {
        list.add(&name, partition, lookup::log_range(client, &name, partition, REQUEST_WAIT)?.0);
    }
    let queue = client.consumer_queue();
    let mut counter = Counter { ended: vec![false; partitions as usize], ..Counter::default() };
    assign_alone(client, &list)?;
    let (mut started, mut ended) = (None, Instant::now());
    while !counter.ended.iter().all(|&ended| ended) {
        let before = counter.count.records;
        let opaque = (&raw mut counter).cast::<c_void>();
        // SAFETY: the queue is live; the callback runs on this thread before the call returns.
        unsafe { sys::rd_kafka_consume_callback_queue(queue.ptr(), 100, Some(count), opaque) };
        if counter.count.records > before {
            ended = Instant::now();
            started.get_or_insert(ended);
        } else if ended.elapsed() > REQUEST_WAIT {
            return Err(Error::retry("timed_out", format!("nothing came from `{topic}` for {REQUEST_WAIT:?}")));
        }
    }
    counter.count.elapsed = started.map_or(Duration::ZERO, |started| ended - started);
    Ok(counter.count)
}

#[derive(Default)]
struct Counter {
    count: BareCount,
    /// Per partition.
    ended: Vec<bool>,
}

unsafe extern "C" fn count(message: *mut sys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the opaque is the counter of the running call; the message is live until this returns, and its error
    // is read as a number (newer brokers may send others).
    let (counter, code) = unsafe { (&mut *opaque.cast::<Counter>(), (&raw const (*message).err).cast::<i32>().read()) };
    // SAFETY: as above.
    let (partition, bytes) = unsafe { ((*message).partition, (*message).len + (*message).key_len) };
    if code == 0 {
        counter.count.records += 1;
        counter.count.bytes += bytes as u64;
    } else if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
        counter.ended[partition as usize] = true;
    }
}
