//! The order between inputs, who rests, what the times are, and that cuts give the same pass again.

use super::*;
use crate::codec::decode::{Decoder, DeletionKey, TimeSpec};
use crate::codec::rows::{Field, Kind, RowMeta, Slot};
use crate::codec::scope::Scope;
use crate::source::{Fetched, Input};
use crate::types::{Epoch, Link};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

const NOTE_MS: i64 = 1_000_000;
const MAX_FUTURE_MS: i64 = 1_000;

/// A partition's log, and how its reader finds it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<LogState>>);

#[derive(Default)]
struct LogState {
    batch: RecordBatch,
    /// Its leader is away: nothing comes, and nobody knows whether there is more.
    is_away: bool,
    /// How many records a fetch brings at most, in turn.
    sizes: Vec<usize>,
    fetches: usize,
}

struct Reader {
    log: Log,
    next: usize,
}

impl Log {
    fn add(&self, time_ms: i64, key: Option<&[u8]>, value: Option<&str>) {
        let mut state = self.0.lock().unwrap();
        let offset = state.batch.records.len() as i64;
        state.batch.push(offset, time_ms, key, value.map(str::as_bytes), []);
    }

    fn rows(&self, times: &[i64]) {
        times.iter().for_each(|time_ms| self.add(*time_ms, None, Some("{}")));
    }
}

impl Input for Reader {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        let mut log = self.log.0.lock().unwrap();
        log.fetches += 1;
        let size = if log.sizes.is_empty() { usize::MAX } else { log.sizes[log.fetches % log.sizes.len()] };
        let size = if log.is_away { 0 } else { size.min(limit.records) };
        let rest = log.batch.records[self.next..].iter().take(size);
        let taken: Vec<Record> = rest.filter(|record| record.offset < limit.offset_end).copied().collect();
        for record in &taken {
            let bytes = |span| log.batch.slice(span);
            let (key, value) = (record.key.map(bytes), record.value.map(bytes));
            batch.push(record.offset, record.timestamp_ms, key, value, log.batch.headers(record));
        }
        self.next += taken.len();
        let at_end = self.next == log.batch.records.len() && !log.is_away;
        Ok(Fetched { records: taken.len(), offset_next: self.next as i64, at_end })
    }

    fn end(&self) -> i64 {
        self.log.0.lock().unwrap().batch.records.len() as i64
    }
}

/// A side that reads the field `field`, at the record's Kafka timestamp.
fn side(input: usize, feeds: Feeds, field: &str) -> InputSide {
    let mut scope = Scope::new();
    let slot = scope.resolve(field).unwrap();
    let key = DeletionKey::new([(field.to_owned(), slot)]);
    let time = TimeSpec { field: None, max_future_ms: MAX_FUTURE_MS };
    let decoder = Decoder::new(scope.finish(), time, false, 1_000, format!("topic{input}"), 0, input as u16);
    let decoder = if matches!(feeds, Feeds::Table { .. }) { decoder.deleting(key) } else { decoder };
    InputSide { decoder, feeds, lateness_ms: 0, max_skew_ms: None }
}

fn right(join: u16) -> Feeds {
    Feeds::Right { join }
}

fn skewed(input: usize, feeds: Feeds, max_skew_ms: i64) -> InputSide {
    InputSide { max_skew_ms: Some(max_skew_ms), ..side(input, feeds, "a") }
}

fn beginning(inputs: usize) -> Moment {
    Moment {
        epoch: Epoch(0),
        link: Link::default(),
        inputs: vec![Progress { position: 0, high_ms: i64::MIN }; inputs],
        watermark_ms: i64::MIN,
        idle: 0,
        note_ms: NOTE_MS,
        closed: None,
        replayed: None,
    }
}

/// The inputs of a task, their logs, and the pass that was taken last.
struct Stage {
    logs: Vec<Log>,
    inputs: TaskInputs,
    pass: Pass,
    cuts: Cuts,
    records_max: usize,
}

impl Stage {
    fn new(topics: Vec<Vec<InputSide>>) -> Stage {
        let logs = topics.iter().map(|_| Log::default()).collect();
        Stage::on(logs, topics)
    }

