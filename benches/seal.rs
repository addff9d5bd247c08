//! Sealing and storing epochs: what one synced write of state, checkpoint and block costs, for one task and for
//! eight that share it.
//!
//! `cargo bench --bench seal`. An epoch is 10,000 new keys and a block of 1 MiB that does not compress; each write
//! also releases the block of the epoch before, as the commit protocol does. The elements are keys.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weir::state::rocks::{RocksStore, Shared};
use weir::state::seen::{Candidate, Memory, Seen, SeenOptions, Verdict};
use weir::state::{StateStore, Table, WriteBatch};
use weir::types::TaskNo;

const KEYS_PER_EPOCH: u64 = 10_000;
const BLOCK_BYTES: usize = 1 << 20;

/// One task's state and the block it sends again and again.
struct TaskOfBench {
    number: u32,
    seen: Seen,
    epoch: u64,
    body: Bytes,
}

impl TaskOfBench {
    fn new(number: u32) -> TaskOfBench {
        let memory = Memory::First { renew: false };
        let options = SeenOptions { memory, window_ms: Some(1 << 40), filter_bytes_max: 64 << 20 };
        let body: Vec<u8> = (0..BLOCK_BYTES as u64).map(|place| mixed(place) as u8).collect();
        TaskOfBench { number, seen: Seen::new(TaskNo(number), 0, options), epoch: 0, body: body.into() }
    }

    /// Judges an epoch's records, which is not what is measured.
    fn fill(&mut self, store: &RocksStore) {
        let first = self.epoch * KEYS_PER_EPOCH;
        let key = |n: u64| (mixed(n ^ u64::from(self.number) << 40) as u128) << 64 | mixed(!n) as u128;
        let candidate = |n| Candidate { key: key(n), time_ms: n as i64, watermark_ms: 0, content: 0 };
        let batch: Vec<Candidate> = (first..first + KEYS_PER_EPOCH).map(candidate).collect();
        let mut verdicts: Vec<Verdict> = Vec::new();
        self.seen.judge(store, &batch, &mut verdicts).expect("the store answers");
    }

    fn seal(&mut self, store: &RocksStore) -> WriteBatch {
        let mut batch = WriteBatch::default();
        self.seen.seal(store, 0, &mut batch).expect("a healthy store");
        let key = |epoch: u64| [&self.number.to_be_bytes()[..], &epoch.to_be_bytes()].concat();
        batch.put(Table::Ledger, self.number.to_be_bytes(), vec![0; 200]);
        batch.put(Table::Ledger, key(self.epoch), vec![0; 400]);
        batch.put_shared(Table::Outbox, key(self.epoch), self.body.clone());
        if let Some(before) = self.epoch.checked_sub(1) {
            batch.delete(Table::Outbox, key(before));
            batch.delete(Table::Ledger, key(before));
        }
        self.epoch += 1;
        batch
    }
}

fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// Seals all tasks, makes one write of it, stores it.
fn seal_and_store(store: &RocksStore, tasks: &mut [TaskOfBench]) {
    let mut all = WriteBatch::default();
    tasks.iter_mut().for_each(|task| all.append(task.seal(store)));
    store.write(&all).expect("the disk takes it");
    tasks.iter_mut().for_each(|task| task.seen.stored());
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal_and_store");
    group.sample_size(20);
    for count in [1, 8] {
        let directory = tempfile::tempdir().expect("a directory for the bench");
        let shared = Shared::new(64 << 20, 256 << 20);
        let store = RocksStore::open(directory.path(), &shared).expect("a new store");
        let tasks: Vec<TaskOfBench> = (1..=count).map(TaskOfBench::new).collect();
        let tasks = std::cell::RefCell::new(tasks);
        group.throughput(Throughput::Elements(u64::from(count) * KEYS_PER_EPOCH));
        group.bench_function(BenchmarkId::new("tasks", count), |bencher| {
            bencher.iter_batched(
                || tasks.borrow_mut().iter_mut().for_each(|task| task.fill(&store)),
                |()| seal_and_store(&store, &mut tasks.borrow_mut()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
