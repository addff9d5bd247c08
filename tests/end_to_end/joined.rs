//! What a join's table must hold, by its definition applied to both topics as they are; nothing is clever here.
//!
//! No record of these topics is late (`sides.rs`), so an interval join and an `exact` one have one right result.

use crate::sides::{LATENESS_MS, Side};
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, Produced};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A row of the table: the key, and the numbers of the rows that met.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Joined {
    pub id: String,
    pub l: Option<u64>,
    pub r: Option<u64>,
}

/// A record of one side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    partition: i32,
    offset: i64,
    id: Option<String>,
    /// `None`: it deletes its key.
    number: Option<u64>,
    ts: i64,
}

/// Both sides, and how far time has come in each partition.
pub struct Topics {
    pub left: Vec<Seen>,
    pub right: Vec<Seen>,
    watermarks: HashMap<i32, i64>,
}

impl Topics {
    pub fn read(kafka: &Kafka, left: &str, right: &str) -> Topics {
        let of = |topic: &str, side| -> Vec<Seen> {
            kafka.read_all(topic).iter().map(|record| seen(record, side)).collect()
        };
        let (left, right) = (of(left, Side::Left), of(right, Side::Right));
        let watermarks = watermarks(&left, &right);
        Topics { left, right, watermarks }
    }

    /// Every pair of equal keys whose times lie so near, both ends included.
    pub fn pairs(&self, before_ms: i64, after_ms: i64) -> Vec<(&Seen, &Seen)> {
        let rights = by_key(&self.right);
        let mut pairs = Vec::new();
        for left in &self.left {
            let partners = key(left).and_then(|key| rights.get(&key)).into_iter().flatten();
            let near = partners.filter(|right| (-before_ms..=after_ms).contains(&(right.ts - left.ts)));
            pairs.extend(near.map(|right| (left, *right)));
        }
        pairs
    }

    /// A full interval join: pairs, and who has nobody once time has passed him.
    pub fn full_interval(&self, before_ms: i64, after_ms: i64) -> Vec<Joined> {
        self.full_interval_at(before_ms, after_ms, |partition| self.watermarks[&partition])
    }

    /// The same when time has come to its end.
    pub fn full_interval_closed(&self, before_ms: i64, after_ms: i64) -> Vec<Joined> {
        self.full_interval_at(before_ms, after_ms, |_| i64::MAX)
    }

    fn full_interval_at(&self, before_ms: i64, after_ms: i64, watermark_ms: impl Fn(i32) -> i64) -> Vec<Joined> {
        let pairs = self.pairs(before_ms, after_ms);
        let met: BTreeSet<_> =
            pairs.iter().flat_map(|(left, right)| [place(left, Side::Left), place(right, Side::Right)]).collect();
        let mut rows: Vec<Joined> = pairs.into_iter().map(|(left, right)| row(Some(left), Some(right))).collect();
        let alone = |seen: &&Seen, side, wait_ms| {
            let has_passed = seen.id.is_none() || seen.ts + wait_ms < watermark_ms(seen.partition);
            has_passed && !met.contains(&place(seen, side))
        };
        let lefts = self.left.iter().filter(|left| alone(left, Side::Left, after_ms));
        let rights = self.right.iter().filter(|right| alone(right, Side::Right, before_ms));
        rows.extend(lefts.map(|left| row(Some(left), None)));
        rows.extend(rights.map(|right| row(None, Some(right))));
        rows
    }

    pub fn inner_interval(&self, before_ms: i64, after_ms: i64) -> Vec<Joined> {
        self.pairs(before_ms, after_ms).into_iter().map(|(left, right)| row(Some(left), Some(right))).collect()
    }

    /// Each left row that time has passed, with the newest right row at its time (of a table: however old it is).
    pub fn exact_left(&self, within_ms: Option<i64>) -> Vec<Joined> {
        let rights = by_key(&self.right);
        let is_decided = |left: &&Seen| left.id.is_none() || left.ts < self.watermarks[&left.partition];
        let joined = |left: &Seen| {
            let versions = key(left).and_then(|key| rights.get(&key)).into_iter().flatten();
            let valid = versions.filter(|right| {
                right.ts <= left.ts && within_ms.is_none_or(|within_ms| left.ts - right.ts <= within_ms)
            });
            let newest = valid.max_by_key(|right| (right.ts, right.offset)).filter(|right| right.number.is_some());
            row(Some(left), newest.copied())
        };
        self.left.iter().filter(is_decided).map(joined).collect()
    }