    fn on(logs: Vec<Log>, topics: Vec<Vec<InputSide>>) -> Stage {
        let reader = |log: &Log| Box::new(Reader { log: log.clone(), next: 0 });
        let inputs = logs.iter().zip(topics).map(|(log, sides)| TaskInput::new(reader(log), sides)).collect();
        let inputs = TaskInputs::new(inputs, &beginning(logs.len()), i64::MAX);
        Stage { logs, inputs, pass: Pass::default(), cuts: Cuts::default(), records_max: usize::MAX }
    }

    fn next(&mut self, ends: Option<&[i64]>, boot_ms: u64) -> Found {
        let limit = PassLimit { records: self.records_max, bytes: usize::MAX, offset_ends: ends };
        self.inputs.next_pass(&mut self.pass, limit, boot_ms, &mut self.cuts).unwrap()
    }

    /// All passes there are now: time and input of each row.
    fn take(&mut self, ends: Option<&[i64]>, boot_ms: u64) -> Vec<(i64, u16)> {
        let mut rows = vec![];
        while self.next(ends, boot_ms) == Found::Pass {
            rows.extend(self.pass.rows.meta.iter().map(|meta| (meta.time_ms, meta.input)));
        }
        rows
    }

    fn watermark(&self) -> i64 {
        self.inputs.times.watermark_ms
    }
}

#[test]
fn at_one_time_right_sides_in_the_order_of_the_steps_come_before_the_source_then_topics_as_listed() {
    let mut stage = Stage::new(vec![
        vec![side(0, Feeds::Left, "a")],
        vec![side(1, Feeds::Left, "a")],
        vec![side(2, right(1), "a")],
        vec![side(3, right(0), "a")],
    ]);
    stage.logs.iter().for_each(|log| log.rows(&[5, 5]));
    stage.logs[1].rows(&[4]);
    let expected = [(5, 3), (5, 3), (5, 2), (5, 2), (5, 0), (5, 0), (5, 1), (5, 1), (4, 1)];
    assert_eq!(stage.take(None, 0), expected);
}

