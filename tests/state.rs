//! The stores and the dedup table, from outside: verdicts against the bare definition, memory against RocksDB,
//! and what happens when a directory is locked, damaged or full.

#[path = "support/disk.rs"]
#[allow(dead_code)] // Its other part is for tests that start programs.
mod disk;
#[path = "state/synced.rs"]
mod synced;

use disk::{SmallDisk, in_own_namespace, limit_own_files};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use weir::error::Kind;
use weir::state::keys::{seen_chunk_key, seen_chunk_parts, seen_journal_key, seen_prefix};
use weir::state::memory::MemoryStore;
use weir::state::rocks::{RocksStore, Shared};
use weir::state::seen::{Candidate, Memory, Seen, SeenOptions, Shape, Verdict};
use weir::state::{StateStore, Table, WriteBatch};
use weir::types::TaskNo;

const TASK: TaskNo = TaskNo(5);
const STEP: u16 = 2;

fn shared() -> Shared {
    Shared::new(8 << 20, 64 << 20)
}

fn rocks(path: &Path) -> RocksStore {
    RocksStore::open(path, &shared()).unwrap()
}

fn put(table: Table, key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    batch.put(table, key, value);
    batch
}

fn all(store: &dyn StateStore, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), value.to_vec()));
        true
    };
    store.scan(table, &[], &[255; 64], visit).unwrap();
    entries
}

// The definition, one record after the other, keeping everything.

#[derive(Clone)]
struct Oracle {
    options: SeenOptions,
    /// Per key: accepted times, or the last passed one, each with its content.
    known: BTreeMap<u128, Vec<(i128, u128)>>,
}

impl Oracle {
    fn judge(&mut self, row: &Candidate) -> Verdict {
        let (t, w) = (row.time_ms as i128, row.watermark_ms as i128);
        let window = self.options.window_ms.map_or(i128::MAX / 4, i128::from);
        let known = self.known.entry(row.key).or_default();
        let is_late = t + window < w;
        let Memory::First { renew } = self.options.memory else {
            let verdict = match known.last().filter(|(last, _)| w < last + window) {
                Some((last, _)) if self.options.memory == Memory::Latest && t < *last => Verdict::Duplicate,
                Some((last, content))
                    if self.options.memory == Memory::Changes && *content == row.content && t < last + window =>
                {
                    Verdict::Duplicate
                }
                None if is_late => Verdict::Late,
                _ => Verdict::Pass,
            };
            if verdict == Verdict::Pass {
                known.push((t, row.content));
            }
            return verdict;
        };
        let meets = |t0: i128| (t - t0).abs() < window && w <= t0 + window;
        if is_late {
            return Verdict::Late;
        }
        if !known.iter().any(|&(t0, _)| meets(t0)) {
            known.push((t, 0));
            return Verdict::Pass;
        }
        if renew {
            known.iter_mut().filter(|(t0, _)| meets(*t0)).for_each(|(t0, _)| *t0 = t.max(*t0));
        }
        Verdict::Duplicate
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Key, step forward or back in time, content.
    Judge(Vec<(u8, i8, u8)>),
    /// Judged and taken back, then the first half judged for good.
    Redo(Vec<(u8, i8, u8)>),
    Seal,
    /// The oldest sealed epoch is in the store, which the table is not told yet.
    Write,
    Store,
    Crash,
    /// What the horizon lets go is forgotten, where the number says so.
    Reclaim(u64),
}

fn act(keys: u8) -> impl Strategy<Value = Act> {
    let rows = move || prop::collection::vec((0..keys, -12i8..14, 0u8..2), 0..12);
    prop_oneof![
        6 => rows().prop_map(Act::Judge),
        1 => rows().prop_map(Act::Redo),
        3 => Just(Act::Seal),
        1 => Just(Act::Write),
        3 => Just(Act::Store),
        1 => Just(Act::Crash),
        1 => any::<u64>().prop_map(Act::Reclaim),
    ]
}

/// The usual sizes, or ones that make many runs of few keys.
fn shape() -> impl Strategy<Value = Shape> {
    let small = (1usize..8, 1u64..5, 2usize..5, 0u64..6, prop_oneof![Just(0), Just(1 << 16)]);
    let small = small.prop_map(|(run_keys, chunk_keys, fanout, stretch_keys, bytes_max)| Shape {
        run_keys,
        chunk_keys,
        fanout,
        stretch_keys,
        bytes_max,
    });
    prop_oneof![1 => Just(Shape::within(1 << 16)), 9 => small]
}

fn options() -> impl Strategy<Value = SeenOptions> {
    let memory = prop_oneof![
        Just(Memory::First { renew: false }),
        Just(Memory::First { renew: true }),
        Just(Memory::Latest),
        Just(Memory::Changes),
    ];
    let window = prop_oneof![4 => (1i64..25).prop_map(Some), 1 => Just(None)];
    (memory, window).prop_map(|(memory, window_ms)| SeenOptions { memory, window_ms, filter_bytes_max: 1 << 16 })
}

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    options: SeenOptions,
    shape: Shape,
    lateness_ms: i64,
    /// Whether keys lie evenly, as hashes do, or differ in one half only.
    are_keys_even: bool,
    /// Whether each stored epoch ends with a restart.
    always_restarts: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    (options(), shape(), 0i64..30, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(options, shape, lateness_ms, are_keys_even, always_restarts)| Setup {
            options,
            shape,
            lateness_ms,
            are_keys_even,
            always_restarts,
        },
    )
}

