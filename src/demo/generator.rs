//! Produces a scenario's traffic at a rate, and knows what it produced: the ground truth of the proof.
//!
//! Owns the producer and its thread. Waits while a partition is [`BEHIND_BYTES_MAX`] ahead of what the readers'
//! group has committed, because the in-process Kafka forgets what is older than 5 MiB. Never drops an event.

use super::broker::KEPT_BYTES;
use super::scenarios::{Event, Scenario, Traffic, What};
use crate::clock::Clock;
use crate::error::{Error, Result};
use metrics::Counter;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A partition may be this far ahead of its reader: less than the cluster keeps.
pub const BEHIND_BYTES_MAX: u64 = 4 << 20;
/// What the producer may hold back, and what may be sent between two looks at the reader: both come on top.
const QUEUED_BYTES_MAX: u64 = 512 << 10;
const UNSEEN_BYTES_MAX: u64 = 256 << 10;
const _: () = assert!(BEHIND_BYTES_MAX + QUEUED_BYTES_MAX + UNSEEN_BYTES_MAX < KEPT_BYTES);

/// What a record takes in the log beside its key and value, at most.
const RECORD_OVERHEAD_BYTES: u64 = 80;
/// Events are sent in bursts this far apart.
const TICK: Duration = Duration::from_millis(10);
/// How often the group is asked for its position, at least.
const ASK_EVERY: Duration = Duration::from_millis(100);
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// What to produce, and who reads it.
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    pub brokers: String,
    pub scenario: Scenario,
    pub seed: u64,
    pub events_per_second: u64,
    /// The groups that read the topics; the slowest holds the generator back.
    pub groups: Vec<String>,
}

/// What was produced so far: what the result must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroundTruth {
    /// Of all topics.
    pub records: u64,
    /// What a plain insert would have written: records that are rows, copies among them.
    pub rows: u64,
    pub distinct_keys: u64,
    /// The amounts of the distinct keys.
    pub cents: u64,
}

/// A running generator; dropping it stops it.
pub struct Generator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    events_per_second: AtomicU64,
    stop: AtomicBool,
    waiting: AtomicBool,
    records: AtomicU64,
    rows: AtomicU64,
    distinct_keys: AtomicU64,
    cents: AtomicU64,
}

impl Generator {
    pub fn start(options: GeneratorOptions, clock: Arc<dyn Clock>) -> Result<Generator> {
        let shared = Arc::new(Shared {
            events_per_second: AtomicU64::new(options.events_per_second),
            stop: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            records: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            distinct_keys: AtomicU64::new(0),
            cents: AtomicU64::new(0),
        });
        let mut run = Run::new(&options, Arc::clone(&shared), clock)?;
        let thread = std::thread::Builder::new()
            .name("demo-generator".to_owned())
            .spawn(move || run.until_stopped())
            .map_err(|error| stop(format!("cannot start the generator's thread: {error}")))?;
        Ok(Generator { shared, thread: Some(thread) })
    }

    /// Changes the rate; 0 pauses.
    pub fn set_events_per_second(&self, events_per_second: u64) {
        self.shared.events_per_second.store(events_per_second, Ordering::Relaxed);
    }

    /// What Kafka has.
    pub fn truth(&self) -> GroundTruth {
        self.shared.truth()
    }

    /// Held back because the reader is behind.
    pub fn is_waiting(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Stops, waits until Kafka has everything, and says what it has.
    pub fn stop(mut self) -> Result<GroundTruth> {
        self.join()?;
        Ok(self.truth())
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(stop("the generator's thread panicked".to_owned())))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.join();
    }
}

impl Shared {
    fn truth(&self) -> GroundTruth {
        GroundTruth {
            records: self.records.load(Ordering::Acquire),
            rows: self.rows.load(Ordering::Acquire),
            distinct_keys: self.distinct_keys.load(Ordering::Acquire),
            cents: self.cents.load(Ordering::Acquire),
        }
    }