#[test]
fn a_record_of_several_sides_is_a_row_of_each_the_right_sides_first() {
    let sides = vec![side(0, Feeds::Left, "a"), side(0, right(1), "b"), side(0, right(0), "a")];
    let mut stage = Stage::new(vec![sides]);
    stage.logs[0].add(1, None, Some(r#"{"a":"x","b":"y"}"#));
    stage.logs[0].add(2, None, Some(r#"{"a":"x","b":1,"b":2}"#));
    stage.logs[0].add(3, None, Some("no"));
    stage.logs[0].add(4, None, None);
    assert_eq!(stage.next(None, 0), Found::Pass);
    let pass = &stage.pass;
    let of_join = |join| Owner::Right { join, deletes: false };
    assert_eq!(pass.owners, [of_join(0), of_join(1), Owner::Left, of_join(0), Owner::Left]);
    assert_eq!(pass.rows.meta.iter().map(|meta| meta.record).collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
    let text = |row| String::from_utf8_lossy(pass.rows.text(pass.rows.field(row, Slot(0)))).into_owned();
    assert_eq!([0, 1, 2].map(text), ["x", "y", "x"]);
    let broken: Vec<_> = pass.broken.iter().map(|(_, bad)| (bad.row, bad.reason)).collect();
    assert_eq!(broken, [(1, "duplicate_field"), (2, "not_json")], "each record once");
    assert_eq!((pass.records, pass.tombstones), (4, 1));
    let (record, arena) = stage.inputs.raw(pass, 0, 2);
    assert_eq!(&arena[record.value.unwrap().range()], b"no");
    assert_eq!(stage.cuts, Cuts(vec![4]), "one input with a join has cuts, too");
}

#[test]
fn a_pass_is_never_cut_between_the_rows_of_a_record() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a"), side(0, right(0), "a")]]);
    stage.records_max = 1;
    stage.logs[0].rows(&[1, 2]);
    for _ in 0..2 {
        assert_eq!(stage.next(None, 0), Found::Pass);
        assert_eq!((stage.pass.records, stage.pass.rows.len()), (1, 2));
    }
    assert_eq!(stage.cuts, Cuts(vec![1, 1]));
}

#[test]
fn a_tombstone_of_a_table_is_a_row_that_deletes() {
    let table = Feeds::Table { join: 0, exact: false };
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]]);
    stage.logs[1].add(1, Some(b"7"), Some(r#"{"a":7}"#));
    stage.logs[1].add(2, Some(b"7"), None);
    stage.logs[1].add(3, None, None);
    stage.take(None, 0);
    stage.logs[0].rows(&[1]);
    assert_eq!(stage.inputs.positions(), [0, 3]);
    assert_eq!((stage.pass.owners.len(), stage.pass.rows.len()), (0, 0), "the last pass found nothing");
    assert_eq!(stage.watermark(), i64::MIN, "a table does not push the watermark");

    let mut stage = Stage::on(stage.logs, vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]]);
    let (mut owners, mut records, mut tombstones) = (vec![], 0, 0);
    while stage.next(None, 0) == Found::Pass {
        owners.append(&mut stage.pass.owners);
        records += stage.pass.records;
        tombstones += stage.pass.tombstones;
    }
    let of_table = |deletes| Owner::Right { join: 0, deletes };
    // The number and the same as text.
    assert_eq!(owners, [of_table(false), Owner::Left, of_table(true), of_table(true)]);
    assert_eq!((records, tombstones), (4, 1), "the key of one cannot be read");
    assert_eq!(stage.watermark(), 1, "nor does it hold it");
}

#[test]
fn keys_that_are_no_text_arrive_whole_however_many_fetches_brought_them() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "_key")], vec![side(1, Feeds::Left, "_key")]]);
    stage.logs[0].add(1, Some(&[0xff, 1]), Some(r#"{"a":"some text before"}"#));
    stage.logs[0].add(3, Some(&[0xfe, 2, 3]), Some("{}"));
    stage.logs[1].add(2, Some(&[0xfd]), Some("{}"));
    stage.logs[0].0.lock().unwrap().sizes = vec![1];
    let mut keys = vec![];
    let mut gather = |pass: &Pass| {
        let key = |row| pass.rows.text(pass.rows.field(row, Slot(0))).to_vec();
        assert!((0..pass.rows.len() as u32).all(|row| pass.rows.field(row, Slot(0)).kind == Kind::Bytes));
        keys.extend((0..pass.rows.len() as u32).map(key));
    };
    while stage.next(None, 0) == Found::Pass {
        gather(&stage.pass);
    }
    assert_eq!(keys, [vec![0xff, 1], vec![0xfd], vec![0xfe, 2, 3]]);

    // And as one pass of the same ranges, which is fetched in pieces.
    let topics = vec![vec![side(0, Feeds::Left, "_key")], vec![side(1, Feeds::Left, "_key")]];
    let mut again = Stage::on(stage.logs, topics);
    while again.inputs.exact_pass(&mut again.pass, &[2, 1], 0).unwrap() == Found::Nothing {}
    let key = |row| again.pass.rows.text(again.pass.rows.field(row, Slot(0))).to_vec();
    assert_eq!([0, 1, 2].map(key), [vec![0xff, 1], vec![0xfd], vec![0xfe, 2, 3]]);
    let (record, arena) = again.inputs.raw(&again.pass, 0, again.pass.rows.meta[2].record);
    assert_eq!(&arena[record.key.unwrap().range()], [0xfe, 2, 3]);
}

#[test]
fn a_time_is_judged_with_the_clock_of_the_epoch_that_takes_it() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, Feeds::Left, "a")]]);
    // Fetched together with the first, taken an epoch later.
    let early = NOTE_MS + MAX_FUTURE_MS + 1;
    stage.logs[0].rows(&[10, early]);
    stage.logs[1].rows(&[20]);
    stage.records_max = 2;
    assert_eq!(stage.next(None, 0), Found::Pass);
    assert_eq!(stage.pass.broken.len(), 1, "by the clock of its own epoch it is one of the future");
    assert!(stage.pass.broken[0].1.message.contains("max_future (1000 ms)"), "{}", stage.pass.broken[0].1.message);

    let topics = vec![vec![side(0, Feeds::Left, "a")], vec![side(1, Feeds::Left, "a")]];
    let mut later = Stage::on(stage.logs, topics);
    later.records_max = 1;
    assert_eq!(later.next(None, 0), Found::Pass);
    later.inputs.begin_epoch(0, NOTE_MS + 1);
    assert_eq!(later.take(None, 0), [(20, 1), (early, 0)]);
}

