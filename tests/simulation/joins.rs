//! Pipelines with joins: what they are, their records, and what the definition gives.
//!
//! The records of a partition rise in time, no input is ever idle, and at the end one record of each input moves time
//! past every window: so nothing is late, everything is decided, and of an interval join, an exact one and a chain of
//! them one table is right. A temporal join may take any row that the definition allows, once.

use crate::chance::Chance;
use crate::drive::{round, settle};
use crate::records::{Content, SimRecord};
use crate::rows::{NOBODY, RowId};
use crate::world::{Violation, World};
use std::collections::BTreeSet;
use weir::source::memory::MemoryRecord;

const BEFORE_MS: i64 = 300;
const AFTER_MS: i64 = 500;
const WITHIN_MS: i64 = 400;
/// Before the last records, so much time passes: more than all windows and errors of clocks together.
const QUIET_MS: u64 = 5_000;
/// Keys of one partition: few, so that rows meet.
const KEYS: u64 = 4;
/// The keys of the last records, which meet nobody.
const LAST_KEYS: u32 = 1_000_000;

/// What is joined how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joins {
    /// Two topics, all pairs near in time, and who has nobody.
    Interval,
    /// A topic with itself.
    WithItself,
    /// Each left row with the newest right row at its time.
    Exact,
    /// The same with a table whose rows can be deleted.
    Table,
    /// Each left row with some right row near in time.
    Temporal,
    /// Three topics: an interval join behind another.
    Three,
    /// Each left row with a version of a table that had come by then, or alone.
    AnyVersion,
    /// An interval join, and behind it of each left row the first.
    DedupBehind,
    /// An interval join with a side that is silent from its first record on, and set aside.
    Silent,
}

impl Joins {
    /// Those whose sides all speak.
    pub const ALL: [Joins; 8] = [
        Joins::Interval,
        Joins::WithItself,
        Joins::Exact,
        Joins::Table,
        Joins::Temporal,
        Joins::Three,
        Joins::AnyVersion,
        Joins::DedupBehind,
    ];

    pub fn inputs(self) -> u16 {
        match self {
            Joins::WithItself => 1,
            Joins::Three => 3,
            _ => 2,
        }
    }

    /// The pipeline's steps.
    pub fn steps(self) -> String {
        let interval = format!("kind: interval, before: {BEFORE_MS}ms, after: {AFTER_MS}ms");
        let temporal = format!("kind: temporal, within: {WITHIN_MS}ms, type: left");
        let filter = "steps: [ { filter: \"n > 0\" } ]";
        let join = |topic: u16, name: &str, with: &str, how: &str| {
            format!(
                "      - join: {{ with: {{ kafka: {{ topic: topic{topic} }}, {with} }}, as: {name}, key: k, \
                 max_skew: 1h, {how} }}\n"
            )
        };
        let joins = match self {
            Joins::Interval => join(1, "b", filter, &format!("{interval}, type: full")),
            Joins::DedupBehind | Joins::Silent => join(1, "b", filter, &format!("{interval}, type: left")),
            Joins::WithItself => join(0, "b", filter, &interval),
            Joins::Exact => join(1, "b", filter, &format!("{temporal}, exact: true")),
            Joins::Table => join(1, "b", &format!("{filter}, retain: forever"), &format!("{temporal}, exact: true")),
            Joins::Temporal => join(1, "b", filter, &temporal),
            Joins::AnyVersion => join(1, "b", &format!("{filter}, retain: forever"), &temporal),
            Joins::Three => {
                let first = join(1, "b", filter, &format!("{interval}, type: left"));
                first + &join(2, "c", filter, &format!("{interval}, type: left"))
            }
        };
        // A select, for a plain column would be filled by a right row alone, too.
        let third = if self == Joins::Three { ", cp: c.p, co: c.o" } else { "" };
        let dedup = if self == Joins::DedupBehind { "      - dedup: { key: o, window: 1h }\n" } else { "" };
        format!("      - filter: \"n > 0\"\n{joins}      - select: {{ p: p, o: o, bp: b.p, bo: b.o{third} }}\n{dedup}")
    }
}

/// Makes the records of one partition of one input.
pub struct JoinMaker {
    time_ms: i64,
}

impl JoinMaker {
    pub fn new(begin_ms: i64) -> JoinMaker {
        JoinMaker { time_ms: begin_ms }
    }

    /// The next record, produced at that time of the wall clock.
    pub fn next(&mut self, chance: &mut Chance, now_ms: i64) -> SimRecord {
        self.time_ms = self.time_ms.max(now_ms - chance.below(100) as i64);
        let content = match chance.below(24) {
            0 => Content::Broken,
            1 => Content::Keyless,
            2 => Content::Filtered,
            3 | 4 => Content::Tombstone,
            5 => Content::Marker,
            _ => Content::Good,
        };
        SimRecord { time_ms: self.time_ms, key: chance.below(KEYS) as u32, content, generation: 0 }
    }
}

