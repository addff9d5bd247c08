//! One partition's queue, read by a worker.
//!
//! Owns the queue's wake-up and the place where reading stands. Promises: records of one assignment come out in
//! offset order, each once, none from before the assignment's start; an input whose partition was given up is
//! silent for good and disturbs no later one. Never waits, never commits.
//!
//! The client wakes only when an *empty* queue gets something. So: after a wake, fill until a fill takes nothing.

use super::client::{Queue, text_of};
use super::events::input_error;
use crate::codec::record::RecordBatch;
use crate::error::{Error, Result};
use crate::source::{FetchLimit, Fetched, Input, Wake};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_resp_err_t as err;
use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the coordinator and the worker share of one input.
pub(super) struct Tap {
    queue: Queue,
    topic: CString,
    partition: i32,
    /// Held during a fill, so that a partition is not given up, and then fetched anew, in the middle of one: that
    /// fill would take records that belong to the next input. Otherwise nobody waits for it.
    gate: Mutex<Gate>,
}

struct Gate {
    stage: Stage,
    /// The queue's callback points at this box until the gate closes.
    waker: Option<Box<Arc<dyn Wake>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Taken, not assigned yet.
    Waiting,
    /// Reading begins here.
    Starting(i64),
    Reading,
    Closed,
}

impl Tap {
    pub(super) fn open(queue: Queue, topic: CString, partition: i32, waker: Arc<dyn Wake>) -> Arc<Tap> {
        let waker = Box::new(waker);
        let opaque = (&raw const *waker).cast_mut().cast::<c_void>();
        // SAFETY: the queue is live; the opaque points into the box, which lives until the callback is taken away.
        unsafe { sys::rd_kafka_queue_cb_event_enable(queue.ptr(), Some(wake), opaque) };
        let gate = Mutex::new(Gate { stage: Stage::Waiting, waker: Some(waker) });
        Arc::new(Tap { queue, topic, partition, gate })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().expect("nothing panics while a gate is held")
    }

    pub(super) fn start(&self, offset: i64) {
        self.gate().stage = Stage::Starting(offset);
    }

    /// Wakes the worker for the one fill that a new assignment needs: leftovers of an earlier one keep the queue
    /// from being empty, and then it would stay silent.
    pub(super) fn wake(&self) {
        let waker = self.gate().waker.as_deref().cloned();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From now on the input takes nothing.
    pub(super) fn close(&self) {
        let mut gate = self.gate();
        gate.stage = Stage::Closed;
        if let Some(waker) = gate.waker.take() {
            // SAFETY: the queue is live. The library swaps the callback under the queue's lock, under which it
            // also calls it: afterwards nobody is in it, and the box may go.
            unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.ptr(), None, ptr::null_mut()) };
            drop(waker);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close();
    }
}

/// Called by the client's threads with the queue's lock held.
unsafe extern "C" fn wake(_rk: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the opaque is the tap's box, alive as long as the callback is set.
    let waker = unsafe { &*opaque.cast::<Arc<dyn Wake>>() };
    waker.wake();
}

/// The worker's side.
pub(super) struct KafkaInput {
    tap: Arc<Tap>,
    topic: String,
    with_headers: bool,
    /// The next offset to read; everything below was handed out or is not there.
    offset_next: i64,
    /// The position last told: held back by `FetchLimit::offset_end`, never behind itself.
    told: i64,
    at_end: bool,
    /// The readable end when it was last reached.
    end: i64,
    /// A record that came before it was wanted (`FetchLimit::offset_end`).
    aside: Option<RecordBatch>,
    /// An error that came behind records: those go out first.
    error: Option<Error>,
}

impl KafkaInput {
    pub(super) fn new(tap: Arc<Tap>, with_headers: bool) -> KafkaInput {
        let topic = tap.topic.to_string_lossy().into_owned();
        let (offset_next, told, at_end, end) = (0, 0, false, -1);
        KafkaInput { tap, topic, with_headers, offset_next, told, at_end, end, aside: None, error: None }
    }