#[test]
fn a_record_pushes_the_watermark_no_further_than_its_kafka_timestamp_and_the_noted_clock() {
    // Event time, Kafka timestamp, and how far a record with those pushes.
    for (time_ms, timestamp_ms, pushes_to) in [
        (NOTE_MS - 5, NOTE_MS, NOTE_MS - 5),
        (NOTE_MS + 7, NOTE_MS, NOTE_MS),
        (NOTE_MS + 7, NOTE_MS + 9, NOTE_MS),
        (NOTE_MS - 5, NOTE_MS - 9, NOTE_MS - 9),
        (NOTE_MS + 7, -1, NOTE_MS),
        (NOTE_MS - 5, -1, NOTE_MS - 5),
    ] {
        let times = Times { watermark_ms: i64::MIN, idle: 0, cap_ms: i64::MAX, note_ms: NOTE_MS };
        let meta = RowMeta { time_ms, timestamp_ms, ..RowMeta::default() };
        assert_eq!(times.pushes_to(&meta), pushes_to, "{time_ms} {timestamp_ms}");
    }
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")]]);
    stage.logs[0].rows(&[NOTE_MS + MAX_FUTURE_MS, 10]);
    assert_eq!(stage.take(None, 0), [(NOTE_MS + MAX_FUTURE_MS, 0), (10, 0)]);
    assert_eq!(stage.watermark(), NOTE_MS, "what is not too far ahead is a row, and pushes no further than the clock");
}

#[test]
fn an_input_too_far_ahead_rests_until_the_slow_one_comes_or_is_set_aside() {
    let mut stage = Stage::new(vec![vec![skewed(0, Feeds::Left, 10)], vec![skewed(1, right(0), 10)]]);
    stage.logs[0].rows(&[100, 105, 111, 130]);
    assert_eq!(stage.take(None, 0), [], "one that has had no record yet is as slow as can be");
    stage.logs[1].rows(&[100]);
    assert_eq!(stage.take(None, 0), [(100, 1), (100, 0), (105, 0)]);
    let fetches = stage.logs[0].0.lock().unwrap().fetches;
    assert_eq!(stage.take(None, 0), []);
    assert_eq!(stage.logs[0].0.lock().unwrap().fetches, fetches, "its queue rests");
    stage.logs[1].rows(&[102]);
    assert_eq!(stage.take(None, 0), [(102, 1), (111, 0)], "ten ahead is not too far");
    assert_eq!(stage.inputs.idle_now(&[30, 30], 29), 0);
    let idle = stage.inputs.idle_now(&[30, 30], 30);
    assert_eq!(idle, 0b10, "it holds records, so it is not at its end");
    assert!(stage.inputs.begin_epoch(idle, NOTE_MS));
    assert_eq!(stage.take(None, 0), [(130, 0)]);
}

#[test]
fn a_gap_in_time_stops_nobody_for_good() {
    let mut stage = Stage::new(vec![vec![skewed(0, Feeds::Left, 10)], vec![skewed(1, right(0), 10)]]);
    stage.logs[0].rows(&[0, 1_000, 1_001]);
    stage.logs[1].rows(&[5, 50, 60, 990, 1_000]);
    let expected = [(0, 0), (5, 1), (50, 1), (60, 1), (990, 1), (1_000, 1), (1_000, 0), (1_001, 0)];
    assert_eq!(stage.take(None, 0), expected);
}

#[test]
fn an_input_that_has_reached_its_noted_end_holds_nobody() {
    let mut stage = Stage::new(vec![vec![skewed(0, Feeds::Left, 10)], vec![skewed(1, right(0), 10)]]);
    stage.logs[0].rows(&[0, 1_000]);
    stage.logs[1].rows(&[5]);
    assert_eq!(stage.take(Some(&[2, 1]), 0), [(0, 0), (5, 1), (1_000, 0)]);
    assert_eq!(stage.watermark(), 5, "for the watermark it counts all the same");
}

#[test]
fn a_partition_without_a_leader_holds_back_who_runs_ahead_of_it() {
    let mut stage = Stage::new(vec![vec![skewed(0, Feeds::Left, 10)], vec![skewed(1, right(0), 10)]]);
    stage.logs[0].rows(&[1, 9, 20]);
    stage.logs[1].rows(&[1]);
    assert_eq!(stage.next(None, 0), Found::Pass);
    stage.logs[1].0.lock().unwrap().is_away = true;
    stage.logs[0].rows(&[21]);
    assert_eq!(stage.take(None, 0), []);
    for boot_ms in (1_000..limits::INPUT_WAIT_MS).step_by(1_000) {
        assert_eq!(stage.take(None, boot_ms), [], "for a while everybody waits");
    }
    assert_eq!(stage.take(None, limits::INPUT_WAIT_MS), [(1, 0), (9, 0)]);
}