/// What is sent to Kafka; `None` for a marker. Rows say where they came from, for a joined row has two such places.
pub fn to_kafka(record: &SimRecord, partition: i32, offset: i64) -> Option<MemoryRecord> {
    let SimRecord { time_ms, key, content, .. } = record;
    let place = format!(r#""p":{partition},"o":{offset}"#);
    let value = match content {
        Content::Marker => return None,
        Content::Tombstone => None,
        Content::Broken => Some(format!(r#"{{"g":0,{place},"#)),
        Content::Keyless => Some(format!(r#"{{{place},"n":1}}"#)),
        Content::Filtered => Some(format!(r#"{{{place},"n":0,"k":"k{key}"}}"#)),
        Content::Good | Content::Unfit => Some(format!(r#"{{{place},"n":1,"k":"k{key}"}}"#)),
    };
    let (key, value) = (Some(format!("k{key}").into_bytes()), value.map(String::into_bytes));
    Some(MemoryRecord { timestamp_ms: *time_ms, key, value, headers: vec![] })
}

/// A row on its way through the definition.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// By input; [`NOBODY`] where nobody was met.
    offsets: [i64; 3],
    key: Option<u32>,
    time_ms: i64,
    deletes: bool,
    /// One of the last records, that never come out.
    is_last: bool,
}

impl World {
    /// Time passes every window: everything that waits is decided.
    pub fn let_time_pass(&mut self) -> Result<(), Violation> {
        if self.setup.joins.is_none() {
            return Ok(());
        }
        settle(self)?;
        for _ in 0..2 {
            self.advance(QUIET_MS)?;
            (0..2).try_for_each(|_| round(self))?;
        }
        for input in 0..self.inputs_that_speak() {
            for partition in 0..self.setup.partitions {
                let key = LAST_KEYS + u32::from(input);
                let time_ms = self.wall_ms();
                self.send(input, partition, SimRecord { time_ms, key, content: Content::Good, generation: 0 });
            }
        }
        settle(self)?;
        if self.inputs_that_speak() < self.setup.inputs {
            // The silent side is set aside at last, and what waited for it comes.
            (0..50).try_for_each(|_| round(self))?;
        }
        settle(self)
    }

    /// Every row that the definition gives, once, and no other.
    pub fn judge_joins(&self, joins: Joins) -> Result<(), Violation> {
        if let Some((row, came)) = self.table.rows.iter().find(|(_, came)| came.len() != 1) {
            return Err(Violation(format!("{row:?} came {} times", came.len())));
        }
        let mut unexplained: BTreeSet<RowId> = self.table.rows.keys().copied().collect();
        for partition in 0..self.setup.partitions {
            for allowed in self.choices(joins, partition) {
                let came: Vec<&RowId> = allowed.iter().filter(|row| unexplained.contains(row)).collect();
                let [one] = came[..] else {
                    return Err(Violation(format!("of {allowed:?} came {came:?}, and one is right")));
                };
                let one = *one;
                unexplained.remove(&one);
            }
        }
        match unexplained.first() {
            None => Ok(()),
            Some(row) => Err(Violation(format!("{row:?} came, and the definition does not give it"))),
        }
    }

    /// For each row of a partition that has to come: what it may be.
    fn choices(&self, joins: Joins, partition: i32) -> Vec<BTreeSet<RowId>> {
        let mut choices = self.letters(partition);
        let side = |input| self.rows_of(input, partition);
        let one = |row: &Row| BTreeSet::from([id(partition, row)]);
        match joins {
            Joins::Temporal => {
                let (left, right) = (side(0), side(1));
                choices.extend(left.iter().filter(|left| !left.is_last).map(|left| {
                    let near = |right: &&Row| (right.time_ms - left.time_ms).abs() <= WITHIN_MS;
                    let partners = right.iter().filter(|right| meet(left, right)).filter(near);
                    let mut allowed: BTreeSet<RowId> =
                        partners.map(|right| id(partition, &pair(left, right, 1))).collect();
                    if allowed.is_empty() {
                        allowed.insert(id(partition, left));
                    }
                    allowed
                }));
            }
            Joins::AnyVersion => {
                // A table that is behind shows an older version, or none before the wait is over.
                let (left, right) = (side(0), side(1));
                choices.extend(left.iter().filter(|left| !left.is_last).map(|left| {
                    let versions = right.iter().filter(|right| meet(left, right) && !right.deletes);
                    let paired = versions.map(|right| id(partition, &pair(left, right, 1)));
                    paired.chain([id(partition, left)]).collect()
                }));
            }
            Joins::DedupBehind => {
                let (left, right) = (side(0), side(1));
                choices.extend(left.iter().filter(|left| !left.is_last).map(|left| {
                    interval(std::slice::from_ref(left), &right, 1, true, false)
                        .iter()
                        .map(|row| id(partition, row))
                        .collect()
                }));
            }
            Joins::Silent => choices.extend(interval(&side(0), &side(1), 1, true, false).iter().map(one)),
            Joins::Exact => choices.extend(exact(&side(0), &side(1), Some(WITHIN_MS)).iter().map(one)),
            Joins::Table => choices.extend(exact(&side(0), &side(1), None).iter().map(one)),
            Joins::Interval => choices.extend(interval(&side(0), &side(1), 1, true, true).iter().map(one)),
            Joins::WithItself => {
                // The joined object is the same topic's.
                let right: Vec<Row> =
                    side(0).into_iter().map(|row| Row { offsets: turned(row.offsets), ..row }).collect();
                choices.extend(interval(&side(0), &right, 1, false, false).iter().map(one));
            }
            Joins::Three => {
                let first = interval(&side(0), &side(1), 1, true, false);
                choices.extend(interval(&first, &side(2), 2, true, false).iter().map(one));
            }
        }
        choices
    }

    fn letters(&self, partition: i32) -> Vec<BTreeSet<RowId>> {
        let mut letters = Vec::new();
        for input in 0..self.setup.inputs {
            for (offset, record) in self.logs[&(input, partition)].iter().enumerate() {
                if record.content == Content::Broken {
                    letters.push(BTreeSet::from([RowId::letter(input, partition, offset as i64)]));
                }
            }
        }
        letters
    }

    /// The rows of an input that reach a join.
    fn rows_of(&self, input: u16, partition: i32) -> Vec<Row> {
        let is_table = input == 1 && matches!(self.setup.joins, Some(Joins::Table | Joins::AnyVersion));
        let mut rows = Vec::new();
        for (offset, record) in self.logs[&(input, partition)].iter().enumerate() {
            let deletes = match record.content {
                Content::Good | Content::Keyless => false,
                Content::Tombstone if is_table => true,
                _ => continue,
            };
            let mut offsets = [NOBODY; 3];
            offsets[input as usize] = offset as i64;
            let key = (record.content != Content::Keyless).then_some(record.key);
            rows.push(Row { offsets, key, time_ms: record.time_ms, deletes, is_last: record.key >= LAST_KEYS });
        }
        rows
    }
}

fn turned([left, ..]: [i64; 3]) -> [i64; 3] {
    [NOBODY, left, NOBODY]
}

fn meet(left: &Row, right: &Row) -> bool {
    left.key.is_some() && left.key == right.key
}

fn pair(left: &Row, right: &Row, input: usize) -> Row {
    let mut offsets = left.offsets;
    offsets[input] = right.offsets[input];
    let time_ms = left.time_ms.max(right.time_ms);
    Row { offsets, time_ms, ..*left }
}

/// All pairs within the interval, and who is alone, of the kept sides; the last records never come out.
fn interval(left: &[Row], right: &[Row], input: usize, keeps_left: bool, keeps_right: bool) -> Vec<Row> {
    let (mut rows, mut met) = (Vec::new(), BTreeSet::new());
    for (place, one) in left.iter().enumerate() {
        let mut is_alone = true;
        for (other, right) in right.iter().enumerate() {
            let near = (-BEFORE_MS..=AFTER_MS).contains(&(right.time_ms - one.time_ms));
            if near && meet(one, right) {
                rows.push(pair(one, right, input));
                met.insert(other);
                is_alone = false;
            }
        }
        if is_alone && keeps_left && !left[place].is_last {
            rows.push(*one);
        }
    }
    if keeps_right {
        let alone = right.iter().enumerate().filter(|(place, row)| !met.contains(place) && !row.is_last);
        rows.extend(alone.map(|(_, row)| *row));
    }
    rows
}

/// Each left row with the newest right row at or before it; a deletion is nobody.
fn exact(left: &[Row], right: &[Row], within_ms: Option<i64>) -> Vec<Row> {
    let joined = |left: &Row| {
        let valid = right.iter().filter(|right| meet(left, right) && right.time_ms <= left.time_ms);
        let valid = valid.filter(|right| within_ms.is_none_or(|within_ms| left.time_ms - right.time_ms <= within_ms));
        // Of one time the later arrival, which `max_by_key` takes.
        let newest = valid.max_by_key(|right| right.time_ms).filter(|right| !right.deletes);
        newest.map_or(*left, |right| Row { time_ms: left.time_ms, ..pair(left, right, 1) })
    };
    left.iter().filter(|left| !left.is_last).map(joined).collect()
}

fn id(partition: i32, row: &Row) -> RowId {
    RowId::joined(partition, row.offsets)
}

/// How many rows of the table are of one record, and how many of several.
pub fn alone_and_met(world: &World) -> [usize; 2] {
    let rows: Vec<&RowId> = world.table.rows.keys().filter(|row| !row.is_letter).collect();
    let met = rows.iter().filter(|row| row.has_met()).count();
    [rows.len() - met, met]
}
