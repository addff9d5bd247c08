//! The dedup store: judging batches of 4,096 records against RocksDB, one tenth of them duplicates, one epoch of
//! 65,536 records per synced write.
//!
//! `cargo bench --bench dedup_store`; `WEIR_BENCH_KEYS=10000000` (or 100000000) sets how many keys are stored
//! before measuring, `WEIR_BENCH_TASKS=8` how many tasks share them and the store. Each group also prints the CPU time per record of this thread and of all threads, which a busy
//! machine changes less than the wall clock.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use weir::state::rocks::{RocksStore, Shared};
use weir::state::seen::{Candidate, Memory, Seen, SeenOptions, Verdict};
use weir::state::{StateStore, Table, WriteBatch};
use weir::types::TaskNo;

const BATCH: u64 = 4096;
const BATCHES_PER_EPOCH: u64 = 16;
/// One record in so many repeats an earlier one.
const DUPLICATE_EVERY: u64 = 10;
const KEYS_DEFAULT: u64 = 2_000_000;

fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn key(n: u64) -> u128 {
    let high = mixed(n.wrapping_add(0x9e37_79b9_7f4a_7c15));
    (high as u128) << 64 | mixed(high ^ n) as u128
}

/// A stream of records, and the tables of the tasks that judge them in turn, a batch each.
struct Stream {
    store: RocksStore,
    tasks: Vec<Task>,
    records: u64,
    batches: u64,
    duplicates: u64,
    found: u64,
    batch: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    /// A write takes the place of the sealed epoch on its way to the disk.
    sealed: Option<WriteBatch>,
    _directory: tempfile::TempDir,
}

struct Task {
    number: u32,
    seen: Seen,
    unique: u64,
}

fn table(task: u32) -> Seen {
    let memory = Memory::First { renew: false };
    Seen::new(TaskNo(task), 0, SeenOptions { memory, window_ms: Some(1 << 40), filter_bytes_max: 1 << 30 })
}

impl Stream {
    fn new() -> Stream {
        let directory = tempfile::tempdir().expect("a directory for the bench");
        let shared = Shared::new(256 << 20, 256 << 20);
        let store = RocksStore::open(directory.path(), &shared).expect("a new store");
        let tasks = from_environment("WEIR_BENCH_TASKS", 1) as u32;
        Stream {
            store,
            tasks: (1..=tasks).map(|number| Task { number, seen: table(number), unique: 0 }).collect(),
            records: 0,
            batches: 0,
            duplicates: 0,
            found: 0,
            batch: Vec::new(),
            verdicts: Vec::new(),
            sealed: None,
            _directory: directory,
        }
    }

    fn keys(&self) -> u64 {
        self.tasks.iter().map(|task| task.unique).sum()
    }

    fn fill(&mut self, keys: u64) {
        while self.keys() < keys {
            self.step();
        }
    }

    /// One batch, and every sixteenth time of each task the write of an epoch of all.
    fn step(&mut self) {
        let tasks = self.tasks.len() as u64;
        let task = &mut self.tasks[(self.batches % tasks) as usize];
        self.batch.clear();
        for _ in 0..BATCH {
            self.records += 1;
            let chance = mixed(self.records);
            let number = match chance % DUPLICATE_EVERY {
                0 if task.unique > 0 => {
                    self.duplicates += 1;
                    mixed(chance) % task.unique
                }
                _ => {
                    task.unique += 1;
                    task.unique - 1
                }
            };
            let time_ms = self.records as i64;
            self.batch.push(Candidate { key: key(number), time_ms, watermark_ms: time_ms, content: 0 });
        }
        task.seen.judge(&self.store, &self.batch, &mut self.verdicts).expect("a healthy store");
        self.found += self.verdicts.iter().filter(|&&verdict| verdict == Verdict::Duplicate).count() as u64;
        self.batches += 1;
        if self.batches.is_multiple_of(BATCHES_PER_EPOCH * tasks) {
            let mut batch = self.seal();
            batch.put(Table::Ledger, *b"checkpoint", self.records.to_be_bytes());
            // One epoch is always on its way: its changes are in the overlay while the next is judged.
            if let Some(sealed) = self.sealed.replace(batch) {
                self.store.write(&sealed).expect("a healthy store");
                self.tasks.iter_mut().for_each(|task| task.seen.stored());
            }
        }
    }

