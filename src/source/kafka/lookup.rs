//! Questions to the broker that are answered before the call returns: topics, committed offsets, log ends, times.
//!
//! Owns nothing. Promises: every call has a deadline and says which question failed.

use super::client::{Client, Event, PartitionList, Queue, millis, text_of};
use super::events::{code_name, error_text};
use super::settings::Settings;
use crate::config::plan::KafkaPlan;
use crate::error::{Error, Result};
use crate::source::{CommittedOffsets, TopicInfo};
use crate::types::TopicId;
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn answer(what: &str, code: i32) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(Error::retry(code_name(code), format!("{what}: {}", error_text(code))))
}

/// Fetches one topic's metadata, so that the client knows its partitions and leaders.
pub(super) fn metadata_of(client: &Client, topic: *mut sys::rd_kafka_topic_t, wait: Duration) -> Result<()> {
    let mut metadata = ptr::null();
    // SAFETY: client and topic handle are live; the answer is ours to destroy.
    let code = unsafe { sys::rd_kafka_metadata(client.ptr(), 0, topic, &mut metadata, millis(wait)) } as i32;
    answer("asking for the topic's metadata failed", code)?;
    // SAFETY: the call succeeded, so the pointer is live and ours.
    unsafe { sys::rd_kafka_metadata_destroy(metadata) };
    Ok(())
}

/// What the group committed for these partitions of all topics.
pub(super) fn committed(
    client: &Client,
    topics: &[CString],
    partitions: &[i32],
    wait: Duration,
) -> Result<Vec<CommittedOffsets>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = PartitionList::new();
    for partition in partitions {
        topics.iter().for_each(|topic| list.add(topic, *partition, sys::RD_KAFKA_OFFSET_INVALID.into()));
    }
    // SAFETY: client and list are live; the list is filled in place.
    let code = unsafe { sys::rd_kafka_committed(client.ptr(), list.ptr(), millis(wait)) } as i32;
    answer("asking for the committed offsets failed", code)?;
    let entries = list.entries();
    let mut tasks = Vec::with_capacity(partitions.len());
    for (task, partition) in entries.chunks(topics.len()).zip(partitions) {
        let mut committed = CommittedOffsets { offsets: Vec::new(), metadata: task[0].metadata.clone() };
        for entry in task {
            assert_eq!(entry.partition, *partition, "the answer keeps the order of the question");
            answer(&format!("the committed offset of `{}` {partition}", entry.topic), entry.error)?;
            committed.offsets.push((entry.offset >= 0).then_some(entry.offset));
        }
        tasks.push(committed);
    }
    Ok(tasks)
}

/// The first offset and the readable end.
pub(super) fn log_range(client: &Client, topic: &CStr, partition: i32, wait: Duration) -> Result<(i64, i64)> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is live, the name ends in NUL, both numbers are there to be filled.
    let code = unsafe {
        sys::rd_kafka_query_watermark_offsets(
            client.ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
            millis(wait),
        )
    };
    answer(&format!("asking where `{}` {partition} begins and ends failed", topic.to_string_lossy()), code as i32)?;
    Ok((low, high))
}

/// The first offset at or after that time; `None` where there is none.
pub(super) fn offset_at(
    client: &Client,
    topic: &CStr,
    partition: i32,
    at_ms: i64,
    wait: Duration,
) -> Result<Option<i64>> {
    let mut list = PartitionList::new();
    // The library takes a negative number for one of its own.
    list.add(topic, partition, at_ms.max(0));
    // SAFETY: client and list are live; the list is filled in place.
    let code = unsafe { sys::rd_kafka_offsets_for_times(client.ptr(), list.ptr(), millis(wait)) } as i32;
    let what = format!("looking up a time in `{}` {partition} failed", topic.to_string_lossy());
    answer(&what, code)?;
    let entry = &list.entries()[0];
    answer(&what, entry.error)?;
    Ok((entry.offset >= 0).then_some(entry.offset))
}

/// Every topic's id and partition count, in one request.
pub(super) fn topics(
    client: &Arc<Client>,
    names: &[CString],
    by_broker: Option<i32>,
    wait: Duration,
) -> Result<Vec<TopicInfo>> {
    let question = TopicsQuestion::ask(client, names, by_broker, wait);
    let no_answer = || Err(Error::retry("timed_out", "the broker does not say what topics it has"));
    question.answer(wait + Duration::from_secs(1)).unwrap_or_else(no_answer)
}

/// That request on its way: who asked goes on meanwhile.
pub(super) struct TopicsQuestion {
    queue: Queue,
    names: Vec<CString>,
}