/// A task as the runtime drives it, with the oracle beside it.
struct Run<'a> {
    store: &'a dyn StateStore,
    reclaim: &'a dyn Fn(u64, i64),
    setup: Setup,
    seen: Seen,
    now: Moment,
    /// Sealed epochs: what to write, and where the oracle stood.
    sealed: Vec<(WriteBatch, Moment)>,
    /// So many of them are written, the oldest first.
    written: usize,
    stored: Moment,
}

#[derive(Clone)]
struct Moment {
    oracle: Oracle,
    time_ms: i64,
    watermark_ms: i64,
}

fn table(setup: &Setup) -> Seen {
    Seen::with_shape(TASK, STEP, setup.options, setup.shape)
}

impl<'a> Run<'a> {
    fn new(store: &'a dyn StateStore, reclaim: &'a dyn Fn(u64, i64), setup: Setup) -> Run<'a> {
        let oracle = Oracle { options: setup.options, known: BTreeMap::new() };
        let now = Moment { oracle, time_ms: 1_000, watermark_ms: i64::MIN };
        Run { store, reclaim, setup, seen: table(&setup), stored: now.clone(), now, sealed: vec![], written: 0 }
    }

    fn rows(&mut self, rows: &[(u8, i8, u8)]) -> Vec<Candidate> {
        let mut candidate = |&(key, step_ms, content): &(u8, i8, u8)| {
            let time_ms = self.now.time_ms + step_ms as i64;
            self.now.time_ms += (step_ms as i64).max(0) / 2;
            self.now.watermark_ms = self.now.watermark_ms.max(time_ms - self.setup.lateness_ms);
            let key = match self.setup.are_keys_even {
                true => xxhash_rust::xxh3::xxh3_128(&[key]),
                false => ((key as u128 / 2) << 64) | (key as u128 % 2),
            };
            Candidate { key, time_ms, watermark_ms: self.now.watermark_ms, content: content as u128 }
        };
        rows.iter().map(&mut candidate).collect()
    }

    fn judge(&mut self, rows: &[Candidate]) {
        let mut verdicts = Vec::new();
        self.seen.judge(self.store, rows, &mut verdicts).unwrap();
        let expected: Vec<Verdict> = rows.iter().map(|row| self.now.oracle.judge(row)).collect();
        assert_eq!(verdicts, expected, "{rows:?}");
    }

    fn write(&mut self) {
        if let Some((batch, moment)) = self.sealed.get(self.written) {
            self.store.write(batch).unwrap();
            self.stored = moment.clone();
            self.written += 1;
        }
    }

    fn restart(&mut self) {
        self.seen = table(&self.setup);
        self.now = self.stored.clone();
        self.sealed.clear();
        self.written = 0;
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Judge(rows) => {
                let rows = self.rows(rows);
                self.judge(&rows);
            }
            Act::Redo(rows) => {
                let before = self.now.clone();
                let mark = self.seen.mark();
                let whole = self.rows(rows);
                self.judge(&whole);
                self.seen.rollback(mark);
                self.now = before;
                let half = self.rows(&rows[..rows.len() / 2]);
                self.judge(&half);
            }
            Act::Seal => {
                let mut batch = WriteBatch::default();
                self.seen.seal(self.store, self.now.watermark_ms, &mut batch).unwrap();
                self.sealed.push((batch, self.now.clone()));
            }
            Act::Write => self.write(),
            Act::Store if self.sealed.is_empty() => {}
            Act::Store => {
                if self.written == 0 {
                    self.write();
                }
                self.sealed.remove(0);
                self.written -= 1;
                self.seen.stored();
                if self.setup.always_restarts {
                    self.restart();
                }
            }
            Act::Crash => self.restart(),
            Act::Reclaim(which) => {
                if let Some(horizon_ms) = self.seen.horizon_ms(self.stored.watermark_ms) {
                    (self.reclaim)(*which, horizon_ms);
                }
            }
        }
    }
}

