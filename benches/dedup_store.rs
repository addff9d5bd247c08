//! The dedup store: judging batches of 4,096 records against RocksDB, one tenth of them duplicates, one epoch of
//! 65,536 records per synced write.
//!
//! `cargo bench --bench dedup_store`; `WEIR_BENCH_KEYS=10000000` (or 100000000) sets how many keys are stored
//! before measuring. Each group also prints the CPU time per record of this thread and of all threads, which a busy
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

/// A stream of records and the table that judges them.
struct Stream {
    store: RocksStore,
    seen: Seen,
    unique: u64,
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

fn table() -> Seen {
    let memory = Memory::First { renew: false };
    Seen::new(TaskNo(1), 0, SeenOptions { memory, window_ms: Some(1 << 40), filter_bytes_max: 1 << 30 })
}

impl Stream {
    fn new() -> Stream {
        let directory = tempfile::tempdir().expect("a directory for the bench");
        let shared = Shared::new(256 << 20, 256 << 20);
        let store = RocksStore::open(directory.path(), &shared).expect("a new store");
        Stream {
            store,
            seen: table(),
            unique: 0,
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

    fn fill(&mut self, keys: u64) {
        while self.unique < keys {
            self.step();
        }
    }

    /// One batch, and every sixteenth time the epoch's write.
    fn step(&mut self) {
        self.batch.clear();
        for _ in 0..BATCH {
            self.records += 1;
            let chance = mixed(self.records);
            let number = match chance % DUPLICATE_EVERY {
                0 if self.unique > 0 => {
                    self.duplicates += 1;
                    mixed(chance) % self.unique
                }
                _ => {
                    self.unique += 1;
                    self.unique - 1
                }
            };
            let time_ms = self.records as i64;
            self.batch.push(Candidate { key: key(number), time_ms, watermark_ms: time_ms, content: 0 });
        }
        self.seen.judge(&self.store, &self.batch, &mut self.verdicts).expect("a healthy store");
        self.found += self.verdicts.iter().filter(|&&verdict| verdict == Verdict::Duplicate).count() as u64;
        self.batches += 1;
        if self.batches.is_multiple_of(BATCHES_PER_EPOCH) {
            let mut batch = WriteBatch::default();
            self.seen.seal(&self.store, self.records as i64, &mut batch).expect("a healthy store");
            batch.put(Table::Ledger, *b"checkpoint", self.records.to_be_bytes());
            // One epoch is always on its way: its changes are in the overlay while the next is judged.
            if let Some(sealed) = self.sealed.replace(batch) {
                self.store.write(&sealed).expect("a healthy store");
                self.seen.stored();
            }
        }
    }

    /// The table as after a restart: the store is warm, the filter knows nothing.
    fn restart(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            self.store.write(&sealed).expect("a healthy store");
        }
        let mut open = WriteBatch::default();
        self.seen.seal(&self.store, self.records as i64, &mut open).expect("a healthy store");
        self.store.write(&open).expect("a healthy store");
        self.seen = table();
        self.batches = 0;
    }
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
        "{name}: {:.2} µs a record on the worker, {:.2} on all threads, {:.0} records/s; filter {} MiB, overlay {} MiB, disk {} MiB",
        us(after.0 - before.0),
        us(after.1 - before.1),
        records / wall.elapsed().as_secs_f64(),
        stream.seen.filter_bytes() >> 20,
        stream.seen.overlay_bytes() >> 20,
        stream.store.disk_bytes() >> 20,
    );
    assert_eq!(stream.found, stream.duplicates, "every duplicate is found and nothing else");
}

fn dedup_store(criterion: &mut Criterion) {
    let keys = std::env::var("WEIR_BENCH_KEYS").map_or(KEYS_DEFAULT, |keys| keys.parse().expect("a number of keys"));
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
    report("after a restart", &mut stream, 500_000);
    group.bench_function(BenchmarkId::new("restarted", keys), |bench| bench.iter(|| epoch(&mut stream)));
    group.finish();
}

criterion_group!(benches, dedup_store);
criterion_main!(benches);
