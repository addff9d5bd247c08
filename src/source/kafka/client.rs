//! The thin safe layer over librdkafka's C API: the client, its queues, partition lists and events.
//!
//! Owns every native handle and destroys it in the order the library asks for (events and queues before their
//! client). Promises: nothing here decides what a rebalance or a commit means. Never runs a client's shutdown
//! on a thread that only held a queue.

use super::events::code_name;
use super::settings::Settings;
use crate::error::{Error, Result};
use rdkafka::bindings as sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// A consumer's native handle. Shared by whoever holds one of its queues.
pub(super) struct Client {
    rk: *mut sys::rd_kafka_t,
}

// SAFETY: `rd_kafka_t` is thread safe by the library's contract; every call on it may come from any thread.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// A consumer with these settings; `events` are the `RD_KAFKA_EVENT_*` its queues shall carry.
    pub(super) fn consumer(settings: &Settings, events: i32) -> Result<Arc<Client>> {
        // SAFETY: no arguments; the result is ours until `rd_kafka_new` takes it.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        let made = set_all(conf, settings).and_then(|()| {
            // SAFETY: `conf` is live; the callback is a plain function that needs no opaque.
            unsafe {
                sys::rd_kafka_conf_set_events(conf, events);
                sys::rd_kafka_conf_set_log_cb(conf, Some(log));
            }
            new_consumer(conf)
        });
        match made {
            Ok(rk) => Ok(Arc::new(Client { rk })),
            Err(message) => {
                // SAFETY: nobody took `conf`: setting it up or `rd_kafka_new` failed, which leaves it to us.
                unsafe { sys::rd_kafka_conf_destroy(conf) };
                Err(Error::stop("kafka_settings", format!("the Kafka client refuses its settings: {message}")))
            }
        }
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.rk
    }

    /// The consumer queue, with the client's own events forwarded to it.
    pub(super) fn consumer_queue(self: &Arc<Client>) -> Queue {
        // SAFETY: the client is live and a consumer with a group, so both calls succeed.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(self.rk);
            sys::rd_kafka_queue_get_consumer(self.rk)
        };
        assert!(!queue.is_null(), "a consumer with a group has a consumer queue");
        Queue { queue, client: self.clone() }
    }

    /// A queue of its own, for the answer of one request.
    pub(super) fn answer_queue(self: &Arc<Client>) -> Queue {
        // SAFETY: the client is live.
        Queue { queue: unsafe { sys::rd_kafka_queue_new(self.rk) }, client: self.clone() }
    }

    /// The partition's own queue, no longer forwarded to the consumer queue. Call before the partition is
    /// assigned, or what was fetched in between comes out at the wrong place.
    pub(super) fn partition_queue(self: &Arc<Client>, topic: &CStr, partition: i32) -> Queue {
        // SAFETY: the client is live and the name ends in NUL; the partition is made where it is not known yet.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(self.rk, topic.as_ptr(), partition) };
        assert!(!queue.is_null(), "a consumer gives a queue for any partition number");
        // SAFETY: the queue is live; a null destination ends the forwarding.
        unsafe { sys::rd_kafka_queue_forward(queue, ptr::null_mut()) };
        Queue { queue, client: self.clone() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let rk = SendPtr(self.rk);
        // Joining the client's threads may take a moment: whoever dropped the last queue must not wait for it.
        let closing = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
            let rk = rk;
            destroy(rk.0);
        });
        if closing.is_err() {
            tracing::warn!("no thread to close a Kafka client on: it stays open until the process ends");
        }
    }
}

impl Client {
    /// Destroys the client now, on this thread, if nobody else holds it; else when its last queue goes.
    pub(super) fn close(self: Arc<Client>) {
        if let Some(client) = Arc::into_inner(self) {
            let client = std::mem::ManuallyDrop::new(client);
            destroy(client.rk);
        }
    }
}