impl TopicsQuestion {
    /// Sends it; the client answers within `wait`, with an error if the broker does not.
    pub(super) fn ask(
        client: &Arc<Client>,
        names: &[CString],
        by_broker: Option<i32>,
        wait: Duration,
    ) -> TopicsQuestion {
        let queue = client.answer_queue();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut text = [0 as c_char; 256];
        // SAFETY: everything made here lives until the request is sent (it copies what it needs) and is destroyed
        // right after it; the queue outlives the answer.
        unsafe {
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let describe = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = sys::rd_kafka_AdminOptions_new(client.ptr(), describe);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(wait), text.as_mut_ptr(), text.len());
            if let Some(broker) = by_broker {
                sys::rd_kafka_AdminOptions_set_broker(options, broker, text.as_mut_ptr(), text.len());
            }
            sys::rd_kafka_DescribeTopics(client.ptr(), collection, options, queue.ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(collection);
        }
        TopicsQuestion { queue, names: names.to_vec() }
    }

    /// The answer if it comes within `wait`.
    pub(super) fn answer(&self, wait: Duration) -> Option<Result<Vec<TopicInfo>>> {
        self.queue.poll(wait).map(|event| self.read(&event))
    }

    fn read(&self, event: &Event) -> Result<Vec<TopicInfo>> {
        if event.error() != 0 {
            let (code, text) = (code_name(event.error()), event.error_text());
            return Err(Error::retry(code, format!("asking for the topics failed: {text}")));
        }
        // SAFETY: the event is live and of the type asked; what it gives belongs to it.
        let described = unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event.ptr());
            assert!(!result.is_null(), "the queue is for this answer alone");
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count == 0 { &[][..] } else { std::slice::from_raw_parts(topics, count) }
        };
        let infos = described.iter().map(|topic| topic_info(*topic)).collect::<Result<Vec<_>>>()?;
        let in_order = |name: &CString| {
            let name = name.to_string_lossy();
            let left_out = || Error::retry("timed_out", format!("the broker says nothing of the topic `{name}`"));
            infos.iter().find(|info| info.name == name).cloned().ok_or_else(left_out)
        };
        self.names.iter().map(in_order).collect()
    }
}

fn topic_info(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<TopicInfo> {
    // SAFETY: the description is live with its event; everything read here belongs to it.
    unsafe {
        let name = text_of(sys::rd_kafka_TopicDescription_name(topic));
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { 0 } else { sys::rd_kafka_error_code(error) as i32 };
        if code == err::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32 {
            return Ok(TopicInfo { name, id: TopicId::default(), partitions: 0 });
        }
        answer(&format!("asking for the topic `{name}` failed"), code)?;
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let mut bytes = [0; 16];
        if !id.is_null() {
            bytes[..8].copy_from_slice(&sys::rd_kafka_Uuid_most_significant_bits(id).to_be_bytes());
            bytes[8..].copy_from_slice(&sys::rd_kafka_Uuid_least_significant_bits(id).to_be_bytes());
        }
        Ok(TopicInfo { name, id: TopicId(bytes), partitions: partitions as i32 })
    }
}

/// The timestamp of the first record at or after `offset`, read by a short-lived consumer of its own.
pub(super) fn timestamp_at(
    kafka: &KafkaPlan,
    topic: &CStr,
    partition: i32,
    offset: i64,
    wait: Duration,
) -> Result<Option<i64>> {
    let mut settings = Settings::fetching(kafka, 0);
    settings.set("queued.min.messages", 1);
    settings.set("fetch.min.bytes", 1);
    let client = Client::consumer(&settings, 0)?;
    let read = first_timestamp(&client, topic, partition, offset, Instant::now() + wait);
    client.close();
    read
}

fn first_timestamp(
    client: &Arc<Client>,
    topic: &CStr,
    partition: i32,
    offset: i64,
    deadline: Instant,
) -> Result<Option<i64>> {
    let mut list = PartitionList::new();
    list.add(topic, partition, offset);
    assign_alone(client, &list)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the client is live; the message is ours and destroyed below.
        let message = unsafe { sys::rd_kafka_consumer_poll(client.ptr(), millis(left)) };
        if message.is_null() {
            let place = format!("`{}` {partition} at {offset}", topic.to_string_lossy());
            return Err(Error::retry("timed_out", format!("no record of {place} came in time")));
        }
        // SAFETY: the message is live until destroyed; its error is read as a number (newer brokers may send others).
        let (code, timestamp_ms) = unsafe {
            let code = (&raw const (*message).err).cast::<i32>().read();
            let timestamp_ms = if code == 0 { sys::rd_kafka_message_timestamp(message, ptr::null_mut()) } else { -1 };
            sys::rd_kafka_message_destroy(message);
            (code, timestamp_ms)
        };
        if code == 0 {
            return Ok((timestamp_ms >= 0).then_some(timestamp_ms));
        }
        if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
            return Ok(None);
        }
        if code == err::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32 {
            answer("reading one record failed", code)?;
        }
        tracing::debug!("reading one record: {}", error_text(code));
    }
}

/// Assigns partitions without a group, for who reads on his own.
pub(super) fn assign_alone(client: &Client, list: &PartitionList) -> Result<()> {
    // SAFETY: client and list are live; the list is copied.
    let code = unsafe { sys::rd_kafka_assign(client.ptr(), list.ptr()) } as i32;
    answer("assigning the partitions failed", code)
}
