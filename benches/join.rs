//! The join step alone, against RocksDB: passes of 4,096 rows of two sides, one epoch of 65,536 rows per synced write.
//! Rows come decoded; what comes out is thrown away. Making the rows is not in the figures.
//!
//! `cargo bench --bench join`; `WEIR_BENCH_ROWS` sets the rows of each side (1,000,000) that are there before measuring.
//! For an interval join whose window holds a tenth of these rows, and all of them, and for a temporal join with a
//! table. Each also prints what the filling took: CPU time per row of all threads, memory and disk.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use weir::codec::key::{KeyHasher, KeyPart};
use weir::codec::packed::Packing;
use weir::codec::rows::{Field, Kind as FieldKind, RowMeta, Rows, Slot};
use weir::state::buffer::SegmentSize;
use weir::state::rocks::{RocksStore, Shared};
use weir::state::{StateStore, WriteBatch};
use weir::step::join::{Assembly, Batch, Clock, Event, Join, JoinParts, Kind, Late, Output, Rules, Side};
use weir::types::TaskNo;

const PASS_ROWS: usize = 4096;
const PASSES_PER_EPOCH: usize = 16;
/// Fields of a row: key, id, three texts; then the five that the join adds.
const FIELDS: usize = 5;
const KEY: Slot = Slot(0);

fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// A row to come: side, number of its key, event time.
#[derive(Clone, Copy)]
struct Coming {
    side: Side,
    number: u64,
    time_ms: i64,
}

fn join(store: &dyn StateStore, kind: Kind) -> Join {
    let key = || KeyHasher::new([7; 16], vec![KeyPart { slot: KEY, cast: None, path: "order_id".into() }]);
    let slots: Vec<Slot> = (0..FIELDS as u16).map(Slot).collect();
    let assembly = Assembly {
        left: Packing { slots: slots.clone() },
        right: Packing { slots },
        joined: (0..FIELDS).map(|field| (field, Slot((FIELDS + field) as u16))).collect(),
        ..Assembly::default()
    };
    let rules = Rules { kind, keeps_left: true, keeps_right: false, late: Late::Join, rows_per_key_max: 100_000 };
    let segment = SegmentSize::within(16 << 20);
    let parts = JoinParts { rules, left_key: key(), right_key: key(), key_text: "order_id".into(), assembly, segment };
    Join::open(store, TaskNo(1), 0, parts).expect("a new state")
}

fn fill(rows: &mut Rows, events: &mut Vec<Event>, coming: &[Coming]) {
    rows.clear(2 * FIELDS);
    events.clear();
    for (place, one) in coming.iter().enumerate() {
        let text = format!("ord-{:016x}EURshipped to the door 17.25{:012}", one.number, one.number);
        let whole = rows.append(FieldKind::Text, text.as_bytes()).span();
        let part = |from: u32, len: u32| {
            let span = weir::types::Span { start: whole.start + from, len };
            Field::text(FieldKind::Text, span)
        };
        rows.fields.extend([part(0, 20), Field::int(one.number as i64), part(20, 3), part(23, 20), part(43, 15)]);
        rows.fields.resize(rows.fields.len() + FIELDS, Field::ABSENT);
        rows.meta.push(RowMeta { time_ms: one.time_ms, offset: place as i64, ..RowMeta::default() });
        events.push(Event {
            row: place as u32,
            side: one.side,
            deletes: false,
            is_replayed: false,
            place: place as u32,
        });
    }
}