/// Deletes passed chunks, as a compaction may at any moment: those whose bit is set.
fn forget_chunks(store: &MemoryStore, which: u64, horizon_ms: i64) {
    let mut batch = WriteBatch::default();
    for (number, (key, value)) in all(store, Table::Seen).into_iter().enumerate() {
        let is_passed = value.first_chunk().is_some_and(|time| i64::from_be_bytes(*time) < horizon_ms);
        if seen_chunk_parts(&key).is_some() && is_passed && which >> (number % 64) & 1 == 1 {
            batch.delete(Table::Seen, key);
        }
    }
    store.write(&batch).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_the_definition_however_records_are_cut(
        setup in setup(),
        acts in prop::collection::vec(act(5), 1..60),
    ) {
        let store = MemoryStore::new();
        let reclaim = |which, horizon_ms| forget_chunks(&store, which, horizon_ms);
        let mut run = Run::new(&store, &reclaim, setup);
        acts.iter().for_each(|act| run.act(act));
    }

    #[test]
    fn verdicts_are_those_of_the_definition_however_runs_are_merged(
        setup in setup(),
        acts in prop::collection::vec(act(40), 1..150),
    ) {
        let store = MemoryStore::new();
        let reclaim = |which, horizon_ms| forget_chunks(&store, which, horizon_ms);
        let mut run = Run::new(&store, &reclaim, setup);
        acts.iter().for_each(|act| run.act(act));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_on_disk_are_those_of_the_definition_whatever_is_reclaimed(
        setup in setup(),
        acts in prop::collection::vec(act(20), 1..100),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = rocks(directory.path());
        let reclaim = |_, horizon_ms| {
            store.set_horizon(TASK, STEP, horizon_ms);
            store.compact(Table::Seen).unwrap();
        };
        let mut run = Run::new(&store, &reclaim, setup);
        acts.iter().for_each(|act| run.act(act));
    }
}

fn candidates(numbers: std::ops::Range<u64>) -> Vec<Candidate> {
    let key = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_be_bytes());
    numbers.map(|n| Candidate { key: key(n), time_ms: 0, watermark_ms: 0, content: 0 }).collect()
}

/// One record: its time, the watermark at it, its content, and what is said about it.
type Judged = (i64, i64, u128, Verdict);

#[test]
fn windows_begin_and_end_where_the_definition_says() {
    use Verdict::{Duplicate, Late, Pass};
    let first = Memory::First { renew: false };
    let renew = Memory::First { renew: true };
    let (latest, changes) = (Memory::Latest, Memory::Changes);
    const A: u128 = 1;
    const B: u128 = 2;
    // The window is 10 ms, the first record of the key is at 100.
    let cases: &[(&str, Memory, &[Judged])] = &[
        ("the last moment of a window", first, &[(100, 100, A, Pass), (109, 109, A, Duplicate)]),
        ("a window later", first, &[(100, 100, A, Pass), (110, 110, A, Pass)]),
        ("the same moment", first, &[(100, 100, A, Pass), (100, 100, A, Duplicate)]),
        ("the first moment before", first, &[(100, 100, A, Pass), (91, 100, A, Duplicate)]),
        ("a window earlier", first, &[(100, 100, A, Pass), (90, 100, A, Pass)]),
        ("more than a window below the watermark", first, &[(100, 100, A, Pass), (89, 100, A, Late)]),
        ("between two that passed", first, &[(100, 100, A, Pass), (110, 110, A, Pass), (105, 110, A, Duplicate)]),
        ("also the earlier of two counts", first, &[(100, 100, A, Pass), (90, 100, A, Pass), (81, 90, A, Duplicate)]),
        ("remembered until the watermark is there", first, &[(100, 100, A, Pass), (105, 110, A, Duplicate)]),
        ("and not when it has passed", first, &[(100, 100, A, Pass), (105, 111, A, Pass)]),
        ("a duplicate extends nothing", first, &[(100, 100, A, Pass), (109, 109, A, Duplicate), (110, 110, A, Pass)]),
        (
            "unless it renews, again and again",
            renew,
            &[
                (100, 100, A, Pass),
                (109, 109, A, Duplicate),
                (118, 118, A, Duplicate),
                (127, 127, A, Duplicate),
                (137, 137, A, Pass),
            ],
        ),
        (
            "an earlier one renews nothing",
            renew,
            &[(100, 100, A, Pass), (91, 100, A, Duplicate), (109, 109, A, Duplicate), (119, 119, A, Pass)],
        ),
        ("of equal times the later arrival", latest, &[(100, 100, A, Pass), (100, 100, B, Pass), (100, 100, A, Pass)]),
        ("older than the last", latest, &[(100, 100, A, Pass), (104, 104, A, Pass), (103, 104, A, Duplicate)]),
        ("a late one while the key is remembered", latest, &[(100, 100, A, Pass), (80, 109, A, Duplicate)]),
        ("a late one when it is forgotten", latest, &[(100, 100, A, Pass), (80, 110, A, Late)]),
        ("forgotten, and not late", latest, &[(100, 100, A, Pass), (100, 110, A, Pass)]),
        ("a late one of a key never seen", latest, &[(89, 100, A, Late), (90, 100, A, Pass)]),
        (
            "there and back",
            changes,
            &[(100, 100, A, Pass), (101, 101, B, Pass), (102, 102, A, Pass), (103, 103, A, Duplicate)],
        ),
        ("an equal one in the window", changes, &[(100, 100, A, Pass), (109, 109, A, Duplicate)]),
        ("an equal one a window later", changes, &[(100, 100, A, Pass), (110, 110, A, Pass), (119, 119, A, Duplicate)]),
        ("an equal one before", changes, &[(100, 100, A, Pass), (80, 100, A, Duplicate)]),
        ("by arrival", changes, &[(100, 100, A, Pass), (95, 100, B, Pass), (99, 100, A, Pass)]),
        ("a late one while the key is remembered", changes, &[(100, 100, A, Pass), (80, 109, B, Pass)]),
        ("a late one when it is forgotten", changes, &[(100, 100, A, Pass), (80, 110, B, Late)]),
        ("a late one of a key never seen", changes, &[(89, 100, A, Late), (90, 100, A, Pass)]),
    ];
    let judge = |memory: Memory, window_ms: Option<i64>, records: &[Judged]| {
        let store = MemoryStore::new();
        let mut seen = Seen::new(TASK, STEP, SeenOptions { memory, window_ms, filter_bytes_max: 1 << 16 });
        let verdict = |&(time_ms, watermark_ms, content, _): &Judged| {
            let mut verdicts = Vec::new();
            seen.judge(&store, &[Candidate { key: 7, time_ms, watermark_ms, content }], &mut verdicts).unwrap();
            verdicts[0]
        };
        records.iter().map(verdict).collect::<Vec<_>>()
    };
    for (what, memory, records) in cases {
        let said: Vec<Verdict> = records.iter().map(|record| record.3).collect();
        assert_eq!(judge(*memory, Some(10), records), said, "{what} ({memory:?})");
    }
    let ages = [(0, 0, A, Pass), (i64::MAX, i64::MAX, A, Duplicate), (i64::MIN, i64::MAX, A, Duplicate)];
    assert_eq!(judge(first, None, &ages), ages.map(|record| record.3), "for ever");
}

