//! Drives the real step as a task does: passes, batches, redo, epochs, crashes.

use crate::oracle::{Key, Out, Place, Row};
use weir::codec::key::{Cast, KeyHasher, KeyPart};
use weir::codec::packed::Packing;
use weir::codec::rows::{Field, Kind, RowMeta, Rows, Slot};
use weir::state::buffer::SegmentSize;
use weir::state::{StateStore, WriteBatch};
use weir::step::join::{Assembly, Batch, Clock, Event, Join, JoinCounts, JoinParts, Output, Rules, Side};
use weir::types::TaskNo;

const ID: Slot = Slot(0);
const KEY: Slot = Slot(1);
const TEXT: Slot = Slot(2);
const RIGHT_ID: Slot = Slot(3);
const RIGHT_TEXT: Slot = Slot(4);
const WIDTH: usize = 5;

pub struct Stage<'a> {
    store: &'a dyn StateStore,
    rules: Rules,
    segment: SegmentSize,
    join: Join,
    rows: Rows,
    output: Output,
    watermark_ms: i64,
    /// The next place.
    pub at: usize,
    pub out: Vec<Out>,
    sealed: Option<(WriteBatch, Moment)>,
    stored: Moment,
}

/// Where an epoch ended.
#[derive(Clone, Debug)]
struct Moment {
    at: usize,
    watermark_ms: i64,
    out: usize,
}