#[test]
fn a_table_neither_holds_nor_is_held() {
    let table = Feeds::Table { join: 0, exact: false };
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]]);
    stage.logs[0].rows(&[1_000]);
    stage.logs[1].rows(&[0]);
    assert_eq!(stage.take(None, 0), [(0, 1), (1_000, 0)]);
    stage.logs[1].rows(&[900_000]);
    assert_eq!(stage.take(None, 0), [(900_000, 1)]);
    assert_eq!(stage.watermark(), 1_000);
    assert_eq!(stage.inputs.idle_now(&[30, 30], 99), 0b01, "nobody waits for it, so it is never set aside");
}

#[test]
fn while_a_table_is_read_first_nothing_else_moves() {
    let table = Feeds::Table { join: 0, exact: false };
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]]);
    stage.logs[0].rows(&[1]);
    stage.logs[1].rows(&[5, 6, 7]);
    assert_eq!(stage.take(Some(&[0, 2]), 0), [(5, 1), (6, 1)]);
    assert_eq!(stage.cuts.0, [0, 2]);
    assert_eq!(stage.logs[0].0.lock().unwrap().fetches, 0);
    assert_eq!(stage.take(None, 0), [(1, 0), (7, 1)]);
}

#[test]
fn a_change_of_the_idle_set_raises_the_watermark_before_the_first_row() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, right(0), "a")]]);
    stage.logs[0].rows(&[50]);
    stage.logs[1].rows(&[10]);
    stage.take(None, 0);
    assert_eq!(stage.watermark(), 10);
    assert!(!stage.inputs.begin_epoch(0, NOTE_MS), "nothing has changed");
    let before = stage.inputs.times;
    assert!(stage.inputs.begin_epoch(0b10, NOTE_MS));
    assert_eq!(stage.watermark(), 50);
    stage.inputs.times = before;
    assert!(!stage.inputs.begin_epoch(0b11, NOTE_MS), "with all set aside it stands still");
    assert_eq!(stage.watermark(), 10);

    stage.inputs.begin_epoch(0b10, NOTE_MS);
    stage.logs[1].rows(&[20, 70]);
    assert_eq!(stage.next(None, 0), Found::Pass);
    assert_eq!(stage.pass.watermark_before_ms, 50);
    let watermarks: Vec<i64> = stage.pass.rows.meta.iter().map(|meta| meta.watermark_ms).collect();
    assert_eq!(watermarks, [50, 50], "it never goes back");
    assert_eq!(stage.inputs.times.idle, 0, "an input leaves the set with its first record");

    stage.inputs.empty_pass(&mut stage.pass);
    assert_eq!((stage.pass.rows.len(), stage.pass.watermark_before_ms), (0, 50));
}

#[test]
fn who_was_not_asked_for_a_while_is_not_known_to_be_at_its_end() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, right(0), "a")]]);
    stage.logs[0].rows(&[50]);
    stage.logs[1].rows(&[10]);
    stage.take(None, 0);
    assert_eq!(stage.next(None, 0), Found::Nothing);
    let idle = |stage: &Stage, boot_ms| stage.inputs.idle_now(&[1_000, 1_000], boot_ms);
    assert_eq!(idle(&stage, 1_500), 0b11);
    assert_eq!(idle(&stage, 60_000), 0, "the outbox was full for a minute: who knows what is there now");
    assert_eq!(stage.next(None, 60_000), Found::Nothing);
    assert_eq!(idle(&stage, 60_500), 0, "only from now on");
    assert_eq!(idle(&stage, 61_000), 0b11);
}