fn passed(seen: &mut Seen, store: &dyn StateStore, rows: &[Candidate]) -> usize {
    let mut verdicts = Vec::new();
    seen.judge(store, rows, &mut verdicts).unwrap();
    verdicts.iter().filter(|&&verdict| verdict == Verdict::Pass).count()
}

/// Seals and stores an epoch.
fn store_epoch(seen: &mut Seen, store: &dyn StateStore, watermark_ms: i64) {
    let mut batch = WriteBatch::default();
    seen.seal(store, watermark_ms, &mut batch).unwrap();
    store.write(&batch).unwrap();
    seen.stored();
}

const FIRST: SeenOptions =
    SeenOptions { memory: Memory::First { renew: false }, window_ms: Some(10), filter_bytes_max: 8 << 20 };

/// Runs of some thousand keys, so that tens of thousands make several levels.
const MANY_RUNS: Shape = Shape { run_keys: 3_000, chunk_keys: 50, fanout: 3, stretch_keys: 500, bytes_max: 8 << 20 };

#[test]
fn no_key_is_forgotten_while_runs_are_merged_and_after_a_restart() {
    let store = MemoryStore::new();
    let new = || Seen::with_shape(TASK, STEP, FIRST, MANY_RUNS);
    let mut seen = new();
    for round in 0..100u64 {
        assert_eq!(passed(&mut seen, &store, &candidates(round * 2_000..(round + 1) * 2_000)), 2_000);
        store_epoch(&mut seen, &store, 0);
        let sample = candidates(round * 1_000..round * 1_000 + 1_000);
        assert_eq!(passed(&mut seen, &store, &sample), 0);
        if round % 25 == 24 {
            seen = new();
        }
    }
    assert_eq!(passed(&mut seen, &store, &candidates(0..200_000)), 0);
    assert_eq!(seen.keys_estimate(), 200_000);
    assert!(seen.filter_bytes() > 0 && seen.filter_bytes() < 1 << 20, "{}", seen.filter_bytes());
    // Merged keys are not kept twice for long: 24 bytes each, and a merge under way.
    assert!(store.table_bytes(Table::Seen) < 200_000 * 24 * 5 / 2, "{}", store.table_bytes(Table::Seen));
}

/// After a start the filters are filled with each batch, while merges go on.
#[test]
fn no_key_is_forgotten_while_the_filters_of_a_large_state_are_filled() {
    let store = MemoryStore::new();
    let shape = Shape { chunk_keys: 4, ..MANY_RUNS };
    let mut seen = Seen::with_shape(TASK, STEP, FIRST, shape);
    for round in 0..50u64 {
        assert_eq!(passed(&mut seen, &store, &candidates(round * 2_000..(round + 1) * 2_000)), 2_000);
        store_epoch(&mut seen, &store, 0);
    }
    let mut seen = Seen::with_shape(TASK, STEP, FIRST, shape);
    let mut filter_bytes = Vec::new();
    for round in 0..20u64 {
        assert_eq!(passed(&mut seen, &store, &candidates(round * 5_000..(round + 1) * 5_000)), 0);
        let new = 100_000 + round * 1_000..101_000 + round * 1_000;
        assert_eq!(passed(&mut seen, &store, &candidates(new)), 1_000);
        store_epoch(&mut seen, &store, 0);
        filter_bytes.push(seen.filter_bytes());
    }
    assert!(filter_bytes[0] < filter_bytes[2], "one batch filled everything: {filter_bytes:?}");
    assert_eq!(passed(&mut seen, &store, &candidates(0..120_000)), 0);
}