    fn seal(&mut self) -> WriteBatch {
        let mut all = WriteBatch::default();
        for task in &mut self.tasks {
            let mut batch = WriteBatch::default();
            task.seen.seal(&self.store, self.records as i64, &mut batch).expect("a healthy store");
            all.append(batch);
        }
        all
    }

    /// The tables as after a restart: the store is warm, and all else has to be read.
    fn restart(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            self.store.write(&sealed).expect("a healthy store");
            self.tasks.iter_mut().for_each(|task| task.seen.stored());
        }
        let open = self.seal();
        self.store.write(&open).expect("a healthy store");
        self.tasks.iter_mut().for_each(|task| task.seen = table(task.number));
        self.batches = 0;
    }

    /// Reads what a start reads.
    fn start(&mut self) {
        let begin = Instant::now();
        let first = Candidate { key: key(0), time_ms: 0, watermark_ms: self.records as i64, content: 0 };
        for task in &mut self.tasks {
            task.seen.judge(&self.store, &[first], &mut self.verdicts).expect("a healthy store");
        }
        println!("a start reads {} keys in {:?}", self.keys(), begin.elapsed());
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// CPU time of this thread and of the whole process.
fn cpu() -> (Duration, Duration) {
    let time = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes into a timespec of ours.
        unsafe { libc::clock_gettime(clock, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    (time(libc::CLOCK_THREAD_CPUTIME_ID), time(libc::CLOCK_PROCESS_CPUTIME_ID))
}

fn report(name: &str, stream: &mut Stream, records: u64) {
    let (begin, wall, before) = (stream.records, Instant::now(), cpu());
    while stream.records < begin + records {
        stream.step();
    }
    let (after, records) = (cpu(), (stream.records - begin) as f64);
    let us = |time: Duration| time.as_secs_f64() * 1e6 / records;
    println!(
        "{name}: {:.2} µs a record on the worker, {:.2} on all threads, {:.0} records/s; filter {} MiB, disk {} MiB",
        us(after.0 - before.0),
        us(after.1 - before.1),
        records / wall.elapsed().as_secs_f64(),
        stream.tasks.iter().map(|task| task.seen.filter_bytes()).sum::<usize>() >> 20,
        stream.store.disk_bytes() >> 20,
    );
    assert_eq!(stream.found, stream.duplicates, "every duplicate is found and nothing else");
}

fn dedup_store(criterion: &mut Criterion) {
    let keys = from_environment("WEIR_BENCH_KEYS", KEYS_DEFAULT);
    let mut group = criterion.benchmark_group("dedup_store");
    group.sample_size(10).throughput(Throughput::Elements(BATCH * BATCHES_PER_EPOCH));
    let epoch = |stream: &mut Stream| (0..BATCHES_PER_EPOCH).for_each(|_| stream.step());

    group.bench_function("cold", |bench| {
        bench.iter_with_large_drop(|| {
            let mut stream = Stream::new();
            epoch(&mut stream);
            stream
        })
    });
    let mut stream = Stream::new();
    report("filling", &mut stream, keys * DUPLICATE_EVERY / (DUPLICATE_EVERY - 1));
    stream.fill(keys);
    report(&format!("with {keys} keys"), &mut stream, 2_000_000);
    group.bench_function(BenchmarkId::new("warm", keys), |bench| bench.iter(|| epoch(&mut stream)));
    stream.restart();
    stream.start();
    report("after a restart", &mut stream, 500_000);
    group.bench_function(BenchmarkId::new("restarted", keys), |bench| bench.iter(|| epoch(&mut stream)));
    group.finish();
}

criterion_group!(benches, dedup_store);
criterion_main!(benches);