fn cpu() -> Duration {
    // SAFETY: getrusage fills the struct that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Rows that come again and again, each time as later ones.
struct Round {
    rows: Vec<Coming>,
    /// What it takes in event time.
    ms: i64,
    /// Each time under keys of its own.
    has_new_keys: bool,
}

impl Round {
    /// Each order has its payment within five seconds, arrival as the times say.
    fn of_pairs(rows: u64, ms: i64) -> Round {
        let pair = |number: u64| {
            let time_ms = (number as i64 * ms) / rows as i64;
            let skew_ms = (mixed(number) % 5_000) as i64;
            let number = mixed(number);
            let right = Coming { side: Side::Right, number, time_ms: time_ms + skew_ms };
            [Coming { side: Side::Left, number, time_ms }, right]
        };
        let mut rows: Vec<Coming> = (0..rows).flat_map(pair).collect();
        rows.sort_by_key(|one| (one.time_ms, one.side));
        Round { rows, ms, has_new_keys: true }
    }

    /// Visits of the users of a table, one a millisecond.
    fn of_visits(users: u64, visits: u64) -> Round {
        let visit = |at: u64| Coming { side: Side::Left, number: mixed(mixed(at) % users), time_ms: 1 + at as i64 };
        Round { rows: (0..visits).map(visit).collect(), ms: visits as i64, has_new_keys: false }
    }

    fn row(&self, at: u64) -> Coming {
        let (round, place) = (at / self.rows.len() as u64, at % self.rows.len() as u64);
        let one = self.rows[place as usize];
        let number = if self.has_new_keys { mixed(one.number.wrapping_add(round)) } else { one.number };
        Coming { number, time_ms: one.time_ms + round as i64 * self.ms, ..one }
    }
}

struct Stream {
    store: RocksStore,
    join: Join,
    round: Round,
    /// How many of its rows came so far, and how many rows in all.
    taken: u64,
    came: u64,
    passes: usize,
    sent: u64,
    watermark_ms: i64,
    rows: Rows,
    events: Vec<Event>,
    out: Output,
    after_ms: Vec<i64>,
    _directory: tempfile::TempDir,
}

impl Stream {
    fn new(kind: Kind, round: Round) -> Stream {
        let directory = tempfile::tempdir().expect("a directory for the bench");
        let store = RocksStore::open(directory.path(), &Shared::new(256 << 20, 256 << 20)).expect("a new store");
        Stream {
            join: join(&store, kind),
            store,
            round,
            taken: 0,
            came: 0,
            passes: 0,
            sent: 0,
            watermark_ms: i64::MIN,
            rows: Rows::default(),
            events: Vec::new(),
            out: Output::default(),
            after_ms: Vec::new(),
            _directory: directory,
        }
    }

    /// The next rows of the round, until an epoch is written; what that took.
    fn epoch(&mut self) -> Took {
        let mut took = Took::default();
        for _ in 0..PASSES_PER_EPOCH {
            let coming: Vec<Coming> = (self.taken..).take(PASS_ROWS).map(|at| self.round.row(at)).collect();
            self.taken += PASS_ROWS as u64;
            took += self.pass(&coming);
        }
        took
    }

    /// One pass, and every sixteenth time the write of an epoch.
    fn pass(&mut self, coming: &[Coming]) -> Took {
        fill(&mut self.rows, &mut self.events, coming);
        let start_ms = self.watermark_ms;
        self.after_ms.clear();
        self.after_ms.extend(coming.iter().map(|one| {
            self.watermark_ms = self.watermark_ms.max(one.time_ms - 5_000);
            self.watermark_ms
        }));
        let (began, cpu_began) = (Instant::now(), cpu());
        let clock = Clock { start_ms, after_ms: &self.after_ms };
        let mut batch = Batch::new(clock, &self.events, 0, coming.len() as u32);
        while !self.join.apply(&self.store, &mut batch, &mut self.rows, &mut self.out).expect("it can be read") {}
        self.sent += self.out.rows.len() as u64;
        self.out.clear();
        self.came += coming.len() as u64;
        self.passes += 1;
        if self.passes.is_multiple_of(PASSES_PER_EPOCH) {
            let mut batch = WriteBatch::default();
            self.join.seal(&mut batch);
            self.store.write(&batch).expect("there is space");
            self.join.stored();
        }
        Took { wall: began.elapsed(), cpu: cpu() - cpu_began }
    }

    fn report(&self, name: &str, took: Took) {
        println!(
            "{name}: {:.2} us a row on all threads, {:.1} s, {} rows out, {} MiB resident, {} MiB on disk",
            took.cpu.as_secs_f64() * 1e6 / self.came as f64,
            took.wall.as_secs_f64(),
            self.sent,
            resident_mib(),
            self.store.disk_bytes() >> 20,
        );
    }
}

/// Without the making of the rows.
#[derive(Clone, Copy, Default)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

impl std::ops::AddAssign for Took {
    fn add_assign(&mut self, more: Took) {
        self.wall += more.wall;
        self.cpu += more.cpu;
    }
}

fn joins(criterion: &mut Criterion) {
    let rows = std::env::var("WEIR_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000u64);
    let mut group = criterion.benchmark_group("join");
    group.sample_size(10).throughput(Throughput::Elements((PASS_ROWS * PASSES_PER_EPOCH) as u64));
    let mut measure = |name: &str, kind: Kind, table: &[Coming], round: Round| {
        let mut stream = Stream::new(kind, round);
        let mut took = Took::default();
        table.chunks(PASS_ROWS).for_each(|coming| took += stream.pass(coming));
        while stream.taken < stream.round.rows.len() as u64 {
            took += stream.epoch();
        }
        stream.report(name, took);
        group.bench_function(name, |bench| {
            bench.iter_custom(|epochs| (0..epochs).map(|_| stream.epoch().wall).sum());
        });
    };
    let window = Kind::Interval { before_ms: 0, after_ms: 600_000 };
    measure("interval, a tenth of the rows in the window", window, &[], Round::of_pairs(rows, 6_000_000));
    measure("interval, all rows in the window", window, &[], Round::of_pairs(rows, 600_000));
    let user = |number| Coming { side: Side::Right, number: mixed(number), time_ms: 0 };
    let users: Vec<Coming> = (0..rows).map(user).collect();
    let table = Kind::Table { within_ms: 300_000, exact: false };
    measure("temporal, a table", table, &users, Round::of_visits(rows, 2 * rows));
    group.finish();
}

criterion_group!(benches, joins);
criterion_main!(benches);
