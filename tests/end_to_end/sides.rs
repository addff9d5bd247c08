//! Records of the two sides of a join: rows near in time share keys, some have no partner, some have no key.

use crate::flow::{BEGIN_MS, Dice, Feed};
use crate::support::kafka::TestRecord;

/// From one record of a side to the next.
const STEP_MS: i64 = 100;
/// A record's time lies so far behind the newest of its side, at most.
const JITTER_MS: u64 = 2_000;
/// More than the jitter: no record is late, so that there is one right result.
pub const LATENESS: &str = "3s";
pub const LATENESS_MS: i64 = 3_000;
/// So many keys are in use at a time, each for about this many records of a side.
const KEYS_AT_A_TIME: u64 = 30;
const RECORDS_A_KEY: u64 = 3;
/// A partition's last records come so much later than all before them.
const END_AFTER_MS: i64 = 3_600_000;

/// Whose records they are; also the name of the field that numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    pub fn field(self) -> &'static str {
        match self {
            Side::Left => "l",
            Side::Right => "r",
        }
    }
}

/// Writes the records of one side, as `{"id": "k7", "l": 21, "ts": …}`, keyed by `id`.
pub struct SideFeed {
    side: Side,
    dice: Dice,
    number: u64,
    /// One record in so many deletes its key; 0: none.
    deletions_one_in: u64,
    has_nulls: bool,
}

impl SideFeed {
    pub fn new(side: Side, seed: u64) -> SideFeed {
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        SideFeed { side, dice, number: 0, deletions_one_in: 0, has_nulls: true }
    }

    /// A table's records: one in so many deletes its key, and none is without one.
    pub fn of_a_table(self, deletions_one_in: u64) -> SideFeed {
        SideFeed { deletions_one_in, has_nulls: false, ..self }
    }

    pub fn take(&mut self, count: usize) -> Vec<TestRecord> {
        (0..count).map(|_| self.next_record()).collect()
    }

    /// One record for each partition, of a key of its own: they move time past every window.
    pub fn ends(&mut self, partitions: i32) -> Vec<TestRecord> {
        let ts = self.newest_ms() + END_AFTER_MS;
        let end = |partition| {
            let id = format!("end-{}-{partition}", self.side.field());
            self.record(&id, Some(&id), 1_000_000 + self.number, ts).partition(partition)
        };
        let ends = (0..partitions).map(end).collect();
        self.number += (END_AFTER_MS / STEP_MS) as u64;
        ends
    }

    fn newest_ms(&self) -> i64 {
        BEGIN_MS + self.number as i64 * STEP_MS
    }

    /// The event time is the Kafka timestamp, too, for tombstones have no other.
    fn record(&self, key: &str, id: Option<&str>, number: u64, ts: i64) -> TestRecord {
        let id = id.map_or("null".to_owned(), |id| format!("\"{id}\""));
        let payload = format!(r#"{{"id":{id},"{}":{number},"ts":{ts}}}"#, self.side.field());
        TestRecord::new(payload).key(key).timestamp_ms(ts)
    }
}

impl Feed for SideFeed {
    fn next_record(&mut self) -> TestRecord {
        let ts = self.newest_ms() - self.dice.below(JITTER_MS) as i64;
        let number = self.number;
        self.number += 1;
        let shared = format!("k{}", number / RECORDS_A_KEY + self.dice.below(KEYS_AT_A_TIME));
        match self.dice.below(50) {
            0 if self.has_nulls => self.record(&shared, None, number, ts),
            1..4 => {
                let alone = format!("alone-{}-{number}", self.side.field());
                self.record(&alone, Some(&alone), number, ts)
            }
            _ if self.deletions_one_in > 0 && self.dice.below(self.deletions_one_in) == 0 => {
                TestRecord { payload: None, ..self.record(&shared, None, number, ts) }
            }
            _ => self.record(&shared, Some(&shared), number, ts),
        }
    }
}