struct SendPtr(*mut sys::rd_kafka_t);
// SAFETY: the pointer is moved to exactly one thread, which destroys the client.
unsafe impl Send for SendPtr {}

/// Ends the client without leaving the group: a static member keeps its partitions for its next start.
fn destroy(rk: *mut sys::rd_kafka_t) {
    const NO_CONSUMER_CLOSE: c_int = 0x8;
    // SAFETY: the last owner calls this once; all queues, lists and topic handles are gone by then.
    unsafe { sys::rd_kafka_destroy_flags(rk, NO_CONSUMER_CLOSE) }
}

fn set_all(conf: *mut sys::rd_kafka_conf_t, settings: &Settings) -> Result<(), String> {
    for (name, value) in settings.iter() {
        let (Ok(c_name), Ok(c_value)) = (CString::new(name), CString::new(value)) else {
            return Err(format!("the setting `{name}` holds a NUL character"));
        };
        let mut text = [0 as c_char; 512];
        // SAFETY: `conf` is live, both strings end in NUL, `text` has the length given.
        let set =
            unsafe { sys::rd_kafka_conf_set(conf, c_name.as_ptr(), c_value.as_ptr(), text.as_mut_ptr(), text.len()) };
        if set != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            return Err(text_of(text.as_ptr()));
        }
    }
    Ok(())
}

fn new_consumer(conf: *mut sys::rd_kafka_conf_t) -> Result<*mut sys::rd_kafka_t, String> {
    let mut text = [0 as c_char; 512];
    // SAFETY: `conf` is live and taken only on success; `text` has the length given.
    let rk = unsafe { sys::rd_kafka_new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, conf, text.as_mut_ptr(), text.len()) };
    if rk.is_null() { Err(text_of(text.as_ptr())) } else { Ok(rk) }
}

/// The client's log lines become ours. What also comes as an error event (lost connections, failed
/// authentication) is said there and only traced here.
unsafe extern "C" fn log(_rk: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    let (facility, line) = (text_of(facility), text_of(line));
    match level {
        _ if matches!(facility.as_str(), "FAIL" | "ERROR" | "MAXPOLL" | "FATAL") => {
            tracing::debug!(target: "weir::kafka", facility, "{line}")
        }
        0..=3 => tracing::error!(target: "weir::kafka", facility, "{line}"),
        4 => tracing::warn!(target: "weir::kafka", facility, "{line}"),
        5 | 6 => tracing::info!(target: "weir::kafka", facility, "{line}"),
        _ => tracing::debug!(target: "weir::kafka", facility, "{line}"),
    }
}

/// A C string as text; a null pointer is empty.
pub(super) fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: every caller passes a NUL-terminated string of the library that is live for this call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A wait as the library wants it.
pub(super) fn millis(wait: Duration) -> c_int {
    wait.as_millis().min(c_int::MAX as u128) as c_int
}

/// A reference to one of the client's queues.
pub(super) struct Queue {
    queue: *mut sys::rd_kafka_queue_t,
    client: Arc<Client>,
}

// SAFETY: queues are locked inside the library and may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The next event, waiting for it at most `wait`.
    pub(super) fn poll(&self, wait: Duration) -> Option<Event> {
        // SAFETY: the queue is live.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue, millis(wait)) };
        (!event.is_null()).then_some(Event { event })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: one reference, taken when this was made; the client is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// One event of a queue.
pub(super) struct Event {
    event: *mut sys::rd_kafka_event_t,
}

impl Event {
    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.event
    }

    pub(super) fn kind(&self) -> i32 {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_type(self.event) }
    }

    pub(super) fn error(&self) -> i32 {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_error(self.event) as i32 }
    }

    pub(super) fn error_text(&self) -> String {
        // SAFETY: the event is live and keeps the text alive.
        text_of(unsafe { sys::rd_kafka_event_error_string(self.event) })
    }

    /// Whether the client is finished; only to be asked of an error event.
    pub(super) fn is_fatal(&self) -> bool {
        // SAFETY: the event is live and an error event, as the caller promises.
        unsafe { sys::rd_kafka_event_error_is_fatal(self.event) != 0 }
    }

    /// What the request carried along.
    pub(super) fn tag(&self) -> u64 {
        // SAFETY: the event is live; the opaque is a number, never followed.
        unsafe { sys::rd_kafka_event_opaque(self.event) as u64 }
    }

    /// The partitions of a rebalance or of a commit's answer.
    pub(super) fn entries(&self) -> Vec<Entry> {
        // SAFETY: the event is live and owns the list; it is only read here.
        unsafe { entries(sys::rd_kafka_event_topic_partition_list(self.event)) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours since `rd_kafka_queue_poll`.
        unsafe { sys::rd_kafka_event_destroy(self.event) }
    }
}

