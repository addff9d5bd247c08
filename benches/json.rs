//! Extraction: events of 320 bytes with ten flat fields, of which eight are planned.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use weir::codec::extract::Extractor;
use weir::codec::record::RecordBatch;
use weir::codec::rows::{Field, Slot};
use weir::codec::scope::PayloadPath;

const EVENTS: usize = 1000;

fn event(i: usize) -> String {
    format!(
        "{{\"event_id\":\"{:032x}\",\"session_id\":\"s-{:012}\",\"user_id\":{},\"type\":\"page_view\",\
         \"amount\":{}.{:02},\"currency\":\"EUR\",\"ts\":\"2024-05-{:02}T12:34:56.{:03}Z\",\
         \"url\":\"https://shop.example/products/{}/details?campaign=spring\",\"active\":true,\
         \"agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"}}",
        i * 7919,
        i,
        1_000_000 + i,
        i % 1000,
        i % 100,
        i % 28 + 1,
        i % 1000,
        i
    )
}

fn paths(names: &[&str]) -> Vec<PayloadPath> {
    let path = |(slot, name): (usize, &&str)| PayloadPath { parts: vec![name.to_string()], slot: Slot(slot as u16) };
    names.iter().enumerate().map(path).collect()
}

fn extraction(c: &mut Criterion) {
    let mut batch = RecordBatch::default();
    for i in 0..EVENTS {
        batch.push(i as i64, 0, None, Some(event(i).as_bytes()), []);
    }
    println!("{} bytes an event", batch.bytes.len() / EVENTS);
    let eight = ["event_id", "session_id", "user_id", "type", "amount", "currency", "ts", "url"];
    let mut group = c.benchmark_group("extract");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, names) in [("8 of 10 fields", &eight[..]), ("1 of 10 fields", &eight[1..2])] {
        let mut extractor = Extractor::new(&paths(names));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for record in &batch.records {
                    let mut fields = [Field::ABSENT; 8];
                    let value = record.value.expect("no tombstones here");
                    extractor.extract(&batch.bytes, value, &mut fields).expect("valid events");
                    black_box(&fields);
                }
            });
        });
    }
    group.bench_function("serde_json::Value", |bencher| {
        bencher.iter(|| {
            for record in &batch.records {
                let value = batch.slice(record.value.expect("no tombstones here"));
                black_box(serde_json::from_slice::<serde_json::Value>(value).expect("valid events"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, extraction);
criterion_main!(benches);
