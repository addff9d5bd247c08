//! The stores and the dedup table, from outside: verdicts against the bare definition, memory against RocksDB,
//! and what happens when a directory is locked, damaged or full.

#[path = "support/disk.rs"]
#[allow(dead_code)] // Its other part is for tests that start programs.
mod disk;

use disk::{SmallDisk, limit_own_files};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use weir::state::memory::MemoryStore;
use weir::state::rocks::{RocksStore, Shared};
use weir::state::seen::{Candidate, Memory, Seen, SeenOptions, Verdict};
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
    Store,
    Crash,
    Compact,
}

fn act() -> impl Strategy<Value = Act> {
    let rows = || prop::collection::vec((0u8..5, -12i8..14, 0u8..2), 0..12);
    prop_oneof![
        6 => rows().prop_map(Act::Judge),
        1 => rows().prop_map(Act::Redo),
        2 => Just(Act::Seal),
        2 => Just(Act::Store),
        1 => Just(Act::Crash),
        1 => Just(Act::Compact),
    ]
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

/// A task as the runtime drives it, with the oracle beside it.
struct Run<'a> {
    store: &'a dyn StateStore,
    compact: &'a dyn Fn(),
    options: SeenOptions,
    lateness_ms: i64,
    seen: Seen,
    now: Moment,
    /// Sealed epochs: what to write, and where the oracle stood.
    sealed: Vec<(WriteBatch, Moment)>,
    stored: Moment,
}

#[derive(Clone)]
struct Moment {
    oracle: Oracle,
    time_ms: i64,
    watermark_ms: i64,
}

