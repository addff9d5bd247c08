//! The records of a simulated topic, and what a single uninterrupted pass over them would give.

use crate::chance::Chance;
use crate::rows::{NOBODY, RowId};
use crate::seams::WALL_START_MS;
use std::collections::BTreeMap;
use weir::source::memory::MemoryRecord;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    Good,
    /// Not JSON.
    Broken,
    /// No key.
    Keyless,
    /// The filter lets it go.
    Filtered,
    /// Its value does not fit the table.
    Unfit,
    Tombstone,
    /// An offset without a record.
    Marker,
}

#[derive(Clone, Debug)]
pub struct SimRecord {
    pub time_ms: i64,
    pub key: u32,
    pub content: Content,
    pub generation: u8,
}

impl SimRecord {
    /// What is sent to Kafka; `None` for a marker.
    pub fn to_kafka(&self) -> Option<MemoryRecord> {
        let SimRecord { time_ms, key, content, generation } = self;
        let value = match content {
            Content::Marker => return None,
            Content::Tombstone => return Some(MemoryRecord { timestamp_ms: *time_ms, ..MemoryRecord::default() }),
            Content::Broken => format!(r#"{{"g":{generation},"#),
            Content::Keyless => format!(r#"{{"g":{generation},"n":1,"v":1}}"#),
            Content::Filtered => format!(r#"{{"g":{generation},"n":0,"k":"k{key}","v":1}}"#),
            Content::Unfit => format!(r#"{{"g":{generation},"n":1,"k":"k{key}","v":"x"}}"#),
            Content::Good => format!(r#"{{"g":{generation},"n":1,"k":"k{key}","v":1}}"#),
        };
        Some(MemoryRecord::new(*time_ms, value))
    }
}

/// Makes the records of one partition. No key keeps coming back at gaps shorter than the window for longer than
/// one window, so that a restore is exact.
pub struct Maker {
    time_ms: i64,
    window_ms: i64,
    keys: u32,
    first_key: u32,
    bursts: BTreeMap<u32, (i64, i64)>,
    /// Whether rows that do not fit are among them.
    has_unfit: bool,
}

impl Maker {
    pub fn new(window_ms: i64, first_key: u32, keys: u32) -> Maker {
        Maker { time_ms: WALL_START_MS - 1000, window_ms, keys, first_key, bursts: BTreeMap::new(), has_unfit: true }
    }

    /// From now on all rows fit, and no key is one of before: what a mended table makes of old rows that did not fit
    /// says nothing about new ones.
    pub fn mend(&mut self) {
        self.has_unfit = false;
        self.first_key += 100_000;
    }

    /// The next record, produced at that time of the wall clock.
    pub fn next(&mut self, chance: &mut Chance, now_ms: i64, generation: u8) -> SimRecord {
        self.time_ms = self.time_ms.max(now_ms - chance.below(100) as i64);
        let time_ms = self.time_ms;
        let mut key = self.first_key + chance.below(self.keys as u64) as u32;
        loop {
            let (from, to) = *self.bursts.get(&key).unwrap_or(&(i64::MIN / 2, i64::MIN / 2));
            if time_ms - from < self.window_ms {
                self.bursts.insert(key, (from, time_ms));
                break;
            }
            if time_ms - to > self.window_ms {
                self.bursts.insert(key, (time_ms, time_ms));
                break;
            }
            // It would make a chain.
            key += self.keys;
        }
        let content = match chance.below(24) {
            0 => Content::Broken,
            1 => Content::Keyless,
            2 => Content::Filtered,
            3 if self.has_unfit => Content::Unfit,
            4 => Content::Tombstone,
            5 => Content::Marker,
            _ => Content::Good,
        };
        SimRecord { time_ms, key, content, generation }
    }
}

/// The oracle: the rows and letters of one log in one pass from its beginning.
pub fn expected(log: &[SimRecord], window_ms: i64, input: u16, partition: i32) -> Vec<RowId> {
    let mut accepted: BTreeMap<u32, i64> = BTreeMap::new();
    let mut rows = Vec::new();
    for (offset, record) in log.iter().enumerate() {
        let is_duplicate = accepted.get(&record.key).is_some_and(|t0| record.time_ms - t0 < window_ms);
        let is_letter = match record.content {
            Content::Broken | Content::Keyless => true,
            Content::Good | Content::Unfit if is_duplicate => continue,
            Content::Unfit => true,
            Content::Good => {
                accepted.insert(record.key, record.time_ms);
                false
            }
            Content::Filtered | Content::Tombstone | Content::Marker => continue,
        };
        let (generation, offset) = (record.generation, offset as i64);
        rows.push(RowId { is_letter, generation, input, partition, offset, beside: [NOBODY; 2] });
    }
    rows
}
