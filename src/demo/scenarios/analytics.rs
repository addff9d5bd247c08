//! Events of a shop, each once, with the country of who acts, and aggregates per minute and country that ClickHouse
//! keeps by itself: dedup, enrichment with a table, a materialized view.
//!
//! The profiles are a table (`retain: forever`): who was here once is known. New users act before their profile is
//! told, guests have none.

use super::users::Users;
use super::{Chance, Claim, Event, Expects, Recent, ResultTable, What};
use jiff::Timestamp;

pub const TOPIC: &str = "events";

/// Of a hundred events, this many repeat an earlier one.
const REPEATED_PERCENT: u64 = 10;
/// Of a hundred events, this many are told late, by up to [`LATE_MS_MAX`].
const LATE_PERCENT: u64 = 5;
const LATE_MS_MAX: u64 = 4_000;
/// How far back a repetition may reach, in events.
const REMEMBERED: usize = 4096;

/// The kinds of events that have an amount come last.
const KINDS: [&str; 5] = ["page_view", "product_view", "add_to_cart", "order", "subscription"];
const FREE_KINDS: u64 = 3;

pub const TABLE_DDL: &str = "\
CREATE TABLE IF NOT EXISTS events
(
    event_id  UUID,
    user_id   UInt64,
    kind      LowCardinality(String),
    amount    Decimal(12, 2),
    ts        DateTime64(3, 'UTC'),
    country   LowCardinality(String) DEFAULT 'unknown',
    tier      LowCardinality(String) DEFAULT 'guest'
)
ENGINE = MergeTree
ORDER BY (ts, event_id)
SETTINGS non_replicated_deduplication_window = 100000";

/// The target of the view remembers tokens as the table does, else a repeated block would be added twice.
pub const MINUTES_DDL: &str = "\
CREATE TABLE IF NOT EXISTS events_per_minute
(
    minute   DateTime('UTC'),
    country  LowCardinality(String),
    events   UInt64,
    revenue  Decimal(18, 2)
)
ENGINE = SummingMergeTree
ORDER BY (minute, country)
SETTINGS non_replicated_deduplication_window = 100000";

pub const VIEW_DDL: &str = "\
CREATE MATERIALIZED VIEW IF NOT EXISTS events_per_minute_view TO events_per_minute AS
SELECT toStartOfMinute(ts) AS minute, country, count() AS events, sum(amount) AS revenue
FROM events
GROUP BY minute, country";