/// One line of a partition list, copied out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub metadata: String,
    /// The library's or the broker's error number; 0 for none.
    pub error: i32,
}

/// # Safety
/// `list` is null or a live list.
unsafe fn entries(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a live list has `cnt` elements at `elems`.
    let (elems, count) = unsafe { ((*list).elems, (*list).cnt as usize) };
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: index < cnt.
        let element = unsafe { elems.add(index) };
        // SAFETY: the element is live; the error is read as a number, for a newer broker may send one that the
        // enum does not know; the metadata has the length the element says.
        let entry = unsafe {
            let metadata = if (*element).metadata.is_null() {
                String::new()
            } else {
                let bytes = std::slice::from_raw_parts((*element).metadata.cast::<u8>(), (*element).metadata_size);
                String::from_utf8_lossy(bytes).into_owned()
            };
            Entry {
                topic: text_of((*element).topic),
                partition: (*element).partition,
                offset: (*element).offset,
                metadata,
                error: (&raw const (*element).err).cast::<i32>().read(),
            }
        };
        entries.push(entry);
    }
    entries
}

/// A list of partitions for a request.
pub(super) struct PartitionList {
    list: *mut sys::rd_kafka_topic_partition_list_t,
}

impl PartitionList {
    pub(super) fn new() -> PartitionList {
        // SAFETY: no preconditions.
        PartitionList { list: unsafe { sys::rd_kafka_topic_partition_list_new(8) } }
    }

    pub(super) fn add(&mut self, topic: &CStr, partition: i32, offset: i64) {
        self.add_with_metadata(topic, partition, offset, "");
    }

    pub(super) fn add_with_metadata(&mut self, topic: &CStr, partition: i32, offset: i64, metadata: &str) {
        // SAFETY: the list is live and the name ends in NUL; the element is valid until the next add.
        let element = unsafe { sys::rd_kafka_topic_partition_list_add(self.list, topic.as_ptr(), partition) };
        // SAFETY: as above; the metadata is memory of the C allocator, which the list frees with itself.
        unsafe {
            (*element).offset = offset;
            if !metadata.is_empty() {
                let copy = libc::malloc(metadata.len());
                assert!(!copy.is_null(), "a few kilobytes of memory for a commit's metadata");
                ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast::<u8>(), metadata.len());
                (*element).metadata = copy.cast::<c_void>();
                (*element).metadata_size = metadata.len();
            }
        }
    }

    pub(super) fn ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.list
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is live.
        unsafe { entries(self.list) }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: the list is ours.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.list) }
    }
}

/// The answer of a call that returns an error object; null means none.
pub(super) fn check(what: &str, error: *mut sys::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is live and ours; its text is copied before it goes.
    let (code, text) = unsafe {
        let code = sys::rd_kafka_error_code(error) as i32;
        let text = text_of(sys::rd_kafka_error_string(error));
        sys::rd_kafka_error_destroy(error);
        (code, text)
    };
    Err(Error::retry(code_name(code), format!("{what}: {text}")))
}