    /// Kafka has a record of this kind. The number of records comes last: who sees it sees what belongs to it.
    fn count(&self, what: What) {
        let cents = match what {
            What::First { cents } => Some(cents),
            What::Copy | What::Other => None,
        };
        self.rows.fetch_add(u64::from(what != What::Other), Ordering::Release);
        self.distinct_keys.fetch_add(u64::from(cents.is_some()), Ordering::Release);
        self.cents.fetch_add(cents.unwrap_or(0), Ordering::Release);
        self.records.fetch_add(1, Ordering::Release);
    }
}

/// The thread's own things.
struct Run {
    traffic: Traffic,
    producer: BaseProducer<Delivered>,
    readers: Vec<BaseConsumer>,
    topics: &'static [(&'static str, i32)],
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// When the readers were asked, and what was sent since.
    asked: Instant,
    unseen_bytes: u64,
}

impl Run {
    fn new(options: &GeneratorOptions, shared: Arc<Shared>, clock: Arc<dyn Clock>) -> Result<Run> {
        let client = |error: KafkaError| stop(format!("cannot reach the demo's Kafka: {error}"));
        let topics = options.scenario.topics();
        let count = |(topic, _): &(&'static str, i32)| {
            (*topic, metrics::counter!("weir_demo_records_produced_total", "topic" => *topic))
        };
        let delivered = Delivered {
            shared: Arc::clone(&shared),
            counters: topics.iter().map(count).collect(),
            logs: Mutex::default(),
            failure: Mutex::default(),
        };
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &options.brokers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", (QUEUED_BYTES_MAX >> 10).to_string())
            .create_with_context(delivered)
            .map_err(client)?;
        let reader = |group: &String| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &options.brokers).set("group.id", group);
            config.create::<BaseConsumer>().map_err(client)
        };
        let readers = options.groups.iter().map(reader).collect::<Result<_>>()?;
        let traffic = options.scenario.traffic(options.seed);
        Ok(Run { traffic, producer, readers, topics, shared, clock, asked: Instant::now(), unseen_bytes: 0 })
    }

    fn until_stopped(&mut self) -> Result<()> {
        // Where the rate is counted from: moved on whenever it changes or the generator had to wait, so that what
        // was not sent then is not made up for in one burst.
        let (mut since, mut sent, mut rate) = (Instant::now(), 0, 0);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let wanted = self.shared.events_per_second.load(Ordering::Relaxed);
            if self.asked.elapsed() >= ASK_EVERY {
                self.look_at_readers()?;
            }
            if wanted != rate || self.is_waiting() {
                (since, sent, rate) = (Instant::now(), 0, wanted);
            }
            let due = (since.elapsed().as_secs_f64() * rate as f64) as u64;
            while sent < due && !self.is_waiting() && !self.shared.stop.load(Ordering::Relaxed) {
                self.send_next()?;
                sent += 1;
            }
            self.producer.poll(Duration::ZERO);
            std::thread::sleep(TICK);
        }
        for event in self.traffic.last_events() {
            self.send(event)?;
        }
        self.producer.flush(BROKER_WAIT).map_err(|error| stop(format!("cannot produce what is left: {error}")))?;
        self.producer.context().check()
    }

    fn send_next(&mut self) -> Result<()> {
        let event = self.traffic.next_event(self.clock.wall_ms());
        self.send(event)
    }

    fn send(&mut self, event: Event) -> Result<()> {
        let Event { topic, key, payload, what } = event;
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(what)).key(&key).payload(&payload);
        while let Err((error, back)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(stop(format!("cannot produce: {error}")));
            }
            self.producer.poll(TICK);
            record = back;
        }
        self.unseen_bytes += (key.len() + payload.len()) as u64 + RECORD_OVERHEAD_BYTES;
        if self.unseen_bytes >= UNSEEN_BYTES_MAX {
            self.look_at_readers()?;
        }
        self.producer.context().check()
    }

    fn is_waiting(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    fn look_at_readers(&mut self) -> Result<()> {
        self.producer.poll(Duration::ZERO);
        self.shared.waiting.store(self.is_ahead()?, Ordering::Relaxed);
        (self.asked, self.unseen_bytes) = (Instant::now(), 0);
        Ok(())
    }

    /// Whether some partition is too far ahead of some group's committed position.
    fn is_ahead(&self) -> Result<bool> {
        let mut places = TopicPartitionList::new();
        for (topic, partitions) in self.topics {
            places.add_partition_range(topic, 0, partitions - 1);
        }
        for reader in &self.readers {
            let committed = reader
                .committed_offsets(places.clone(), BROKER_WAIT)
                .map_err(|error| stop(format!("cannot ask the readers' position: {error}")))?;
            for place in committed.elements() {
                let offset = place.offset().to_raw().unwrap_or(0).max(0);
                let behind = self.producer.context().bytes_behind(place.topic(), place.partition(), offset);
                if behind >= BEHIND_BYTES_MAX {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Hears what Kafka took, and where it lies.
struct Delivered {
    shared: Arc<Shared>,
    counters: BTreeMap<&'static str, Counter>,
    /// By topic and partition; touched by the generator's thread only (the lock is for the compiler).
    logs: Mutex<BTreeMap<(String, i32), Log>>,
    failure: Mutex<Option<Error>>,
}

/// A partition's log, as far as no group has passed it: next offset and bytes up to there.
#[derive(Default)]
struct Log {
    bytes: u64,
    marks: VecDeque<(i64, u64)>,
}

impl Delivered {
    fn check(&self) -> Result<()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    fn bytes_behind(&self, topic: &str, partition: i32, offset: i64) -> u64 {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.get_mut(&(topic.to_owned(), partition)) else { return 0 };
        log.behind(offset)
    }
}

impl Log {
    fn add(&mut self, offset_next: i64, bytes: u64) {
        self.bytes += bytes;
        self.marks.push_back((offset_next, self.bytes));
    }

    /// Forgets what twice the allowed distance has passed; several groups ask in turn.
    fn behind(&mut self, offset: i64) -> u64 {
        while self.marks.front().is_some_and(|(_, bytes)| self.bytes - bytes > 2 * BEHIND_BYTES_MAX) {
            self.marks.pop_front();
        }
        let passed = self.marks.partition_point(|(next, _)| *next <= offset);
        match passed.checked_sub(1) {
            Some(place) => self.bytes - self.marks[place].1,
            None => self.bytes,
        }
    }
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<What>;

    fn delivery(&self, result: &DeliveryResult<'_>, what: Box<What>) {
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                let failure = stop(format!("the demo's Kafka did not take a record: {error}"));
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                return;
            }
        };
        let bytes = (message.key_len() + message.payload_len()) as u64 + RECORD_OVERHEAD_BYTES;
        let place = (message.topic().to_owned(), message.partition());
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.entry(place).or_default().add(message.offset() + 1, bytes);
        if let Some(counter) = self.counters.get(message.topic()) {
            counter.increment(1);
        }
        self.shared.count(*what);
    }
}

fn stop(message: String) -> Error {
    Error::stop("demo_generator", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_knows_the_bytes_behind_an_offset() {
        let mut log = Log::default();
        assert_eq!(log.behind(0), 0);
        (1..=10).for_each(|offset_next| log.add(offset_next, 100));
        assert_eq!((log.behind(0), log.behind(4), log.behind(10)), (1000, 600, 0));
    }

    #[test]
    fn a_log_forgets_what_is_far_passed() {
        let mut log = Log::default();
        (1..=20).for_each(|offset_next| log.add(offset_next, BEHIND_BYTES_MAX / 2));
        assert_eq!(log.behind(20), 0);
        assert!(log.marks.len() <= 5, "{} marks", log.marks.len());
        assert!(log.behind(0) >= BEHIND_BYTES_MAX, "a reader that is far behind still holds back");
    }
}
