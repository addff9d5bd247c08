//! The records of the benchmark: shop traffic of about 320 bytes, one in ten a copy of an earlier event; for the joins
//! see `sides.rs`.
//!
//! Every event is a function of its number, so that any process can make it. Half of the copies follow their
//! original within 100,000 records, the others repeat anything that came before. The key is `event_id`, partitioned
//! as the Java client does it, so a copy takes its original's partition.

use crate::sides;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::io::Write;
use std::time::{Duration, Instant};

/// One record in so many is a copy.
pub const DUPLICATE_EVERY: u64 = 10;
/// How far back the near half of the copies reaches.
const NEAR: u64 = 100_000;
/// The first event's time; each is a millisecond later than the one before.
const BEGIN_MS: i64 = 1_790_000_000_000;

const TYPES: [&str; 6] = ["page_view", "search", "add_to_cart", "remove_from_cart", "checkout", "purchase"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "PL", "ES", "NL", "JP"];
const SYSTEMS: [&str; 4] = ["Android 16", "iOS 26.1", "Windows 11", "macOS 26"];

/// What a topic is filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    Events,
    Orders,
    Payments,
    Visits,
    Users,
}

impl Traffic {
    pub fn name(self) -> &'static str {
        match self {
            Traffic::Events => "events",
            Traffic::Orders => "orders",
            Traffic::Payments => "payments",
            Traffic::Visits => "visits",
            Traffic::Users => "users",
        }
    }

    pub fn named(name: &str) -> Traffic {
        use Traffic::*;
        let found = [Events, Orders, Payments, Visits, Users].into_iter().find(|traffic| traffic.name() == name);
        found.unwrap_or_else(|| panic!("there is no traffic `{name}`"))
    }

    /// Writes key and payload of a record by its number; `users` is how many of those there are.
    fn write(self, record: u64, users: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
        key.clear();
        payload.clear();
        match self {
            Traffic::Events => write_event(event_of(record), key, payload),
            Traffic::Orders => sides::write_order(record, key, payload),
            Traffic::Payments => sides::write_payment(record, key, payload),
            Traffic::Visits => sides::write_visit(record, users, key, payload),
            Traffic::Users => sides::write_user(record, key, payload),
        }
    }
}

/// How many different events the first `records` records carry.
pub fn distinct(records: u64) -> u64 {
    records - records / DUPLICATE_EVERY
}

/// The number of the event that record `record` carries: its own, or an earlier one's.
pub fn event_of(record: u64) -> u64 {
    if record % DUPLICATE_EVERY != DUPLICATE_EVERY - 1 {
        return record;
    }
    let chance = mixed(record);
    let reach = if chance & 1 == 0 { record.min(NEAR) } else { record };
    let original = record - 1 - (chance >> 1) % reach;
    // Copies are of originals: the record before one that is itself a copy.
    if original % DUPLICATE_EVERY == DUPLICATE_EVERY - 1 { original - 1 } else { original }
}

/// Writes key and payload of an event.
fn write_event(event: u64, key: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let (high, low, other) = (mixed(event), mixed(event ^ 0x5bd1_e995), mixed(event ^ 0x9e37_79b9));
    let write = "a vector takes everything";
    write!(
        key,
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high & 0xffff,
        high >> 20 & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
    .expect(write);
    payload.extend_from_slice(b"{\"event_id\":\"");
    payload.extend_from_slice(key);
    let pick = |list: &[&'static str], bits: u64| list[bits as usize % list.len()];
    let at = jiff::Timestamp::from_millisecond(BEGIN_MS + event as i64).expect("a time of this century");
    write!(
        payload,
        "\",\"event_type\":\"{}\",\"occurred_at\":\"{at:.3}\",\"user_id\":{},\"session_id\":\"{:016x}\",\
         \"page\":{{\"url\":\"https://shop.example/products/{}\",\"referrer\":\"https://search.example/q\"}},\
         \"device\":{{\"os\":\"{}\"}},\"country\":\"{}\",\"amount\":{}.{:02},\"quantity\":{}}}",
        pick(&TYPES, other),
        1_000_000 + other % 5_000_000,
        mixed(other % 400_000),
        100_000 + (other >> 8) % 50_000,
        pick(&SYSTEMS, other >> 5),
        pick(&COUNTRIES, other >> 11),
        (other >> 20) % 1000,
        (other >> 32) % 100,
        1 + (other >> 40) % 9,
    )
    .expect(write);
}

/// A topic to fill.
pub struct Filling<'a> {
    pub brokers: &'a str,
    pub topic: &'a str,
    pub traffic: Traffic,
    pub records: std::ops::Range<u64>,
    /// `None`: as fast as it goes.
    pub per_second: Option<u64>,
    /// How many users visits are of.
    pub users: u64,
}

/// Produces the records of a range. Returns the payloads' mean.
pub fn produce(filling: Filling<'_>) -> f64 {
    let Filling { brokers, topic, traffic, records, per_second, users } = filling;
    let linger = if per_second.is_some() { "5" } else { "50" };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("batch.size", "262144")
        .set("linger.ms", linger)
        .set("queue.buffering.max.messages", "200000")
        .create()
        .expect("a producer");
    let (mut key, mut payload) = (Vec::new(), Vec::new());
    let (began, count) = (Instant::now(), records.end - records.start);
    let mut bytes = 0;
    for (place, record) in records.enumerate() {
        traffic.write(record, users, &mut key, &mut payload);
        bytes += payload.len() as u64;
        send(&producer, BaseRecord::to(topic).key(&key).payload(&payload));
        if place % 100 == 0 {
            producer.poll(Duration::ZERO);
            if let Some(rate) = per_second {
                let due = Duration::from_secs_f64(place as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes everything");
    bytes as f64 / count as f64
}

fn send<'a>(producer: &BaseProducer, mut record: BaseRecord<'a, Vec<u8>, Vec<u8>>) {
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "cannot produce");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
}

pub fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