    /// What a left temporal join may send: of each left row that is decided, the rows that the definition allows.
    pub fn allowed(&self, within_ms: i64) -> Vec<BTreeSet<Joined>> {
        let rights = by_key(&self.right);
        let mut all = Vec::new();
        for left in &self.left {
            let partners = key(left).and_then(|key| rights.get(&key)).into_iter().flatten();
            let near = partners.filter(|right| (right.ts - left.ts).abs() <= within_ms);
            let allowed: BTreeSet<Joined> = near.map(|right| row(Some(left), Some(right))).collect();
            let has_passed = left.id.is_none() || left.ts + within_ms < self.watermarks[&left.partition];
            match allowed.is_empty() {
                false => all.push(allowed),
                true if has_passed => all.push(BTreeSet::from([row(Some(left), None)])),
                true => {}
            }
        }
        all
    }

    /// Without these rows, and with the watermarks of all.
    pub fn without(&self, gone: &BTreeSet<Joined>) -> Topics {
        let left = self.left.iter().filter(|left| !gone.contains(&row(Some(left), None)));
        let right = self.right.iter().filter(|right| !gone.contains(&row(None, Some(right))));
        Topics { left: left.cloned().collect(), right: right.cloned().collect(), watermarks: self.watermarks.clone() }
    }
}

fn seen(produced: &Produced, side: Side) -> Seen {
    let (partition, offset) = (produced.partition, produced.offset);
    let ts = produced.record.timestamp_ms.unwrap();
    let Some(payload) = &produced.record.payload else {
        let id = String::from_utf8(produced.record.key.clone().unwrap()).unwrap();
        return Seen { partition, offset, id: Some(id), number: None, ts };
    };
    let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let number = value[side.field()].as_u64();
    assert!(number.is_some() && value["ts"].as_i64() == Some(ts), "{value}");
    Seen { partition, offset, id: value["id"].as_str().map(str::to_owned), number, ts }
}

/// The smaller of both sides' newest times, less the lateness, for each partition.
fn watermarks(left: &[Seen], right: &[Seen]) -> HashMap<i32, i64> {
    let newest = |side: &[Seen]| {
        let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
        for seen in side {
            let at = newest.entry(seen.partition).or_insert(seen.ts);
            *at = seen.ts.max(*at);
        }
        newest
    };
    let (left, right) = (newest(left), newest(right));
    let of = |(partition, ts): (&i32, &i64)| {
        (*partition, right.get(partition).map_or(i64::MIN, |other| *ts.min(other) - LATENESS_MS))
    };
    left.iter().map(of).collect()
}

fn key(seen: &Seen) -> Option<(i32, &str)> {
    Some((seen.partition, seen.id.as_deref()?))
}

fn by_key(side: &[Seen]) -> HashMap<(i32, &str), Vec<&Seen>> {
    let mut rows: HashMap<_, Vec<&Seen>> = HashMap::new();
    side.iter()
        .filter_map(|seen| Some((key(seen)?, seen)))
        .for_each(|(key, seen)| rows.entry(key).or_default().push(seen));
    rows
}

fn place(seen: &Seen, side: Side) -> (Side, i32, i64) {
    (side, seen.partition, seen.offset)
}

fn row(left: Option<&Seen>, right: Option<&Seen>) -> Joined {
    let id = left.or(right).and_then(|seen| seen.id.clone()).unwrap_or_default();
    Joined { id, l: left.and_then(|left| left.number), r: right.and_then(|right| right.number) }
}

/// All rows of the table.
pub fn stored(clickhouse: &ClickHouse, table: &str) -> Vec<Joined> {
    let answer = clickhouse.query(&format!("SELECT id, l, r FROM {table} FORMAT TSV"));
    let number = |field: &str| (field != "\\N").then(|| field.parse().unwrap());
    let row = |line: &str| {
        let [id, l, r] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("three columns were asked for") };
        Joined { id: id.to_owned(), l: number(l), r: number(r) }
    };
    answer.lines().map(row).collect()
}
