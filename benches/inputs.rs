//! From fetched records to a pass: one input, which is not merged, and the same records as those of two sides of a join.
//! The difference is what the merge costs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use weir::codec::decode::{Decoder, TimeSpec};
use weir::codec::record::{Record, RecordBatch};
use weir::codec::scope::Scope;
use weir::error::Result;
use weir::runtime::inputs::{Feeds, Found, InputSide, Pass, PassLimit, TaskInput, TaskInputs};
use weir::source::{FetchLimit, Fetched, Input};
use weir::state::ledger::{Cuts, Moment, Progress};
use weir::types::{Epoch, Link};

const RECORDS: usize = 4096;
const FIELDS: [&str; 6] = ["order", "customer", "amount", "currency", "status", "note"];

/// A log without an end: the same records again and again, a millisecond apart.
struct Endless {
    batch: RecordBatch,
    next: i64,
}

impl Endless {
    fn new() -> Endless {
        let mut batch = RecordBatch::default();
        for i in 0..RECORDS {
            let payload = format!(
                r#"{{"order":"order-{i:012}","customer":{},"amount":{}.25,"currency":"EUR","status":"paid","note":"{}","lines":[{{"sku":"a-1","count":2}},{{"sku":"b-2","count":1}}],"channel":"web","ip":"192.0.2.7"}}"#,
                i % 977,
                i % 89,
                "x".repeat(40)
            );
            batch.push(0, 0, None, Some(payload.as_bytes()), []);
        }
        Endless { batch, next: 0 }
    }
}

impl Input for Endless {
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        assert!(limit.records >= RECORDS && batch.records.is_empty());
        batch.bytes.extend_from_slice(&self.batch.bytes);
        let numbered = self.batch.records.iter().zip(self.next..);
        let record = |(record, offset): (&Record, i64)| Record { offset, timestamp_ms: offset, ..*record };
        batch.records.extend(numbered.map(record));
        self.next += RECORDS as i64;
        Ok(Fetched { records: RECORDS, offset_next: self.next, at_end: false })
    }

    fn end(&self) -> i64 {
        i64::MAX
    }
}

fn inputs(sides: &[Feeds]) -> TaskInputs {
    let input = |(number, feeds): (usize, &Feeds)| {
        let mut scope = Scope::new();
        FIELDS.iter().for_each(|field| drop(scope.resolve(field)));
        let time = TimeSpec { field: None, max_future_ms: 0 };
        let decoder = Decoder::new(scope.finish(), time, false, 1 << 20, "t".into(), 0, number as u16);
        let side = InputSide { decoder, feeds: *feeds, lateness_ms: 0, max_skew_ms: Some(600_000) };
        TaskInput::new(Box::new(Endless::new()), vec![side])
    };
    let inputs: Vec<TaskInput> = sides.iter().enumerate().map(input).collect();
    let moment = Moment {
        epoch: Epoch(0),
        link: Link::default(),
        inputs: vec![Progress { position: 0, high_ms: i64::MIN }; sides.len()],
        watermark_ms: i64::MIN,
        idle: 0,
        note_ms: i64::MAX,
        closed: None,
        replayed: None,
    };
    TaskInputs::new(inputs, &moment, i64::MAX)
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("passes");
    for (name, sides) in
        [("one input", &[Feeds::Left][..]), ("two sides", &[Feeds::Left, Feeds::Right { join: 0 }][..])]
    {
        group.throughput(Throughput::Elements((RECORDS * sides.len()) as u64));
        let mut inputs = inputs(sides);
        let (mut pass, mut cuts) = (Pass::default(), Cuts::default());
        let limit = PassLimit { records: usize::MAX, bytes: usize::MAX, offset_ends: None };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut records = 0;
                // A pass ends when one of two runs dry: nearly all of what both have brought is taken in two.
                while records < (RECORDS * sides.len()) as u64 {
                    cuts.0.clear();
                    assert_eq!(inputs.next_pass(&mut pass, limit, 0, &mut cuts).expect("it reads"), Found::Pass);
                    records += pass.records;
                }
                black_box(pass.rows.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, passes);
criterion_main!(benches);
