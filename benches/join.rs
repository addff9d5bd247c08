//! The join step alone, against RocksDB: passes of 4,096 rows of two sides, one epoch of 65,536 rows per synced write.
//! Rows come decoded; what comes out is thrown away.
//!
//! `cargo bench --bench join`; `WEIR_BENCH_ROWS` sets the rows of each side (1,000,000). Prints CPU time per row of
//! all threads, memory and disk, for an interval join whose window holds a tenth of the rows, and all of them, and
//! for a temporal join with a table.

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

fn run(name: &str, kind: Kind, coming: &[Coming]) {
    let directory = tempfile::tempdir().expect("a directory for the bench");
    let store = RocksStore::open(directory.path(), &Shared::new(256 << 20, 256 << 20)).expect("a new store");
    let mut join = join(&store, kind);
    let (mut rows, mut events, mut out) = (Rows::default(), Vec::new(), Output::default());
    let (mut watermark_ms, mut sent, mut filling) = (i64::MIN, 0, Duration::ZERO);
    let (began, cpu_began) = (Instant::now(), cpu());
    let mut after_ms = Vec::new();
    for (pass, stretch) in coming.chunks(PASS_ROWS).enumerate() {
        let before = cpu();
        fill(&mut rows, &mut events, stretch);
        filling += cpu() - before;
        let start_ms = watermark_ms;
        after_ms.clear();
        after_ms.extend(stretch.iter().map(|one| {
            watermark_ms = watermark_ms.max(one.time_ms - 5_000);
            watermark_ms
        }));
        let clock = Clock { start_ms, after_ms: &after_ms };
        let mut batch = Batch::new(clock, &events, 0, stretch.len() as u32);
        while !join.apply(&store, &mut batch, &mut rows, &mut out).expect("it can be read") {}
        sent += out.rows.len();
        out.clear();
        if pass % PASSES_PER_EPOCH == PASSES_PER_EPOCH - 1 {
            let mut batch = WriteBatch::default();
            join.seal(&mut batch);
            store.write(&batch).expect("there is space");
            join.stored();
        }
    }
    let us = (cpu() - cpu_began - filling).as_secs_f64() * 1e6 / coming.len() as f64;
    println!(
        "{name}: {us:.2} us a row on all threads, {:.1} s, {sent} rows out, {} MiB resident, {} MiB on disk",
        began.elapsed().as_secs_f64(),
        resident_mib(),
        store.disk_bytes() >> 20,
    );
}

fn main() {
    let rows = std::env::var("WEIR_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000u64);
    // Each order has its payment within five seconds, arrival as the times say.
    let pairs = |span_ms: i64| {
        let mut coming: Vec<Coming> = (0..rows)
            .flat_map(|number| {
                let time_ms = (number as i64 * span_ms) / rows as i64;
                let skew_ms = (mixed(number) % 5_000) as i64;
                let number = mixed(number);
                [
                    Coming { side: Side::Left, number, time_ms },
                    Coming { side: Side::Right, number, time_ms: time_ms + skew_ms },
                ]
            })
            .collect();
        coming.sort_by_key(|one| (one.time_ms, one.side));
        coming
    };
    let window = Kind::Interval { before_ms: 0, after_ms: 600_000 };
    run("interval, a tenth of the rows in the window", window, &pairs(6_000_000));
    run("interval, all rows in the window", window, &pairs(600_000));

    let mut coming: Vec<Coming> =
        (0..rows).map(|number| Coming { side: Side::Right, number: mixed(number), time_ms: 0 }).collect();
    coming.extend((0..2 * rows).map(|at| Coming {
        side: Side::Left,
        number: mixed(mixed(at) % rows),
        time_ms: 1 + at as i64,
    }));
    run("temporal, a table", Kind::Table { within_ms: 300_000, exact: false }, &coming);
}