#[test]
fn a_few_keys_that_change_all_the_time_do_not_fill_the_store() {
    let store = MemoryStore::new();
    let options = SeenOptions { memory: Memory::Latest, window_ms: None, filter_bytes_max: 8 << 20 };
    let mut seen = Seen::with_shape(TASK, STEP, options, MANY_RUNS);
    for time_ms in 0..20_000 {
        let at = |candidate: Candidate| Candidate { time_ms, watermark_ms: time_ms, ..candidate };
        let rows: Vec<Candidate> = candidates(0..50).into_iter().map(at).collect();
        assert_eq!(passed(&mut seen, &store, &rows), 50);
        store_epoch(&mut seen, &store, time_ms);
    }
    // Twenty times as much was written.
    assert!(store.table_bytes(Table::Seen) < 1 << 20, "{}", store.table_bytes(Table::Seen));
}

#[test]
fn a_passed_window_leaves_nothing_in_the_store() {
    let store = MemoryStore::new();
    let mut seen = Seen::with_shape(TASK, STEP, FIRST, MANY_RUNS);
    for round in 0..40u64 {
        passed(&mut seen, &store, &candidates(round * 2_000..(round + 1) * 2_000));
        store_epoch(&mut seen, &store, 0);
    }
    (0..3).for_each(|_| store_epoch(&mut seen, &store, 11));
    // What is recent goes with the next run.
    assert!(seen.keys_estimate() < 5_000, "{}", seen.keys_estimate());
    assert!(store.table_bytes(Table::Seen) < 5_000 * 26, "{}", store.table_bytes(Table::Seen));
}

/// By arrival, a change may have an earlier time than the state it replaces. When the later time is not passed yet,
/// the older state must not come to light because the newer one is.
#[test]
fn a_replaced_state_does_not_come_back_when_the_newer_one_is_passed() {
    let options = SeenOptions { memory: Memory::Changes, ..FIRST };
    let one_run_per_epoch = Shape { run_keys: 1, chunk_keys: 10, fanout: 4, stretch_keys: 100, bytes_max: 1 << 16 };
    let row = |time_ms, watermark_ms, content| Candidate { key: 7 << 70, time_ms, watermark_ms, content };
    // Other keys whose states are older still, so that the merges take in one more run.
    let other = |content| Candidate { key: 9 << 100, time_ms: 91, watermark_ms: 100, content };
    let epochs = |seen: &mut Seen, store: &MemoryStore, contents: std::ops::Range<u128>| {
        for content in contents {
            assert_eq!(passed(seen, store, &[other(content)]), 1);
            store_epoch(seen, store, 100);
        }
    };
    for (between, after, is_sealed) in (0..6).flat_map(|n| (0..8).flat_map(move |m| [(n, m, false), (n, m, true)])) {
        let store = MemoryStore::new();
        let mut seen = Seen::with_shape(TASK, STEP, options, one_run_per_epoch);
        assert_eq!(passed(&mut seen, &store, &[row(100, 100, 1)]), 1);
        store_epoch(&mut seen, &store, 100);
        epochs(&mut seen, &store, 0..between);
        assert_eq!(passed(&mut seen, &store, &[row(95, 100, 2)]), 1);
        store_epoch(&mut seen, &store, 100);
        epochs(&mut seen, &store, between..between + after);
        match is_sealed {
            // Merges leave out what is passed, then runs go.
            true => (0..2).for_each(|_| store_epoch(&mut seen, &store, 106)),
            false => forget_chunks(&store, u64::MAX, 96),
        }
        assert_eq!(passed(&mut seen, &store, &[row(106, 106, 1)]), 1, "{between} epochs, then {after}");
    }
}

#[test]
fn changes_that_are_not_stored_count_as_memory() {
    let store = MemoryStore::new();
    let mut seen = Seen::new(TASK, STEP, FIRST);
    let empty = seen.overlay_bytes();
    passed(&mut seen, &store, &candidates(0..10_000));
    assert!(seen.overlay_bytes() > empty + 10_000 * 40);
    store_epoch(&mut seen, &store, 0);
    assert_eq!(seen.overlay_bytes(), empty);
}

/// A store with a manifest, journals and chunks.
fn store_of_all_kinds() -> MemoryStore {
    let store = MemoryStore::new();
    let mut seen = Seen::with_shape(TASK, STEP, FIRST, MANY_RUNS);
    for round in 0..11u64 {
        passed(&mut seen, &store, &candidates(round * 2_000..(round + 1) * 2_000));
        store_epoch(&mut seen, &store, 0);
    }
    store
}

