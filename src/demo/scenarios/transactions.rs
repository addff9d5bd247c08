//! Payments with the profile of who pays: a temporal join, then dedup.
//!
//! About a tenth of the payments is sent again, some profiles come after the payments of their users, and guests
//! have none: those payments wait for five minutes and come out without one.

use super::users::Users;
use super::{Chance, Claim, Event, Expects, Recent, ResultTable, What};
use jiff::Timestamp;

pub const TOPIC: &str = "transactions";

/// Of a hundred payments, this many repeat an earlier one.
const REPEATED_PERCENT: u64 = 10;
/// Of a hundred payments, this many are told late, by up to [`LATE_MS_MAX`].
const LATE_PERCENT: u64 = 5;
const LATE_MS_MAX: u64 = 4_000;
/// How far back a repetition may reach, in payments.
const REMEMBERED: usize = 4096;

const METHODS: [&str; 4] = ["card", "transfer", "wallet", "invoice"];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "PLN"];

pub const TABLE_DDL: &str = "\
CREATE TABLE IF NOT EXISTS enriched_transactions
(
    transaction_id  UUID,
    user_id         UInt64,
    amount          Decimal(12, 2),
    currency        LowCardinality(String),
    method          LowCardinality(String),
    ts              DateTime64(3, 'UTC'),
    user_name       Nullable(String),
    user_country    Nullable(String),
    user_tier       Nullable(String)
)
ENGINE = MergeTree
ORDER BY (ts, transaction_id)
SETTINGS non_replicated_deduplication_window = 100000";

/// The pipeline as a user would write it. The demo sets the variables.
pub const CONFIG: &str = "\
version: 1
kafka:      { brokers: [\"${WEIR_DEMO_KAFKA}\"] }
clickhouse: { url: \"${WEIR_DEMO_CLICKHOUSE}\" }
state:      { rocksdb: { path: \"${WEIR_DEMO_STATE}\" } }
http:       { listen: \"${WEIR_DEMO_HTTP:-127.0.0.1:8080}\" }

pipelines:
  - name: transaction-user-join
    source:
      kafka: { topic: transactions }
      time:  { field: ts, unit: iso, lateness: 10s }
    steps:
      - join:
          with: { kafka: { topic: user-profiles }, time: { field: updated_at, unit: ms, lateness: 10s } }
          as: user
          key: user_id
          kind: temporal
          within: 5m
          type: left
      - dedup: { key: transaction_id, window: 12h }
    sink:
      clickhouse:
        table: enriched_transactions
        columns: { user_name: user.name, user_country: user.country, user_tier: user.tier }
        batch: { rows: 50000, interval: 1s }
";

pub const RESULT: ResultTable = ResultTable {
    table: "enriched_transactions",
    key: "transaction_id",
    amount: "amount",
    claims: &[Claim {
        name: "rows with their profile",
        query: "SELECT intDiv(1000 * countIf(isNotNull(user_country)), greatest(count(), 1)) FROM enriched_transactions",
        expects: Expects::ShareAtLeast(900),
    }],
};

/// The stream.
#[derive(Clone, Debug)]
pub struct Transactions {
    chance: Chance,
    users: Users,
    recent: Recent,
}

impl Transactions {
    pub fn new(seed: u64) -> Transactions {
        Transactions { chance: Chance::new(seed), users: Users::new(), recent: Recent::new(REMEMBERED) }
    }

    pub fn next_event(&mut self, now_ms: i64) -> Event {
        let Transactions { chance, users, recent } = self;
        if let Some(profile) = users.next_profile(chance, now_ms) {
            return profile;
        }
        let repeats = chance.percent(REPEATED_PERCENT);
        if let Some(copy) = repeats.then(|| recent.again(TOPIC, chance)).flatten() {
            return copy;
        }
        let user = users.who(chance);
        let late_ms = if chance.percent(LATE_PERCENT) { chance.below(LATE_MS_MAX) } else { 0 };
        let cents = 100 + chance.below(50_000);
        let payload = payment(user, cents, now_ms - late_ms as i64, chance);
        let key = user.to_string();
        recent.remember(&key, &payload);
        Event { topic: TOPIC, key, payload, what: What::First { cents } }
    }

    /// The profiles on their way.
    pub fn last_events(&mut self) -> Vec<Event> {
        self.users.late_profiles()
    }
}

fn payment(user: u64, cents: u64, ts_ms: i64, chance: &mut Chance) -> Vec<u8> {
    let ts = Timestamp::from_millisecond(ts_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!(
        r#"{{"transaction_id":"{}","user_id":{user},"amount":{}.{:02},"currency":"{}","method":"{}","ts":"{ts:.3}"}}"#,
        chance.uuid(),
        cents / 100,
        cents % 100,
        chance.pick(&CURRENCIES),
        chance.pick(&METHODS),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NOW_MS: i64 = 1_790_000_000_000;

    fn events(seed: u64, count: i64) -> Vec<Event> {
        let mut transactions = Transactions::new(seed);
        (0..count).map(|n| transactions.next_event(NOW_MS + n)).collect()
    }

    fn value(event: &Event) -> serde_json::Value {
        serde_json::from_slice(&event.payload).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(events(7, 500), events(7, 500));
        assert_ne!(events(7, 500), events(8, 500));
    }

    #[test]
    fn a_tenth_of_the_payments_repeats_an_earlier_one_with_its_key() {
        let payments: Vec<Event> = events(1, 40_000).into_iter().filter(|event| event.topic == TOPIC).collect();
        let mut first = BTreeMap::new();
        let mut copies = 0;
        for event in &payments {
            match event.what {
                What::First { .. } => assert_eq!(first.insert(event.payload.clone(), event.key.clone()), None),
                What::Copy => {
                    assert_eq!(first.get(&event.payload), Some(&event.key));
                    copies += 1;
                }
                What::Other => panic!("a payment is one or the other"),
            }
        }
        let share = copies as f64 / payments.len() as f64;
        assert!((0.09..0.11).contains(&share), "{share}");
    }

    #[test]
    fn both_topics_are_keyed_by_the_user() {
        for event in events(2, 2_000) {
            assert_eq!(value(&event)["user_id"].to_string(), event.key);
        }
    }

    #[test]
    fn the_amounts_are_the_cents_that_are_counted() {
        for event in events(3, 2_000) {
            let What::First { cents } = event.what else { continue };
            assert_eq!(
                format!("{:.2}", value(&event)["amount"].as_f64().unwrap()),
                format!("{}.{:02}", cents / 100, cents % 100)
            );
        }
    }
}