#[test]
fn an_exact_table_holds_its_join_and_never_takes_back_what_it_let_go() {
    let table = Feeds::Table { join: 0, exact: true };
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]]);
    stage.logs[0].rows(&[100, 200]);
    assert_eq!(stage.next(None, 0), Found::Pass);
    let low = |before_ms, behind_ms: &[i64]| TableLow { join: 0, before_ms, behind_ms: behind_ms.to_vec() };
    assert_eq!(stage.pass.table_lows, [low(i64::MIN, &[i64::MIN, i64::MIN])], "before its first record");
    stage.logs[1].rows(&[150]);
    assert_eq!(stage.next(None, 0), Found::Pass);
    assert_eq!(stage.pass.table_lows, [low(i64::MIN, &[150])]);
    assert_eq!(stage.next(None, 0), Found::Nothing);

    let idle = stage.inputs.idle_now(&[90, 30], 30);
    assert_eq!((idle, stage.watermark()), (0b10, 200));
    assert!(stage.inputs.begin_epoch(idle, NOTE_MS), "its join may go on, though the watermark is what it was");
    stage.inputs.empty_pass(&mut stage.pass);
    assert_eq!(stage.pass.table_lows, [low(i64::MAX, &[])]);
    stage.logs[1].rows(&[160, 300]);
    stage.logs[0].rows(&[250, 310]);
    assert_eq!(stage.next(None, 0), Found::Pass);
    assert_eq!(stage.pass.table_lows, [low(i64::MAX, &[200, 200, 300])], "it was let go up to 200");
    assert_eq!(stage.inputs.progress()[1].high_ms, 300);
}

#[test]
fn who_is_set_aside_by_a_former_run_counts_again_where_nobody_is() {
    let table = Feeds::Table { join: 0, exact: true };
    let topics = vec![vec![side(0, Feeds::Left, "a")], vec![side(1, table, "a")]];
    let mut stage = Stage::new(topics);
    stage.logs[0].rows(&[100]);
    stage.logs[1].rows(&[50]);
    stage.take(None, 0);
    stage.inputs.begin_epoch(0b10, NOTE_MS);
    stage.inputs.begin_epoch(0, NOTE_MS);
    stage.inputs.empty_pass(&mut stage.pass);
    assert_eq!(stage.pass.table_lows[0].before_ms, 100, "and stands where its join has been");
}

#[test]
fn what_was_re_read_ends_with_the_times_that_are_known_of_it() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a")], vec![side(1, Feeds::Left, "a")]]);
    stage.logs[0].rows(&[100]);
    stage.take(None, 0);
    let reached = |epoch, high_ms| Moment {
        epoch: Epoch(epoch),
        inputs: vec![Progress { position: 1, high_ms }, Progress { position: 0, high_ms: i64::MIN }],
        ..beginning(2)
    };
    stage.inputs.set_progress(&reached(0, i64::MIN));
    assert_eq!(stage.inputs.progress()[0].high_ms, 100, "no epoch ended there: what was found stands");
    stage.inputs.set_progress(&reached(1, 90));
    assert_eq!(stage.inputs.progress()[0].high_ms, 90, "an earlier clock had held it back");
}

