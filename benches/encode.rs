//! What it costs to turn rows into a ClickHouse block: by type, and a whole row of ten columns with its compression.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir::codec::rows::{Field, Kind, RowMeta, Rows, Slot};
use weir::config::plan::BlockCompression;
use weir::sink::BlockBuilder;
use weir::sink::clickhouse::encode::column::ColumnRule;
use weir::sink::clickhouse::encode::{Binding, Filler, NativeBuilder};
use weir::sink::clickhouse::types::Type;

const ROWS: u32 = 50_000;

fn binding(name: &str, type_text: &str, slot: u16) -> Binding {
    Binding {
        name: name.to_owned(),
        type_text: type_text.to_owned(),
        of: Type::parse(type_text).expect("a type"),
        path: name.to_owned(),
        slot: Slot(slot),
        nested: None,
        rule: ColumnRule { unit: None, zone: None, server_zone: "UTC".to_owned() },
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
        "Bool" => Field::bool(random % 2 == 0),
        "Array(UInt32)" => {
            rows.append(Kind::Array, format!("[{}, {}, {}]", random % 7, random % 77, random % 777).as_bytes())
        }
        "Map(String, String)" => rows.append(Kind::Object, br#"{"source":"mail","campaign":"spring"}"#),
        _ => text(rows, format!("user-{} of the city {}", random % 100_000, random % 50)),
    }
}

fn rows_of(types: &[&str]) -> Rows {
    let mut rows = Rows::default();
    rows.clear(types.len());
    for row in 0..ROWS {
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

fn append(builder: &mut NativeBuilder, rows: &Rows, alive: &[u32]) {
    let mut bad = Vec::new();
    for batch in alive.chunks(2_000) {
        builder.append(rows, batch, &mut bad);
    }
    assert!(bad.is_empty(), "{bad:?}");
}

fn by_type(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    let alive: Vec<u32> = (0..ROWS).collect();
    for of in [
        "UInt64",
        "Int32",
        "Decimal(18, 2)",
        "Float64",
        "UUID",
        "DateTime64(3)",
        "String",
        "LowCardinality(String)",
        "Bool",
        "Array(UInt32)",
        "Map(String, String)",
    ] {
        let rows = rows_of(&[of]);
        let mut builder = builder(&[of], BlockCompression::None);
        let empty = builder.mark();
        group.bench_function(of, |bencher| {
            bencher.iter(|| {
                append(&mut builder, &rows, &alive);
                builder.rollback(empty);
            });
        });
    }
    group.finish();
}

fn whole_rows(criterion: &mut Criterion) {
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
    let mut group = criterion.benchmark_group("ten columns");
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    let alive: Vec<u32> = (0..ROWS).collect();
    let rows = rows_of(&TEN);
    let mut plain = builder(&TEN, BlockCompression::None);
    let empty = plain.mark();
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            append(&mut plain, &rows, &alive);
            plain.rollback(empty);
        });
    });
    for compression in [BlockCompression::None, BlockCompression::Lz4, BlockCompression::Zstd] {
        let mut builder = builder(&TEN, compression);
        append(&mut builder, &rows, &alive);
        let raw_bytes = builder.bytes();
        let body_bytes = builder.seal().expect("rows").body.len();
        println!("{compression:?}: {} raw bytes a row, {} sent", raw_bytes / ROWS as usize, body_bytes / ROWS as usize);
        group.bench_function(format!("append and seal, {compression:?}"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    append(&mut builder, &rows, &alive);
                    builder.seal()
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(300));
    targets = by_type, whole_rows
}
criterion_main!(benches);
