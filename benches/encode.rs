//! What it costs to turn rows into a ClickHouse block: by type, and a whole row of ten columns with its compression.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use weir::codec::rows::{Field, Kind, RowMeta, Rows, Slot};
use weir::config::plan::BlockCompression;
use weir::sink::BlockBuilder;
use weir::sink::clickhouse::encode::column::ColumnRule;
use weir::sink::clickhouse::encode::{Binding, Filler, NativeBuilder};
use weir::sink::clickhouse::types::Type;

const ROWS: u32 = 50_000;
/// Rows come in batches of about this size, fresh from decoding.
const BATCH_ROWS: u32 = 2_000;

/// Time that this thread has computed: what else the machine does must not count.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid timespec for the call to fill.
        let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
        assert_eq!(code, 0, "the thread's clock is readable");
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn binding(name: &str, type_text: &str, slot: u16) -> Binding {
    Binding {
        name: name.to_owned(),
        type_text: type_text.to_owned(),
        of: Type::parse(type_text).expect("a type"),
        path: name.to_owned(),
        slot: Slot(slot),
        nested: None,
        rule: ColumnRule { unit: None, zone: None, server_zone: "UTC".to_owned(), takes_nan: false },
        default_by_server: false,
        absent: Filler::Default,
        null: Filler::Default,
    }
}

/// Some numbers that do not repeat.
fn mixed(row: u32, salt: u64) -> u64 {
    (u64::from(row) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(row) << 7)
}

fn number(rows: &mut Rows, text: String) -> Field {
    rows.append(Kind::Number, text.as_bytes())
}

fn text(rows: &mut Rows, text: String) -> Field {
    rows.append(Kind::Text, text.as_bytes())
}

fn field(rows: &mut Rows, type_text: &str, row: u32) -> Field {
    let random = mixed(row, type_text.len() as u64);
    match type_text {
        "UInt64" => number(rows, (random >> 20).to_string()),
        "Int32" => number(rows, (random as i32 / 100).to_string()),
        "Decimal(18, 2)" => number(rows, format!("{}.{:02}", random % 100_000, random % 97)),
        "Float64" => number(rows, format!("{}.{}", random % 1000, random % 10_000)),
        "UUID" => {
            let uuid = format!("{:016x}{:016x}", random, mixed(row, 99));
            text(rows, format!("{}-{}-{}-{}-{}", &uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]))
        }
        "DateTime64(3)" => text(
            rows,
            format!(
                "2024-05-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                1 + row / 86_400 % 28,
                row / 3600 % 24,
                row / 60 % 60,
                row % 60,
                random % 1000
            ),
        ),
        "LowCardinality(String)" => text(rows, ["click", "view", "purchase", "refund"][random as usize % 4].to_owned()),
        "Bool" => Field::bool(random.is_multiple_of(2)),
        "Array(UInt32)" => {
            rows.append(Kind::Array, format!("[{}, {}, {}]", random % 7, random % 77, random % 777).as_bytes())
        }
        "Map(String, String)" => rows.append(Kind::Object, br#"{"source":"mail","campaign":"spring"}"#),
        _ => text(rows, format!("user-{} of the city {}", random % 100_000, random % 50)),
    }
}

fn rows_of(types: &[&str], count: u32) -> Rows {
    let mut rows = Rows::default();
    rows.clear(types.len());
    for row in 0..count {
        for of in types {
            let field = field(&mut rows, of, row);
            rows.fields.push(field);
        }
        rows.meta.push(RowMeta::default());
    }
    rows
}

fn builder(types: &[&str], compression: BlockCompression) -> NativeBuilder {
    let bindings = types.iter().enumerate().map(|(at, of)| binding(&format!("c{at}"), of, at as u16));
    NativeBuilder::new("t", bindings.collect(), compression).expect("a builder")
}

fn append(builder: &mut NativeBuilder, rows: &Rows) {
    let alive: Vec<u32> = (0..rows.len() as u32).collect();
    let mut bad = Vec::new();
    for batch in alive.chunks(BATCH_ROWS as usize) {
        builder.append(rows, batch, &mut bad);
    }
    assert!(bad.is_empty(), "{bad:?}");
}

fn by_type(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(u64::from(BATCH_ROWS)));
    let ten = "ten columns";
    for of in [&TEN[..3], &TEN[5..], &["Bool", "Array(UInt32)", "Map(String, String)", ten]].concat() {
        let types = if of == ten { &TEN[..] } else { std::slice::from_ref(&of) };
        let rows = rows_of(types, BATCH_ROWS);
        let mut builder = builder(types, BlockCompression::None);
        let empty = builder.mark();
        group.bench_function(of, |bencher| {
            bencher.iter(|| {
                append(&mut builder, &rows);
                builder.rollback(empty);
            });
        });
    }
    group.finish();
}

fn seal(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("seal ten columns");
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    let rows = rows_of(&TEN, ROWS);
    for compression in [BlockCompression::None, BlockCompression::Lz4, BlockCompression::Zstd] {
        let mut builder = builder(&TEN, compression);
        append(&mut builder, &rows);
        let raw_bytes = builder.bytes();
        let body_bytes = builder.seal().expect("rows").body.len();
        println!("{compression:?}: {} raw bytes a row, {} sent", raw_bytes / ROWS as usize, body_bytes / ROWS as usize);
        group.bench_function(format!("{compression:?}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let rounds = (0..rounds).map(|_| {
                    append(&mut builder, &rows);
                    let start = CpuTime.start();
                    std::hint::black_box(builder.seal());
                    CpuTime.end(start)
                });
                rounds.sum()
            });
        });
    }
    group.finish();
}

const TEN: [&str; 10] = [
    "UInt64",
    "Int32",
    "UUID",
    "String",
    "String",
    "String",
    "DateTime64(3)",
    "Decimal(18, 2)",
    "Float64",
    "LowCardinality(String)",
];

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    targets = by_type, seal
}
criterion_main!(benches);