    fn begin(&mut self, offset: i64) {
        (self.offset_next, self.told, self.at_end) = (offset, offset, false);
        (self.aside, self.error) = (None, None);
    }

    fn fetched(&mut self, records: usize, offset_end: i64) -> Fetched {
        self.told = self.told.max(self.offset_next.min(offset_end));
        let all_told = self.told == self.offset_next && self.aside.is_none();
        Fetched { records, offset_next: self.told, at_end: self.at_end && all_told }
    }

    /// The record kept aside, if it is wanted now. False if it bars the way.
    fn take_aside(&mut self, batch: &mut RecordBatch, offset_end: i64) -> bool {
        let Some(aside) = &self.aside else { return true };
        let record = aside.records[0];
        if record.offset >= offset_end {
            return false;
        }
        batch.push(
            record.offset,
            record.timestamp_ms,
            record.key.map(|span| aside.slice(span)),
            record.value.map(|span| aside.slice(span)),
            aside.headers(&record),
        );
        self.offset_next = record.offset + 1;
        self.aside = None;
        true
    }

    fn drain(&mut self, batch: &mut RecordBatch, limit: FetchLimit) {
        let (records_before, bytes_before) = (batch.records.len(), batch.bytes.len());
        let mut fill = Fill {
            rk: self.tap.queue.client().ptr(),
            records_max: records_before.saturating_add(limit.records),
            bytes_max: bytes_before.saturating_add(limit.bytes),
            offset_end: limit.offset_end,
            batch,
            input: self,
        };
        let queue = fill.input.tap.queue.ptr();
        let opaque = (&raw mut fill).cast::<c_void>();
        // SAFETY: the queue is live; the callback runs on this thread before the call returns, so `fill` outlives
        // it. Each message stays the library's.
        unsafe { sys::rd_kafka_consume_callback_queue(queue, 0, Some(take), opaque) };
    }
}

impl Input for KafkaInput {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        let tap = self.tap.clone();
        let mut gate = tap.gate();
        match gate.stage {
            Stage::Waiting | Stage::Closed => return Ok(self.fetched(0, limit.offset_end)),
            Stage::Starting(offset) => {
                self.begin(offset);
                gate.stage = Stage::Reading;
            }
            Stage::Reading => {}
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let before = batch.records.len();
        let (full, mut rest) = (limit.records == 0 || limit.bytes == 0, limit);
        if full || !self.take_aside(batch, limit.offset_end) {
            return Ok(self.fetched(0, limit.offset_end));
        }
        rest.records -= batch.records.len() - before;
        if rest.records > 0 {
            self.drain(batch, rest);
        }
        let taken = batch.records.len() - before;
        match self.error.take_if(|_| taken == 0) {
            Some(error) => Err(error),
            None => Ok(self.fetched(taken, limit.offset_end)),
        }
    }

    fn end(&self) -> i64 {
        if self.at_end {
            return self.end;
        }
        let (mut low, mut high) = (-1, -1);
        let rk = self.tap.queue.client().ptr();
        // SAFETY: the client is live, the name ends in NUL, both numbers are there to be filled; no request is made.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(rk, self.tap.topic.as_ptr(), self.tap.partition, &mut low, &mut high)
        };
        let known = if code == err::RD_KAFKA_RESP_ERR_NO_ERROR { high } else { -1 };
        known.max(self.end)
    }
}

impl Drop for KafkaInput {
    fn drop(&mut self) {
        self.tap.close();
    }
}

/// One call's work, seen from the callback.
struct Fill<'a> {
    input: &'a mut KafkaInput,
    batch: &'a mut RecordBatch,
    rk: *mut sys::rd_kafka_t,
    records_max: usize,
    bytes_max: usize,
    offset_end: i64,
}