#[test]
fn replayed_letters_are_rows_of_each_side_and_move_no_time() {
    let mut stage = Stage::new(vec![vec![side(0, Feeds::Left, "a"), side(0, right(0), "b")]]);
    let mut letters = RecordBatch::default();
    letters.push(7, 5, None, Some(br#"{"a":"x","b":"y"}"#), []);
    letters.push(9, 6, None, Some(b"no"), []);
    stage.inputs.replay_pass(&mut stage.pass, 0, &letters);
    let pass = &stage.pass;
    assert_eq!(pass.owners, [Owner::Right { join: 0, deletes: false }, Owner::Left]);
    assert_eq!((pass.records, pass.broken.len()), (2, 1));
    let (record, arena) = stage.inputs.raw(pass, 0, pass.broken[0].1.row);
    assert_eq!((record.offset, &arena[record.value.unwrap().range()]), (9, &b"no"[..]));
    assert_eq!((stage.watermark(), stage.inputs.positions()), (i64::MIN, vec![0]));
}

/// Everything that a chain sees of a pass.
#[derive(PartialEq, Debug)]
struct Seen {
    meta: Vec<RowMeta>,
    owners: Vec<Owner>,
    watermark_before_ms: i64,
    table_lows: Vec<TableLow>,
    broken: Vec<(usize, i64)>,
    texts: Vec<(Kind, Vec<u8>)>,
}

impl Stage {
    /// Record numbers aside: they are only good for `raw`.
    fn seen(&self) -> Seen {
        let pass = &self.pass;
        let text = |field: &Field| match field.kind.has_bytes() {
            true => (field.kind, pass.rows.text(*field).to_vec()),
            false => (field.kind, vec![]),
        };
        let offset = |input: usize, record: u32| self.inputs.raw(pass, input, record).0.offset;
        for meta in &pass.rows.meta {
            assert_eq!(offset(meta.input as usize, meta.record), meta.offset);
        }
        Seen {
            meta: pass.rows.meta.iter().map(|meta| RowMeta { record: 0, ..*meta }).collect(),
            owners: pass.owners.clone(),
            watermark_before_ms: pass.watermark_before_ms,
            table_lows: pass.table_lows.clone(),
            broken: pass.broken.iter().map(|(input, bad)| (*input, offset(*input, bad.row))).collect(),
            texts: pass.rows.fields.iter().map(text).collect(),
        }
    }
}

/// Source and right side of a self join, a stream, an exact table.
fn topics() -> Vec<Vec<InputSide>> {
    let lagging = |side: InputSide| InputSide { lateness_ms: 15, ..side };
    vec![
        vec![skewed(0, Feeds::Left, 40), skewed(0, right(1), 40)],
        vec![lagging(skewed(1, right(0), 70))],
        vec![side(2, Feeds::Table { join: 2, exact: true }, "a")],
    ]
}

#[derive(Clone, Debug)]
struct SimRecord {
    topic: usize,
    time_ms: i64,
    payload: Option<&'static str>,
}

fn record() -> impl Strategy<Value = SimRecord> {
    let payload = prop_oneof![
        8 => Just(Some(r#"{"a":"text"}"#)),
        1 => Just(Some("broken")),
        1 => Just(None),
    ];
    let near = 0i64..400;
    let time = prop_oneof![12 => near, 1 => Just(NOTE_MS + MAX_FUTURE_MS + 2)];
    (0usize..3, time, payload).prop_map(|(topic, time_ms, payload)| SimRecord { topic, time_ms, payload })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever was there when: made again from its cuts, idle sets and clocks, each pass is the same.
    #[test]
    fn the_same_cuts_give_the_same_passes(
        records in prop::collection::vec(record(), 1..60),
        sizes in prop::collection::vec(0usize..5, 1..6),
        arrivals in prop::collection::vec(0usize..12, 1..20),
        idles in prop::collection::vec(0u64..8, 1..8),
        records_max in 1usize..9,
    ) {
        let mut stage = Stage::new(topics());
        stage.records_max = records_max;
        let mut passes: Vec<(u64, i64, Vec<u64>, Seen)> = vec![];
        let mut left = records.into_iter();
        for (number, arrived) in arrivals.iter().chain([&usize::MAX]).enumerate() {
            for record in left.by_ref().take(*arrived) {
                stage.logs[record.topic].add(record.time_ms, Some(b"7"), record.payload);
            }
            for log in &stage.logs {
                log.0.lock().unwrap().sizes = sizes.clone();
            }
            let (idle, note_ms) = (idles[number % idles.len()], NOTE_MS + number as i64);
            let before = stage.inputs.times;
            stage.inputs.begin_epoch(stage.inputs.times.idle | idle, note_ms);
            let began = stage.inputs.times.idle;
            for pass in 0..4 {
                stage.cuts.0.clear();
                if stage.next(None, number as u64 * limits::INPUT_WAIT_MS) == Found::Nothing {
                    if pass == 0 {
                        stage.inputs.times = before;
                    }
                    break;
                }
                let begins = if pass == 0 { began } else { u64::MAX };
                passes.push((begins, note_ms, stage.cuts.0.clone(), stage.seen()));
            }
        }
        // What is fetched when differs from life to life; in the end all of it comes.
        stage.logs.iter().for_each(|log| log.0.lock().unwrap().sizes = vec![2, 1, 7]);
        let mut again = Stage::on(stage.logs.clone(), topics());
        for (begins, note_ms, cut, seen) in passes {
            if begins != u64::MAX {
                again.inputs.begin_epoch(begins, note_ms);
            }
            while again.inputs.exact_pass(&mut again.pass, &cut, 0).unwrap() == Found::Nothing {}
            prop_assert_eq!(again.seen(), seen);
        }
        prop_assert_eq!(again.inputs.progress(), stage.inputs.progress());
    }
}
