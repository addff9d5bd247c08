//! Filters on decoded rows: simple conditions and richer ones, and a select.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use weir::codec::decode::{Decoded, Decoder, TimeSpec};
use weir::codec::record::RecordBatch;
use weir::codec::rows::Rows;
use weir::codec::scope::Scope;
use weir::step::filter::Filter;
use weir::step::select::Select;

const ROWS: usize = 1000;

fn rows(scope: Scope) -> Rows {
    let mut batch = RecordBatch::default();
    for i in 0..ROWS {
        let payload = format!(r#"{{"id":{i},"amount":{}.5,"type":"page_view","ts":"2024-05-01T12:00:00Z"}}"#, i % 100);
        batch.push(i as i64, 0, None, Some(payload.as_bytes()), []);
    }
    let time = TimeSpec { field: None, max_future_ms: 0 };
    let mut decoder = Decoder::new(scope.finish(), time, false, 1 << 20, "t".into(), 0, 0);
    let mut rows = Rows::default();
    decoder.decode(&mut batch, 0, &mut rows, &mut Decoded::default());
    rows
}

fn filters(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(ROWS as u64));
    for text in [
        "amount > 10.0",
        "type == 'page_view' && amount > 10.0",
        "type in ['click', 'page_view']",
        "timestamp(ts) > timestamp('2024-01-01T00:00:00Z') && type.matches('^page')",
    ] {
        let mut scope = Scope::new();
        let mut filter = Filter::compile(text, &mut scope).expect("a good filter");
        let mut rows = rows(scope);
        let mut alive = Vec::new();
        group.bench_function(text, |bencher| {
            bencher.iter(|| {
                alive.clear();
                alive.extend(0..ROWS as u32);
                let mut bad = Vec::new();
                black_box(filter.apply(&mut rows, &mut alive, &mut bad));
            });
        });
    }
    group.finish();
}

fn selects(c: &mut Criterion) {
    let mut group = c.benchmark_group("select");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut scope = Scope::new();
    let fields = [("id", "id"), ("kind", "type"), ("net", "amount * 0.81")];
    let mut select = Select::compile(fields, &mut scope).expect("a good select");
    let mut rows = rows(scope);
    let bytes = rows.bytes.len();
    let mut alive = Vec::new();
    group.bench_function("two paths and a product", |bencher| {
        bencher.iter(|| {
            rows.bytes.truncate(bytes);
            alive.clear();
            alive.extend(0..ROWS as u32);
            let mut bad = Vec::new();
            select.apply(&mut rows, &mut alive, &mut bad);
            black_box(&alive);
        });
    });
    group.finish();
}

criterion_group!(benches, filters, selects);
criterion_main!(benches);
