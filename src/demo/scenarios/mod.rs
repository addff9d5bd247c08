//! What the demo can show: the traffic of a scenario, its topics, its tables, its pipelines.

pub mod sessions;

/// One record to produce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub topic: &'static str,
    pub key: String,
    pub payload: Vec<u8>,
    /// The first of its key.
    pub first: bool,
}

/// The choices of `weir demo --scenario`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Sessions,
}

impl Scenario {
    pub const ALL: [Scenario; 1] = [Scenario::Sessions];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::Sessions => "sessions",
        }
    }

    pub fn by_name(name: &str) -> Option<Scenario> {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Topics with their partition counts.
    pub fn topics(self) -> &'static [(&'static str, i32)] {
        match self {
            Scenario::Sessions => &[(sessions::TOPIC, sessions::PARTITIONS)],
        }
    }

    /// The statements that make its tables.
    pub fn tables(self) -> &'static [&'static str] {
        match self {
            Scenario::Sessions => &[sessions::TABLE_DDL],
        }
    }

    /// Its pipelines as configuration; connections and folders come from the environment, as named there.
    pub fn config(self) -> &'static str {
        match self {
            Scenario::Sessions => sessions::CONFIG,
        }
    }

    /// The table that the proof asks about, and its key column.
    pub fn result(self) -> (&'static str, &'static str) {
        match self {
            Scenario::Sessions => (sessions::TABLE, "session_id"),
        }
    }

    /// Its traffic; the same seed gives the same events, relative to the times it is asked at.
    pub fn traffic(self, seed: u64) -> Traffic {
        match self {
            Scenario::Sessions => Traffic::Sessions(sessions::Sessions::new(seed)),
        }
    }
}

/// A scenario's endless stream of events.
#[derive(Clone, Debug)]
pub enum Traffic {
    Sessions(sessions::Sessions),
}

impl Traffic {
    pub fn next_event(&mut self, now_ms: i64) -> Event {
        match self {
            Traffic::Sessions(sessions) => sessions.next_event(now_ms),
        }
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

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}