impl Fill<'_> {
    /// Leaves what is still in the queue there.
    fn stop(&self) {
        // SAFETY: called from within the consume callback, as the library asks.
        unsafe { sys::rd_kafka_yield(self.rk) }
    }

    #[inline]
    fn record(&mut self, message: &sys::rd_kafka_message_t) {
        // Left over from before this assignment, or delivered twice.
        if message.offset < self.input.offset_next {
            return;
        }
        self.input.at_end = false;
        if message.offset >= self.offset_end {
            // The message is gone when the callback returns: keep it for the fill that wants it.
            let mut aside = RecordBatch::default();
            push(&mut aside, message, self.input.with_headers);
            self.input.aside = Some(aside);
            self.input.offset_next = message.offset;
            return self.stop();
        }
        push(self.batch, message, self.input.with_headers);
        self.input.offset_next = message.offset + 1;
        if self.batch.records.len() >= self.records_max || self.batch.bytes.len() >= self.bytes_max {
            self.stop();
        }
    }

    #[cold]
    fn other(&mut self, code: i32, offset: i64, text: *const c_char) {
        if code == err::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32 {
            // One from before this assignment lies below its start; no end is ever behind what was read.
            if offset >= self.input.offset_next {
                self.input.offset_next = offset;
                self.input.end = offset;
                self.input.at_end = true;
            }
            return;
        }
        let text = text_of(text);
        let (topic, partition) = (&self.input.topic, self.input.tap.partition);
        self.input.error = Some(input_error(code, &text, topic, partition, self.input.offset_next));
        self.stop();
    }
}

/// Takes one message of the queue.
unsafe extern "C" fn take(message: *mut sys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the opaque is the `Fill` of the running call, used by this thread alone.
    let fill = unsafe { &mut *opaque.cast::<Fill<'_>>() };
    // SAFETY: the message is live until this returns. Its error is read as a number, because a newer broker may
    // send one that the enum does not know.
    let code = unsafe { (&raw const (*message).err).cast::<i32>().read() };
    if code == 0 {
        // SAFETY: as above, and the error field is one that the enum has.
        return fill.record(unsafe { &*message });
    }
    // SAFETY: as above; an error's payload is its text, which ends in NUL, or null.
    let (offset, text) = unsafe { ((*message).offset, (*message).payload.cast::<c_char>()) };
    fill.other(code, offset, text);
}

#[inline]
pub(super) fn push(batch: &mut RecordBatch, message: &sys::rd_kafka_message_t, with_headers: bool) {
    // SAFETY: the message is live and not an error.
    let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, ptr::null_mut()) };
    // SAFETY: key and payload have the lengths the message says, and live as long as it.
    let (key, value) = unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
    if with_headers {
        batch.push(message.offset, timestamp_ms, key, value, MessageHeaders::of(message));
    } else {
        batch.push(message.offset, timestamp_ms, key, value, []);
    }
}

/// # Safety
/// `start` is null or points at `len` bytes that live for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// Walks the headers of a message.
struct MessageHeaders<'a> {
    headers: *mut sys::rd_kafka_headers_t,
    index: usize,
    message: std::marker::PhantomData<&'a sys::rd_kafka_message_t>,
}

impl<'a> MessageHeaders<'a> {
    fn of(message: &'a sys::rd_kafka_message_t) -> MessageHeaders<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is live; it keeps its headers. Without any, the pointer stays null.
        unsafe { sys::rd_kafka_message_headers(message, &mut headers) };
        MessageHeaders { headers, index: 0, message: std::marker::PhantomData }
    }
}

impl<'a> Iterator for MessageHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut len): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers are live with their message; an index past the end is answered with an error.
        let code = unsafe { sys::rd_kafka_header_get_all(self.headers, self.index, &mut name, &mut value, &mut len) };
        if code != err::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.index += 1;
        // SAFETY: the name ends in NUL, the value has `len` bytes; both live as long as the message.
        unsafe { Some((std::ffi::CStr::from_ptr(name).to_bytes(), bytes(value, len))) }
    }
}