impl<'a> Run<'a> {
    fn new(store: &'a dyn StateStore, compact: &'a dyn Fn(), options: SeenOptions, lateness_ms: i64) -> Run<'a> {
        let oracle = Oracle { options, known: BTreeMap::new() };
        let now = Moment { oracle, time_ms: 1_000, watermark_ms: i64::MIN };
        let seen = Seen::new(TASK, STEP, options);
        Run { store, compact, options, lateness_ms, seen, stored: now.clone(), now, sealed: vec![] }
    }

    fn rows(&mut self, rows: &[(u8, i8, u8)]) -> Vec<Candidate> {
        let mut candidate = |&(key, step_ms, content): &(u8, i8, u8)| {
            let time_ms = self.now.time_ms + step_ms as i64;
            self.now.time_ms += (step_ms as i64).max(0) / 2;
            self.now.watermark_ms = self.now.watermark_ms.max(time_ms - self.lateness_ms);
            // Keys that differ in one half only.
            let key = ((key as u128 / 2) << 64) | (key as u128 % 2);
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
                self.seen.seal(&mut batch.seen);
                assert!(batch.seen.iter().is_sorted_by(|a, b| a.0 < b.0));
                self.sealed.push((batch, self.now.clone()));
            }
            Act::Store if self.sealed.is_empty() => {}
            Act::Store => {
                let (batch, moment) = self.sealed.remove(0);
                self.store.write(&batch).unwrap();
                self.seen.stored();
                self.stored = moment;
            }
            Act::Crash => {
                self.seen = Seen::new(TASK, STEP, self.options);
                self.now = self.stored.clone();
                self.sealed.clear();
            }
            Act::Compact => {
                if let Some(horizon_ms) = self.seen.horizon_ms(self.stored.watermark_ms) {
                    self.store.set_horizon(TASK, STEP, horizon_ms);
                }
                (self.compact)();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_the_definition_however_records_are_cut(
        options in options(),
        lateness_ms in 0i64..30,
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let store = MemoryStore::new();
        let mut run = Run::new(&store, &|| {}, options, lateness_ms);
        acts.iter().for_each(|act| run.act(act));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_on_disk_are_those_of_the_definition_whatever_is_reclaimed(
        options in options(),
        lateness_ms in 0i64..30,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = rocks(directory.path());
        let compact = || store.compact(Table::Seen).unwrap();
        let mut run = Run::new(&store, &compact, options, lateness_ms);
        acts.iter().for_each(|act| run.act(act));
    }
}

fn candidates(numbers: std::ops::Range<u64>) -> Vec<Candidate> {
    let key = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_be_bytes());
    numbers.map(|n| Candidate { key: key(n), time_ms: 0, watermark_ms: 0, content: 0 }).collect()
}

fn passed(seen: &mut Seen, store: &dyn StateStore, rows: &[Candidate]) -> usize {
    let mut verdicts = Vec::new();
    seen.judge(store, rows, &mut verdicts).unwrap();
    verdicts.iter().filter(|&&verdict| verdict == Verdict::Pass).count()
}

#[test]
fn no_key_is_forgotten_while_the_filter_grows_and_after_a_restart() {
    let store = MemoryStore::new();
    let memory = Memory::First { renew: false };
    let options = SeenOptions { memory, window_ms: Some(10), filter_bytes_max: 8 << 20 };
    let mut seen = Seen::new(TASK, STEP, options);
    for round in 0..60u64 {
        assert_eq!(passed(&mut seen, &store, &candidates(round * 5_000..(round + 1) * 5_000)), 5_000);
        let mut batch = WriteBatch::default();
        seen.seal(&mut batch.seen);
        store.write(&batch).unwrap();
        seen.stored();
        let sample = candidates(round * 2_500..round * 2_500 + 2_500);
        assert_eq!(passed(&mut seen, &store, &sample), 0);
        if round % 25 == 24 {
            seen = Seen::new(TASK, STEP, options);
        }
    }
    assert_eq!(passed(&mut seen, &store, &candidates(0..300_000)), 0);
    assert!(seen.filter_bytes() > 0 && seen.filter_bytes() < 2 << 20, "{}", seen.filter_bytes());
}

#[test]
fn changes_that_are_not_stored_count_as_memory() {
    let store = MemoryStore::new();
    let memory = Memory::First { renew: false };
    let options = SeenOptions { memory, window_ms: Some(10), filter_bytes_max: 8 << 20 };
    let mut seen = Seen::new(TASK, STEP, options);
    let empty = seen.overlay_bytes();
    passed(&mut seen, &store, &candidates(0..10_000));
    assert!(seen.overlay_bytes() > empty + 10_000 * 40);
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
fn a_retired_task_and_passed_windows_give_their_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    let key = |task: u32, n: u8| [&task.to_be_bytes()[..], &[0, 0], &[n; 16]].concat();
    for task in [1, 2, 3] {
        for n in 0..10 {
            store.write(&put(Table::Seen, &key(task, n), &(n as i64).to_be_bytes())).unwrap();
        }
    }
    store.set_horizon(TaskNo(1), 0, 4);
    store.set_horizon(TaskNo(1), 0, 2);
    store.set_horizon(TaskNo(1), 1, 100);
    store.set_retired(TaskNo(2));
    store.compact(Table::Seen).unwrap();
    let left: Vec<Vec<u8>> = all(&store, Table::Seen).into_iter().map(|(key, _)| key).collect();
    let expected: Vec<Vec<u8>> = (4..10).map(|n| key(1, n)).chain((0..10).map(|n| key(3, n))).collect();
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
fn a_directory_in_use_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let _store = rocks(directory.path());
    let error = RocksStore::open(directory.path(), &shared()).err().unwrap();
    assert_eq!(error.code, "locked", "{error}");
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
fn by_a_limit_on_files() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "fills_up_by_a_limit_on_files", "--ignored", "--nocapture"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("nothing lost"), "{said}");
}

#[test]
fn a_disk_that_takes_no_more_loses_nothing_and_the_same_write_goes_through_when_it_does() {
    by_a_limit_on_files();
}

/// The real thing where this user may mount a disk of a few MiB; where not, once more by the limit on files.
#[test]
fn a_full_disk_loses_nothing_and_the_same_write_goes_through_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path(), 48) else {
        eprintln!("this user may not mount a disk, so a limit on the size of files stands in for it");
        return by_a_limit_on_files();
    };
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
