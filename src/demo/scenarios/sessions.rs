//! The session stream of an e-commerce shop: one record a session, about a tenth of them sent again, some late.
//!
//! A browser tells the shop when a session has ended, and tells it again when it is not sure that it was heard.

use super::{Chance, Event, Recent, What};
use jiff::Timestamp;
use std::io::Write;

pub const TOPIC: &str = "user-sessions";
pub const PARTITIONS: i32 = 4;
pub const TABLE: &str = "user_sessions_clean";

/// Of a hundred records, this many repeat an earlier one.
const REPEATED_PERCENT: u64 = 10;
/// Of a hundred sessions, this many are told late, by up to [`LATE_MS_MAX`].
const LATE_PERCENT: u64 = 5;
const LATE_MS_MAX: u64 = 4 * 60_000;
/// How far back a repetition may reach, in sessions.
const REMEMBERED: usize = 4096;

pub const TABLE_DDL: &str = include_str!("../../../config/clickhouse/user_sessions_clean.sql");

/// The pipeline as a user would write it. The demo sets the variables.
pub const CONFIG: &str = "\
version: 1
kafka:      { brokers: [\"${WEIR_DEMO_KAFKA}\"] }
clickhouse: { url: \"${WEIR_DEMO_CLICKHOUSE}\" }
state:      { rocksdb: { path: \"${WEIR_DEMO_STATE}\" } }
http:       { listen: \"${WEIR_DEMO_HTTP:-127.0.0.1:8080}\" }

pipelines:
  - name: user-session-dedup
    source:
      kafka: { topic: user-sessions }
      time:  { field: ts, unit: iso, lateness: 5m }
    steps:
      - dedup: { key: session_id, window: 24h }
    sink:
      clickhouse: { table: user_sessions_clean, batch: { rows: 50000, interval: 1s } }
";

const EVENTS: [&str; 5] = ["page_view", "product_view", "add_to_cart", "checkout", "purchase"];
const CURRENCIES: [(&str, &str); 6] =
    [("DE", "EUR"), ("FR", "EUR"), ("US", "USD"), ("GB", "GBP"), ("JP", "JPY"), ("PL", "PLN")];
const DEVICES: [&str; 4] = ["desktop", "mobile", "tablet", "app"];
const REFERRERS: [&str; 5] = ["direct", "search", "newsletter", "social", "partner"];
const PRODUCTS: [&str; 8] = [
    "running shoes trail 42",
    "espresso machine steel",
    "wool blanket grey",
    "mechanical keyboard 75",
    "cast iron pan 28 cm",
    "rain jacket men L",
    "desk lamp oak",
    "travel backpack 35 l",
];

/// The stream.
#[derive(Clone, Debug)]
pub struct Sessions {
    chance: Chance,
    recent: Recent,
}

impl Sessions {
    pub fn new(seed: u64) -> Sessions {
        Sessions { chance: Chance::new(seed), recent: Recent::new(REMEMBERED) }
    }

    pub fn next_event(&mut self, now_ms: i64) -> Event {
        let repeats = self.chance.percent(REPEATED_PERCENT);
        if let Some(copy) = repeats.then(|| self.recent.again(TOPIC, &mut self.chance)).flatten() {
            return copy;
        }
        let (key, payload, cents) = self.new_session(now_ms);
        self.recent.remember(&key, &payload);
        Event { topic: TOPIC, key, payload, what: What::First { cents } }
    }

    fn new_session(&mut self, now_ms: i64) -> (String, Vec<u8>, u64) {
        let chance = &mut self.chance;
        let key = chance.uuid();
        let late_ms = if chance.percent(LATE_PERCENT) { chance.below(LATE_MS_MAX) } else { 0 };
        let ts = Timestamp::from_millisecond(now_ms - late_ms as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let event = *chance.pick(&EVENTS);
        let product = match event {
            "page_view" => "null".to_owned(),
            _ => format!("\"{}\"", chance.pick(&PRODUCTS)),
        };
        let cents = 199 + chance.below(29_800);
        let (country, currency) = chance.pick(&CURRENCIES);
        let mut payload = Vec::with_capacity(360);
        write!(
            payload,
            r#"{{"session_id":"{key}","user_id":{},"event":"{event}","page":"/shop/category-{}/item-{}","product":{product},"price":{}.{:02},"currency":"{currency}","country":"{country}","device":"{}","referrer":"{}","ts":"{ts:.3}"}}"#,
            100_000 + chance.below(900_000),
            chance.below(40),
            chance.below(5000),
            cents / 100,
            cents % 100,
            chance.pick(&DEVICES),
            chance.pick(&REFERRERS),
        )
        .expect("a vector takes every write");
        (key, payload, cents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NOW_MS: i64 = 1_790_000_000_000;

    fn events(seed: u64, count: usize) -> Vec<Event> {
        let mut sessions = Sessions::new(seed);
        (0..count as i64).map(|n| sessions.next_event(NOW_MS + n)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(events(7, 500), events(7, 500));
        assert_ne!(events(7, 5), events(8, 5));
    }

    #[test]
    fn a_tenth_repeats_an_earlier_record_word_for_word() {
        let mut first = BTreeMap::new();
        let mut repeated = 0;
        for event in events(1, 20_000) {
            match first.get(&event.key) {
                None => assert!(matches!(event.what, What::First { .. })),
                Some(payload) => {
                    assert_eq!((payload, event.what), (&event.payload, What::Copy));
                    repeated += 1;
                    continue;
                }
            }
            first.insert(event.key, event.payload);
        }
        assert!((1800..2200).contains(&repeated), "{repeated} of 20000");
    }

    #[test]
    fn a_payload_is_json_of_about_300_bytes_with_the_tables_columns() {
        for event in events(2, 1000) {
            let value: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(value["session_id"], event.key.as_str());
            for (name, _) in value.as_object().unwrap() {
                assert!(TABLE_DDL.contains(&format!("    {name} ")), "{name} is a column");
            }
            assert!((240..360).contains(&event.payload.len()), "{} bytes", event.payload.len());
        }
    }

    #[test]
    fn some_sessions_are_told_late() {
        let late = events(3, 2000)
            .iter()
            .filter(|event| {
                let value: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
                let ts: Timestamp = value["ts"].as_str().unwrap().parse().unwrap();
                ts.as_millisecond() < NOW_MS - 1000
            })
            .count();
        assert!((50..200).contains(&late), "{late} of 2000");
    }
}