/// The keys of one kind: 0 manifest, 1 journals, 2 chunks.
fn keys_of(store: &MemoryStore, kind: u8) -> Vec<Vec<u8>> {
    all(store, Table::Seen).into_iter().map(|(key, _)| key).filter(|key| key[6] == kind).collect()
}

fn error_after(store: &MemoryStore, batch: &WriteBatch) -> (String, String) {
    store.write(batch).unwrap();
    let mut seen = Seen::with_shape(TASK, STEP, FIRST, MANY_RUNS);
    let error = seen.judge(store, &candidates(0..10), &mut Vec::new()).unwrap_err();
    (error.code.to_string(), error.to_string())
}

#[test]
fn damaged_state_is_corrupt_and_says_which() {
    for (kind, says) in [(0, "list of runs"), (1, "journal"), (2, "chunk")] {
        let store = store_of_all_kinds();
        let key = keys_of(&store, kind).pop().expect("every kind is there");
        let whole = store.get(Table::Seen, &key).unwrap().unwrap();
        let (code, message) = error_after(&store, &put(Table::Seen, &key, &whole[..whole.len() - 1]));
        assert_eq!(code, "corrupt");
        assert!(message.contains(says) && message.contains("Kafka still has the records"), "{message}");
    }
}

#[test]
fn a_gap_is_corrupt() {
    for kind in [0, 1] {
        let store = store_of_all_kinds();
        let mut batch = WriteBatch::default();
        batch.delete(Table::Seen, keys_of(&store, kind).remove(0));
        // What comes after the gap.
        let mut seen = Seen::with_shape(TASK, STEP, FIRST, Shape { run_keys: 1 << 20, ..MANY_RUNS });
        passed(&mut seen, &store, &candidates(50_000..50_010));
        store_epoch(&mut seen, &store, 0);
        assert_eq!(error_after(&store, &batch).0, "corrupt");
    }
}

#[test]
fn state_of_another_layout_is_refused_with_a_sentence() {
    let store = MemoryStore::new();
    let lone = [&TASK.0.to_be_bytes()[..], &STEP.to_be_bytes(), &[9; 16]].concat();
    let (code, message) = error_after(&store, &put(Table::Seen, &lone, &[0; 8]));
    assert_eq!(code, "older");
    assert!(message.contains("earlier weir"), "{message}");

    let store = store_of_all_kinds();
    let manifest = keys_of(&store, 0).remove(0);
    let mut value = store.get(Table::Seen, &manifest).unwrap().unwrap();
    value[0] += 1;
    assert_eq!(error_after(&store, &put(Table::Seen, &manifest, &value)).0, "newer");
}

// Memory against RocksDB.

#[derive(Clone, Debug)]
enum Write {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    DeleteRange(u8, Vec<u8>, Vec<u8>),
    Seen(Vec<u8>, Option<Vec<u8>>),
}

fn write() -> impl Strategy<Value = Write> {
    let key = || prop::collection::vec(0u8..4, 1..4);
    let value = || prop::collection::vec(any::<u8>(), 0..6);
    prop_oneof![
        4 => (0u8..4, key(), value()).prop_map(|(table, key, value)| Write::Put(table, key, value)),
        2 => (0u8..4, key()).prop_map(|(table, key)| Write::Delete(table, key)),
        1 => (0u8..4, key(), key()).prop_map(|(table, from, to)| Write::DeleteRange(table, from, to)),
        3 => (key(), prop::option::of(value())).prop_map(|(key, value)| Write::Seen(key, value)),
    ]
}

fn batch_of(writes: &[Write]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for write in writes {
        match write.clone() {
            Write::Put(table, key, value) => batch.put(Table::ALL[table as usize], key, value),
            Write::Delete(table, key) => batch.delete(Table::ALL[table as usize], key),
            Write::DeleteRange(table, from, to) => batch.delete_range(Table::ALL[table as usize], from, to),
            Write::Seen(key, Some(value)) => batch.seen.put(&key, &value),
            Write::Seen(key, None) => batch.seen.delete(&key),
        }
    }
    batch
}

