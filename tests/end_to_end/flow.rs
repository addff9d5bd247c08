//! Records with duplicates: some at once, or a stream of them in the background.

use crate::support::kafka::{Kafka, TestRecord};
use crate::support::{PATIENCE, seed};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Draws numbers; the same seed draws the same.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// What a flow sends, without an end.
pub trait Feed: Send + 'static {
    fn next_record(&mut self) -> TestRecord;
}

impl Feed for Events {
    fn next_record(&mut self) -> TestRecord {
        let (id, payload) = self.next();
        TestRecord::new(payload).key(id)
    }
}

/// Writes events: every fourth repeats an id, near or far. Event time moves on by ten seconds each.
pub struct Events {
    dice: Dice,
    prefix: String,
    /// One in so many has an id that other flows have, too; 0: none.
    shared_one_in: u64,
    seq: u64,
    fresh: u64,
}

/// How the ids begin that several flows share.
pub const SHARED: &str = "shared-";
/// How many of those there are.
const SHARED_IDS: u64 = 2_000;

/// The event time of event 0.
pub const BEGIN_MS: i64 = 1_700_000_000_000;
/// From one event to the next.
pub const STEP_MS: i64 = 10_000;

impl Events {
    pub fn new(seed: u64) -> Events {
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        Events { dice, prefix: "id-".to_owned(), shared_one_in: 0, seq: 0, fresh: 0 }
    }

    /// Ids that begin like this; other flows have others.
    pub fn named(self, prefix: &str) -> Events {
        Events { prefix: prefix.to_owned(), ..self }
    }

    /// One in so many has an id that other flows have, too.
    pub fn sharing(self, one_in: u64) -> Events {
        Events { shared_one_in: one_in, ..self }
    }

    /// Id and payload of the next event.
    pub fn next(&mut self) -> (String, String) {
        let id = match self.shared_one_in > 0 && self.dice.below(self.shared_one_in) == 0 {
            true => format!("{SHARED}{}", self.dice.below(SHARED_IDS)),
            false => self.own_id(),
        };
        let (seq, ts) = (self.seq, BEGIN_MS + self.seq as i64 * STEP_MS);
        self.seq += 1;
        let payload = format!(r#"{{"id":"{id}","seq":{seq},"ts":{ts},"text":"weir passes {seq}"}}"#);
        (id, payload)
    }

    fn own_id(&mut self) -> String {
        let repeats = self.fresh > 0 && self.dice.below(4) == 0;
        let number = match repeats {
            true => {
                let reach = if self.dice.below(2) == 0 { 50 } else { self.fresh };
                self.fresh - 1 - self.dice.below(reach.min(self.fresh))
            }
            false => {
                self.fresh += 1;
                self.fresh - 1
            }
        };
        format!("{}{number}", self.prefix)
    }

    pub fn take(&mut self, count: usize) -> Vec<TestRecord> {
        (0..count).map(|_| self.next_record()).collect()
    }
}

/// From a seed that is drawn and said.
pub fn dice(what: &str) -> Dice {
    Dice(seed(what).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
}

/// A producer in the background, until it is stopped.
pub struct Flow<F = Events> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, F)>>,
}

impl Flow {
    pub fn start(kafka: &Kafka, topic: &str, per_second: u64, seed: u64) -> Flow {
        Flow::go_on(kafka, topic, per_second, Events::new(seed))
    }
}

impl<F: Feed> Flow<F> {
    /// Goes on where the events are.
    pub fn go_on(kafka: &Kafka, topic: &str, per_second: u64, events: F) -> Flow<F> {
        let producer = kafka.producer(&[]);
        let (stop, topic) = (Arc::new(AtomicBool::new(false)), topic.to_owned());
        let told = stop.clone();
        let thread = std::thread::spawn(move || produce(&producer, &topic, per_second, events, &told));
        Flow { stop, thread: Some(thread) }
    }

    /// Ends it when the broker has all; how many that were, and the events to go on with.
    pub fn stop(mut self) -> (u64, F) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("the producer's thread does not panic")
    }
}

impl<F> Drop for Flow<F> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn produce<F: Feed>(
    producer: &BaseProducer,
    topic: &str,
    per_second: u64,
    mut events: F,
    stop: &AtomicBool,
) -> (u64, F) {
    let begun = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::SeqCst) {
        let due = begun.elapsed().as_millis() as u64 * per_second / 1000;
        while sent < due {
            let record = events.next_record();
            while producer.send(to(topic, &record)).is_err() {
                // The queue is full: the broker is away.
                producer.poll(Duration::from_millis(10));
            }
            sent += 1;
        }
        producer.poll(Duration::from_millis(5));
    }
    producer.flush(PATIENCE).expect("the broker takes what was sent");
    (sent, events)
}

fn to<'a>(topic: &'a str, record: &'a TestRecord) -> BaseRecord<'a, Vec<u8>, Vec<u8>> {
    let mut sent = BaseRecord::to(topic);
    (sent.partition, sent.timestamp) = (record.partition, record.timestamp_ms);
    (sent.key, sent.payload) = (record.key.as_ref(), record.payload.as_ref());
    sent
}