/// The pipeline as a user would write it. The demo sets the variables.
pub const CONFIG: &str = "\
version: 1
kafka:      { brokers: [\"${WEIR_DEMO_KAFKA}\"] }
clickhouse: { url: \"${WEIR_DEMO_CLICKHOUSE}\" }
state:      { rocksdb: { path: \"${WEIR_DEMO_STATE}\" } }
http:       { listen: \"${WEIR_DEMO_HTTP:-127.0.0.1:8080}\" }

pipelines:
  - name: events-with-country
    source:
      kafka: { topic: events }
      time:  { field: ts, unit: iso, lateness: 10s }
    steps:
      - dedup: { key: event_id, window: 24h }
      - join:
          # The newest profile of every user is kept for good.
          with: { kafka: { topic: user-profiles }, time: { field: updated_at, unit: ms }, retain: forever }
          as: user
          key: user_id
          kind: temporal
          # Who has no profile is waited for that long.
          within: 1m
          type: left
    sink:
      clickhouse:
        table: events
        columns: { country: user.country, tier: user.tier }
        batch: { rows: 50000, interval: 1s }
";

pub const RESULT: ResultTable = ResultTable {
    table: "events",
    key: "event_id",
    amount: "amount",
    claims: &[
        Claim {
            name: "events in the minutes",
            query: "SELECT sum(events) FROM events_per_minute",
            expects: Expects::DistinctKeys,
        },
        Claim {
            name: "revenue of the minutes",
            query: "SELECT toUInt64(sum(revenue) * 100) FROM events_per_minute",
            expects: Expects::Cents,
        },
        Claim {
            name: "rows with a country",
            query: "SELECT intDiv(1000 * countIf(country != 'unknown'), greatest(count(), 1)) FROM events",
            expects: Expects::ShareAtLeast(900),
        },
    ],
};

/// The newest minutes first, of each the countries with most events.
pub const AGGREGATES: &str = "\
SELECT formatDateTime(minute, '%H:%i') AS at, toString(country), sum(events) AS many, toString(sum(revenue)) AS much
FROM events_per_minute
GROUP BY minute, country
ORDER BY minute DESC, many DESC, country
LIMIT 5 BY minute LIMIT 10";

/// The stream.
#[derive(Clone, Debug)]
pub struct Analytics {
    chance: Chance,
    users: Users,
    recent: Recent,
}

impl Analytics {
    pub fn new(seed: u64) -> Analytics {
        Analytics { chance: Chance::new(seed), users: Users::new(), recent: Recent::new(REMEMBERED) }
    }

    pub fn next_event(&mut self, now_ms: i64) -> Event {
        let Analytics { chance, users, recent } = self;
        if let Some(profile) = users.next_profile(chance, now_ms) {
            return profile;
        }
        let repeats = chance.percent(REPEATED_PERCENT);
        if let Some(copy) = repeats.then(|| recent.again(TOPIC, chance)).flatten() {
            return copy;
        }
        let user = users.who(chance);
        let late_ms = if chance.percent(LATE_PERCENT) { chance.below(LATE_MS_MAX) } else { 0 };
        let kind = chance.below(KINDS.len() as u64);
        let cents = if kind < FREE_KINDS { 0 } else { 100 + chance.below(50_000) };
        let payload = deed(KINDS[kind as usize], user, cents, now_ms - late_ms as i64, chance);
        let key = user.to_string();
        recent.remember(&key, &payload);
        Event { topic: TOPIC, key, payload, what: What::First { cents } }
    }

    /// The profiles on their way.
    pub fn last_events(&mut self) -> Vec<Event> {
        self.users.late_profiles()
    }
}

fn deed(kind: &str, user: u64, cents: u64, ts_ms: i64, chance: &mut Chance) -> Vec<u8> {
    let ts = Timestamp::from_millisecond(ts_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!(
        r#"{{"event_id":"{}","user_id":{user},"kind":"{kind}","amount":{}.{:02},"page":"/shop/item-{}","ts":"{ts:.3}"}}"#,
        chance.uuid(),
        cents / 100,
        cents % 100,
        chance.below(5000),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::users;
    use super::*;
    use std::collections::BTreeSet;

    const NOW_MS: i64 = 1_790_000_000_000;

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let events = |seed| {
            let mut analytics = Analytics::new(seed);
            (0..500).map(|n| analytics.next_event(NOW_MS + n)).collect::<Vec<_>>()
        };
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
    }

    #[test]
    fn what_is_counted_is_what_the_events_say() {
        let mut analytics = Analytics::new(1);
        let (mut ids, mut copies) = (BTreeSet::new(), 0);
        for n in 0..20_000 {
            let event = analytics.next_event(NOW_MS + n);
            let value: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
            assert_eq!(value["user_id"].to_string(), event.key);
            match event.what {
                What::First { cents } => {
                    assert!(ids.insert(value["event_id"].to_string()));
                    let amount = value["amount"].as_f64().unwrap();
                    assert_eq!((amount * 100.0).round() as u64, cents);
                }
                What::Copy => {
                    assert!(ids.contains(&value["event_id"].to_string()));
                    copies += 1;
                }
                What::Other => assert_eq!(event.topic, users::TOPIC),
            }
        }
        let share = copies as f64 / (ids.len() + copies) as f64;
        assert!((0.09..0.11).contains(&share), "{share}");
    }
}
