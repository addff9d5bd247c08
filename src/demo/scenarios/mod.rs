//! What the demo can show: the traffic of a scenario, its topics, its tables, its pipelines, and what is proven.

pub mod analytics;
pub mod sessions;
pub mod transactions;
mod users;

use std::collections::VecDeque;

/// One record to produce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub topic: &'static str,
    pub key: String,
    pub payload: Vec<u8>,
    pub what: What,
}

/// What an event is for the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The first of its key: a row that carries this amount.
    First { cents: u64 },
    /// Repeats an earlier one word for word.
    Copy,
    /// Never a row of its own: a profile.
    Other,
}

/// The choices of `weir demo --scenario`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Sessions,
    Transactions,
    Analytics,
}

/// The table that the proof asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResultTable {
    pub table: &'static str,
    /// Of this column every value is there once.
    pub key: &'static str,
    /// The sum of this Decimal column is what was produced.
    pub amount: &'static str,
    pub claims: &'static [Claim],
}

/// What ClickHouse has to say besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub name: &'static str,
    /// Answers one UInt64.
    pub query: &'static str,
    pub expects: Expects,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expects {
    /// As many as distinct keys were produced.
    DistinctKeys,
    /// As many as the cents of the distinct keys.
    Cents,
    /// A share in thousandths, and its least value.
    ShareAtLeast(u64),
}

impl Scenario {
    pub const ALL: [Scenario; 3] = [Scenario::Sessions, Scenario::Transactions, Scenario::Analytics];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Sessions => "sessions",
            Scenario::Transactions => "transactions",
            Scenario::Analytics => "analytics",
        }
    }

    pub fn by_name(name: &str) -> Option<Scenario> {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Topics with their partition counts.
    pub fn topics(self) -> &'static [(&'static str, i32)] {
        match self {
            Scenario::Sessions => &[(sessions::TOPIC, sessions::PARTITIONS)],
            Scenario::Transactions => &[(transactions::TOPIC, users::PARTITIONS), (users::TOPIC, users::PARTITIONS)],
            Scenario::Analytics => &[(analytics::TOPIC, users::PARTITIONS), (users::TOPIC, users::PARTITIONS)],
        }
    }

    /// Of all scenarios, each once.
    pub fn all_topics() -> Vec<(&'static str, i32)> {
        let mut topics: Vec<_> = Scenario::ALL.iter().flat_map(|scenario| scenario.topics()).copied().collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// The statements that make its tables, in their order.
    pub fn tables(self) -> &'static [&'static str] {
        match self {
            Scenario::Sessions => &[sessions::TABLE_DDL],
            Scenario::Transactions => &[transactions::TABLE_DDL],
            Scenario::Analytics => &[analytics::TABLE_DDL, analytics::MINUTES_DDL, analytics::VIEW_DDL],
        }
    }

    /// Its pipelines as configuration; connections and folders come from the environment, as named there.
    pub fn config(self) -> &'static str {
        match self {
            Scenario::Sessions => sessions::CONFIG,
            Scenario::Transactions => transactions::CONFIG,
            Scenario::Analytics => analytics::CONFIG,
        }
    }

    pub fn result(self) -> ResultTable {
        match self {
            Scenario::Sessions => {
                ResultTable { table: sessions::TABLE, key: "session_id", amount: "price", claims: &[] }
            }
            Scenario::Transactions => transactions::RESULT,
            Scenario::Analytics => analytics::RESULT,
        }
    }

    /// A query that tells how the aggregates stand: when, of whom, how many (UInt64), how much (text).
    pub fn aggregates(self) -> Option<&'static str> {
        (self == Scenario::Analytics).then_some(analytics::AGGREGATES)
    }

    /// Its traffic; the same seed gives the same events, relative to the times it is asked at.
    pub fn traffic(self, seed: u64) -> Traffic {
        match self {
            Scenario::Sessions => Traffic::Sessions(sessions::Sessions::new(seed)),
            Scenario::Transactions => Traffic::Transactions(transactions::Transactions::new(seed)),
            Scenario::Analytics => Traffic::Analytics(analytics::Analytics::new(seed)),
        }
    }
}

/// A scenario's endless stream of events.
#[derive(Clone, Debug)]
pub enum Traffic {
    Sessions(sessions::Sessions),
    Transactions(transactions::Transactions),
    Analytics(analytics::Analytics),
}

impl Traffic {
    pub fn next_event(&mut self, now_ms: i64) -> Event {
        match self {
            Traffic::Sessions(sessions) => sessions.next_event(now_ms),
            Traffic::Transactions(transactions) => transactions.next_event(now_ms),
            Traffic::Analytics(analytics) => analytics.next_event(now_ms),
        }
    }

    /// What is on its way when the traffic ends.
    pub fn last_events(&mut self) -> Vec<Event> {
        match self {
            Traffic::Sessions(_) => vec![],
            Traffic::Transactions(transactions) => transactions.last_events(),
            Traffic::Analytics(analytics) => analytics.last_events(),
        }
    }
}

/// The last so many events, to be told again.
#[derive(Clone, Debug)]
struct Recent {
    events: VecDeque<(String, Vec<u8>)>,
    most: usize,
}

impl Recent {
    fn new(most: usize) -> Recent {
        Recent { events: VecDeque::with_capacity(most), most }
    }

    fn remember(&mut self, key: &str, payload: &[u8]) {
        if self.events.len() == self.most {
            self.events.pop_front();
        }
        self.events.push_back((key.to_owned(), payload.to_vec()));
    }

    /// One of them once more, if there is any.
    fn again(&self, topic: &'static str, chance: &mut Chance) -> Option<Event> {
        if self.events.is_empty() {
            return None;
        }
        let (key, payload) = self.events[chance.below(self.events.len() as u64) as usize].clone();
        Some(Event { topic, key, payload, what: What::Copy })
    }
}

/// A small generator of numbers (SplitMix64): the same seed, the same numbers, on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// So many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// A random UUID's text (version 4).
    fn uuid(&mut self) -> String {
        let high = (self.draw() & 0xffff_ffff_ffff_0fff) | 0x4000;
        let low = (self.draw() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::error::{Finding, Severity};

    /// What is wrong with its configuration.
    fn findings(scenario: Scenario) -> Vec<Finding> {
        let env = |name: &str| match name {
            "WEIR_DEMO_CLICKHOUSE" => Some("http://localhost:8123".to_owned()),
            _ => Some("127.0.0.1:1".to_owned()),
        };
        let (_, mut findings) = config::parse(scenario.config(), &env);
        findings.retain(|finding| finding.severity != Severity::Note);
        findings
    }

    #[test]
    fn every_scenario_is_found_by_its_name_and_its_configuration_is_good() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::by_name(scenario.name()), Some(scenario));
            assert_eq!(findings(scenario), [], "{}", scenario.name());
        }
        assert_eq!(Scenario::by_name("nonsense"), None);
    }

    #[test]
    fn a_topic_of_several_scenarios_is_made_once() {
        let topics = Scenario::all_topics();
        let names: std::collections::BTreeSet<_> = topics.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), topics.len());
        for scenario in Scenario::ALL {
            assert!(scenario.topics().iter().all(|topic| topics.contains(topic)));
        }
    }
}