fn found(store: &dyn StateStore, table: Table, keys: &[u8], key_len: usize) -> BTreeMap<usize, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut note = |index, value: &[u8]| assert!(found.insert(index, value.to_vec()).is_none());
    store.multi_get(table, keys, key_len, &mut note).unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_hold_the_same_after_the_same_writes(
        batches in prop::collection::vec(prop::collection::vec(write(), 0..8), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (memory, mut disk) = (MemoryStore::new(), rocks(directory.path()));
        for (number, writes) in batches.iter().enumerate() {
            let batch = batch_of(writes);
            memory.write(&batch).unwrap();
            disk.write(&batch).unwrap();
            if number % 7 == 6 {
                drop(disk);
                disk = rocks(directory.path());
            }
        }
        for table in Table::ALL {
            prop_assert_eq!(all(&memory, table), all(&disk, table));
            let keys: Vec<u8> = (0..16).flat_map(|n| [n / 4, n % 4]).collect();
            prop_assert_eq!(found(&memory, table, &keys, 2), found(&disk, table, &keys, 2));
            for key in keys.chunks_exact(2) {
                prop_assert_eq!(memory.get(table, key).unwrap(), disk.get(table, key).unwrap());
            }
            // Half-open, in order, and ended by the visitor.
            let some = |store: &dyn StateStore| {
                let mut keys = Vec::new();
                store.scan(table, &[1], &[3, 1], &mut |key, _| { keys.push(key.to_vec()); keys.len() < 5 }).unwrap();
                keys
            };
            prop_assert_eq!(some(&memory), some(&disk));
        }
    }
}

// The directory.

#[test]
fn what_was_written_is_there_after_a_reopen_and_for_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    store.write(&put(Table::Ledger, b"a", b"1")).unwrap();
    store.write(&put(Table::Outbox, b"b", &vec![7; 1 << 20])).unwrap();
    drop(store);
    let reader = RocksStore::open_read_only(directory.path(), &shared()).unwrap();
    assert_eq!(reader.get(Table::Ledger, b"a").unwrap(), Some(b"1".to_vec()));
    assert!(reader.write(&put(Table::Ledger, b"a", b"2")).is_err());
    drop(reader);
    assert_eq!(rocks(directory.path()).get(Table::Outbox, b"b").unwrap(), Some(vec![7; 1 << 20]));
}

#[test]
fn passed_windows_give_their_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    let key = |task: u32, n: u8| seen_chunk_key(seen_prefix(TaskNo(task), 0), 7, n as u32).to_vec();
    // A chunk's newest time comes first.
    let chunk = |time_ms: i64| [&time_ms.to_be_bytes()[..], &[1, 8, 0, 0, 0, 1], &[0; 24]].concat();
    for task in [1, 2] {
        for n in 0..10 {
            store.write(&put(Table::Seen, &key(task, n), &chunk(n as i64))).unwrap();
        }
        // A journal looks like a passed chunk, if one does not look at its key.
        store.write(&put(Table::Seen, &seen_journal_key(seen_prefix(TaskNo(task), 0), 0), &chunk(0))).unwrap();
    }
    store.set_horizon(TaskNo(1), 0, 4);
    store.set_horizon(TaskNo(1), 0, 2);
    store.set_horizon(TaskNo(1), 1, 100);
    store.compact(Table::Seen).unwrap();
    let left: Vec<Vec<u8>> = all(&store, Table::Seen).into_iter().map(|(key, _)| key).collect();
    let journal = |task| seen_journal_key(seen_prefix(TaskNo(task), 0), 0).to_vec();
    let chunks = |task, from| (from..10).map(move |n| key(task, n));
    let expected: Vec<Vec<u8>> =
        [journal(1)].into_iter().chain(chunks(1, 4)).chain([journal(2)]).chain(chunks(2, 0)).collect();
    assert_eq!(left, expected);
}

#[test]
fn released_blocks_give_their_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    let block: Vec<u8> = (0..8u32 << 18).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let mut highest = 0;
    for n in 0..60u32 {
        let mut batch = put(Table::Outbox, &n.to_be_bytes(), &block);
        if n >= 3 {
            batch.delete(Table::Outbox, (n - 3).to_be_bytes());
        }
        batch.put(Table::Ledger, *b"checkpoint", n.to_be_bytes());
        store.write(&batch).unwrap();
        highest = store.disk_bytes().max(highest);
    }
    assert!(highest < 700 << 20, "{} MiB on disk for 32 MiB of live blocks", highest >> 20);
}

#[test]
fn a_reader_of_nothing_says_so_and_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("never");
    assert_eq!(RocksStore::open_read_only(&path, &shared()).err().unwrap().code, "absent");
    assert!(!path.exists());
}

#[test]
fn a_directory_that_this_process_still_has_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    let error = RocksStore::open(directory.path(), &shared()).err().unwrap();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Retry, "held"), "{error}");
    drop(store);
    rocks(directory.path());
}

#[test]
#[ignore = "a process of its own for the test below"]
fn holds_a_directory() {
    let _store = rocks(Path::new(&std::env::var("WEIR_TEST_HOLD").unwrap()));
    println!("held");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_directory_in_use_by_another_process_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_directory", "--ignored", "--nocapture"])
        .env("WEIR_TEST_HOLD", directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("held")));
    let error = RocksStore::open(directory.path(), &shared()).err().unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(error.code, "locked", "{error}");
    rocks(directory.path());
}

fn files_of(directory: &Path, is: impl Fn(&str) -> bool) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| is(file.file_name().unwrap().to_str().unwrap())).collect()
}