impl<'a> Stage<'a> {
    pub fn new(store: &'a dyn StateStore, rules: Rules, segment: SegmentSize) -> Stage<'a> {
        let start = Moment { at: 0, watermark_ms: i64::MIN, out: 0 };
        Stage {
            store,
            rules,
            segment,
            join: open(store, rules, segment),
            rows: Rows::default(),
            output: Output::default(),
            watermark_ms: i64::MIN,
            at: 0,
            out: vec![],
            sealed: None,
            stored: start,
        }
    }

    /// Takes places as one pass, cut into batches; a redo takes each batch twice, the first time for nothing.
    pub fn pass(&mut self, places: &[Place], batches: &[usize], redo: bool) {
        let first = self.at;
        self.rows.clear(WIDTH);
        let mut events = Vec::new();
        for (number, place) in places.iter().enumerate() {
            if let Some(row) = &place.row {
                events.push(event(number, row, self.rows.len()));
                add(&mut self.rows, first + number, row);
            }
        }
        let after_ms: Vec<i64> = places.iter().map(|place| place.watermark_ms).collect();
        let clock = Clock { start_ms: self.watermark_ms, after_ms: &after_ms };
        let mut cuts: Vec<usize> = batches.iter().map(|cut| cut % (places.len() + 1)).collect();
        cuts.extend([0, places.len()]);
        cuts.sort();
        for cut in cuts.windows(2) {
            let (from, until) = (cut[0] as u32, cut[1] as u32);
            let of_cut: Vec<Event> =
                events.iter().filter(|event| (from..until).contains(&event.place)).copied().collect();
            let batch = Batch::new(clock, &of_cut, from, until);
            if redo {
                let (mark, counts) = (self.join.mark(), self.join.counts());
                let out = self.out.len();
                self.run(batch, first);
                self.join.rollback(mark);
                self.out.truncate(out);
                assert_eq!(self.join.counts(), counts);
            }
            self.run(batch, first);
        }
        self.at += places.len();
        self.watermark_ms = places.iter().map(|place| place.watermark_ms).fold(self.watermark_ms, i64::max);
    }

    fn run(&mut self, mut batch: Batch<'_>, first: usize) {
        loop {
            let (rows, bytes) = (self.rows.len(), self.rows.bytes.len());
            let done = self.join.apply(self.store, &mut batch, &mut self.rows, &mut self.output).unwrap();
            self.take_output(first);
            self.rows.meta.truncate(rows);
            self.rows.fields.truncate(rows * WIDTH);
            self.rows.bytes.truncate(bytes);
            if done {
                break;
            }
        }
    }

    pub fn close(&mut self) {
        self.rows.clear(WIDTH);
        while !self.join.close(self.store, 0, &mut self.rows, &mut self.output).unwrap() {}
        self.take_output(self.at);
    }

    /// Reads back who met whom, and that every field is the one of its row.
    fn take_output(&mut self, first: usize) {
        for joined in &self.output.rows {
            let rows = &self.rows;
            let id = |slot| {
                let field = rows.field(joined.row, slot);
                (!field.is_null()).then(|| field.as_int() as usize)
            };
            let text = |slot| {
                let field = rows.field(joined.row, slot);
                (!field.is_null()).then(|| String::from_utf8(rows.text(field).to_vec()).unwrap())
            };
            let (left, right) = (id(ID), id(RIGHT_ID));
            assert_eq!((text(TEXT), text(RIGHT_TEXT)), (left.map(name), right.map(name)));
            let meta = &rows.meta[joined.row as usize];
            assert_eq!(meta.offset, left.or(right).unwrap() as i64);
            let key = rows.field(joined.row, KEY);
            assert!(left.is_some() || right.is_some());
            assert!(key.kind == Kind::Int || key.kind == Kind::Null, "the key is there whoever is alone");
            let cause = first + joined.place as usize;
            self.out.push(Out::Row { left, right, time_ms: meta.time_ms, watermark_ms: meta.watermark_ms, cause });
        }
        for bad in &self.output.bad {
            let row = self.rows.field(bad.row, ID).as_int() as usize;
            assert!(!bad.message.is_empty());
            self.out.push(Out::Dead { row, reason: bad.reason });
        }
        self.output.clear();
    }

    pub fn seal(&mut self) {
        self.store_sealed();
        let mut batch = WriteBatch::default();
        self.join.seal(&mut batch);
        self.sealed = Some((batch, Moment { at: self.at, watermark_ms: self.watermark_ms, out: self.out.len() }));
    }

    pub fn store_sealed(&mut self) {
        if let Some((batch, moment)) = self.sealed.take() {
            self.store.write(&batch).unwrap();
            self.join.stored();
            self.stored = moment;
        }
    }

    /// Forgets everything that is not stored.
    pub fn crash(&mut self) {
        self.sealed = None;
        self.join = open(self.store, self.rules, self.segment);
        (self.at, self.watermark_ms) = (self.stored.at, self.stored.watermark_ms);
        self.out.truncate(self.stored.out);
    }

    pub fn waiting(&self) -> u64 {
        self.join.waiting()
    }

    pub fn counts(&self) -> JoinCounts {
        self.join.counts()
    }
}

fn name(id: usize) -> String {
    format!("row {id} {}", "x".repeat(id % 17))
}

fn event(place: usize, row: &Row, number: usize) -> Event {
    Event { row: number as u32, side: row.side, deletes: row.deletes, is_replayed: false, place: place as u32 }
}

fn add(rows: &mut Rows, id: usize, row: &Row) {
    let text = rows.append(Kind::Text, name(id).as_bytes());
    let key = match row.key {
        Key::Number(number) => Field::int(number as i64),
        Key::Null => Field::NULL,
        Key::Unfit => Field::bool(true),
    };
    rows.fields.extend([Field::int(id as i64), key, text, Field::ABSENT, Field::ABSENT]);
    rows.meta.push(RowMeta { time_ms: row.time_ms, offset: id as i64, timestamp_ms: 1, ..RowMeta::default() });
}

fn open(store: &dyn StateStore, rules: Rules, segment: SegmentSize) -> Join {
    let key = || KeyHasher::new([7; 16], vec![KeyPart { slot: KEY, cast: Some(Cast::Int), path: "k".into() }]);
    let assembly = Assembly {
        left: Packing { slots: vec![ID, KEY, TEXT] },
        right: Packing { slots: vec![ID, TEXT, KEY] },
        joined: vec![(0, RIGHT_ID), (1, RIGHT_TEXT)],
        keys: vec![(2, KEY)],
        either: vec![],
        alone: None,
    };
    let parts = JoinParts { rules, left_key: key(), right_key: key(), key_text: "k".into(), assembly, segment };
    Join::open(store, TaskNo(4), 1, parts).unwrap()
}

/// The side a letter names.
pub fn side(letter: char) -> Side {
    if letter == 'L' { Side::Left } else { Side::Right }
}