type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn a_damaged_directory_is_corrupt_and_left_as_it_is() {
    let damages: [(&str, Damage); 4] = [
        ("no CURRENT", &|path| std::fs::remove_file(path.join("CURRENT")).unwrap()),
        ("CURRENT garbled", &|path| std::fs::write(path.join("CURRENT"), "nonsense").unwrap()),
        ("no table file", &|path| {
            files_of(path, |name| name.ends_with(".sst")).iter().for_each(|file| std::fs::remove_file(file).unwrap())
        }),
        ("MANIFEST garbled", &|path| {
            files_of(path, |name| name.starts_with("MANIFEST"))
                .iter()
                .for_each(|file| std::fs::write(file, [9; 200]).unwrap())
        }),
    ];
    for (name, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let store = rocks(directory.path());
        store.write(&put(Table::Ledger, b"a", b"1")).unwrap();
        store.compact(Table::Ledger).unwrap();
        drop(store);
        damage(directory.path());
        let error = RocksStore::open(directory.path(), &shared()).err().expect(name);
        assert_eq!(error.code, "corrupt", "{name}: {error}");
    }
}

#[test]
fn a_damaged_table_file_is_corrupt_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    store.write(&put(Table::Ledger, b"a", &[1; 5000])).unwrap();
    store.compact(Table::Ledger).unwrap();
    drop(store);
    for file in files_of(directory.path(), |name| name.ends_with(".sst")) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100..200].fill(0xee);
        std::fs::write(file, bytes).unwrap();
    }
    let read = RocksStore::open(directory.path(), &shared()).and_then(|store| store.get(Table::Ledger, b"a"));
    assert_eq!(read.unwrap_err().code, "corrupt");
}

/// Writes, meets a disk that takes no more, and goes on when it does again.
fn loses_nothing_on_a_full_disk(path: &Path, fill: impl FnOnce(), make_space: impl FnOnce()) {
    let store = RocksStore::open(path, &shared()).unwrap();
    let value = vec![3u8; 1 << 20];
    let key = |n: u32| n.to_be_bytes();
    let batch = |n: u32| {
        let mut batch = put(Table::Outbox, &key(n), &value);
        batch.seen.put(&key(n), &key(n));
        batch
    };
    (0..6).for_each(|n| store.write(&batch(n)).unwrap());
    fill();
    let mut written = 6;
    let full = loop {
        assert!(written < 100, "it never fills up");
        match store.write(&batch(written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.code, "disk_full", "{full}");
    assert_eq!(store.write(&batch(written)).unwrap_err().code, "disk_full");

    make_space();
    store.write(&batch(written)).unwrap();
    let holds = |store: &RocksStore, n| {
        assert_eq!(store.get(Table::Outbox, &key(n)).unwrap().as_ref(), Some(&value));
        assert_eq!(store.get(Table::Seen, &key(n)).unwrap(), Some(key(n).to_vec()));
    };
    (0..=written).for_each(|n| holds(&store, n));
    drop(store);
    let store = RocksStore::open(path, &shared()).unwrap();
    (0..=written).for_each(|n| holds(&store, n));
}

#[test]
#[ignore = "a process of its own for the tests below"]
fn fills_up_by_a_limit_on_files() {
    let directory = tempfile::tempdir().unwrap();
    let limit = |bytes| limit_own_files(bytes).unwrap();
    loses_nothing_on_a_full_disk(&directory.path().join("state"), || limit(Some(256 << 10)), || limit(None));
    println!("nothing lost");
}

/// The limit holds for a whole process, so it gets one.
#[test]
fn a_disk_that_takes_no_more_loses_nothing_and_the_same_write_goes_through_when_it_does() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "fills_up_by_a_limit_on_files", "--ignored", "--nocapture"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("nothing lost"), "{said}");
}

/// The real thing: a disk of a few MiB.
#[test]
fn a_full_disk_loses_nothing_and_the_same_write_goes_through_when_there_is_space() {
    if !SmallDisk::may_mount() {
        return in_own_namespace("a_full_disk_loses_nothing_and_the_same_write_goes_through_when_there_is_space");
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(directory.path(), 48);
    let filling = directory.path().join("filling");
    let fill = || drop(disk.fill());
    loses_nothing_on_a_full_disk(&directory.path().join("state"), fill, || std::fs::remove_file(filling).unwrap());
}

#[test]
fn a_disk_that_refuses_is_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a_file");
    std::fs::write(&file, "in the way").unwrap();
    // Nobody makes a directory in a file, nor, root included, in the kernel's own file system.
    for path in [file.join("state"), file, Path::new("/sys/weir-state").to_owned()] {
        let error = RocksStore::open(&path, &shared()).err().unwrap();
        assert_eq!(error.code, "unreadable", "{}: {error}", path.display());
    }
}

#[test]
fn writes_of_many_threads_are_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let store = &store;
            scope.spawn(move || {
                (0..50u8).for_each(|n| store.write(&put(Table::Ledger, &[thread, n], &[n])).unwrap());
            });
        }
    });
    assert_eq!(all(&store, Table::Ledger).len(), 200);
}
