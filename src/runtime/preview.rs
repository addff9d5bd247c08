//! Sampled records as they would reach the table: filtered, selected, written as JSON again.
//!
//! Owns nothing. Promises: the steps are the pipeline's own; a record that would become a dead letter is passed
//! over; dedup is left out, for it changes no field.

use crate::codec::decode::Decoded;
use crate::codec::record::RecordBatch;
use crate::codec::rows::{Field, Kind, Rows, Slot};
use crate::config::plan::PipelinePlan;
use crate::runtime::chain::Step;
use crate::runtime::compile::{no_time, offline};
use crate::source::kafka::Sample;
use crate::types::TaskNo;

/// One JSON object for each record that passes. Without a select these are the records themselves.
pub fn at_the_sink(plan: &PipelinePlan, topic: usize, sample: &Sample) -> Vec<Vec<u8>> {
    let (mut compiler, time, mut steps) = offline(plan).compile(TaskNo(0));
    let names: Option<Vec<String>> = compiler.scope.names().map(|names| names.into_iter().map(str::to_owned).collect());
    let Some(names) = names.filter(|_| compiler.findings.is_empty()) else {
        return sample.values().into_iter().map(<[u8]>::to_vec).collect();
    };
    let slots: Vec<Slot> =
        names.iter().map(|name| compiler.scope.resolve(name).expect("the scope has its own names")).collect();
    let layout = compiler.scope.finish();
    let mut decoder =
        offline(plan).decoders(&plan.source, &layout, &time.unwrap_or_else(no_time), 0).swap_remove(topic);
    let mut batch = RecordBatch::default();
    for record in &sample.records {
        batch.push(record.offset, record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), []);
    }
    let (mut rows, mut decoded, mut bad) = (Rows::default(), Decoded::default(), Vec::new());
    // No record of a sample is one of the future.
    decoder.decode(&mut batch, i64::MAX, &mut rows, &mut decoded);
    let mut alive: Vec<u32> = (0..rows.len() as u32).collect();
    for step in &mut steps {
        match step {
            Step::Filter(filter) => drop(filter.apply(&mut rows, &mut alive, &mut bad)),
            Step::Select(select) => drop(select.apply(&mut rows, &mut alive, &mut bad)),
            Step::Dedup(_) => {}
        }
    }
    alive.iter().map(|&row| object(&names, &slots, &rows, row)).collect()
}

fn object(names: &[String], slots: &[Slot], rows: &Rows, row: u32) -> Vec<u8> {
    let mut text = vec![b'{'];
    for (name, slot) in names.iter().zip(slots) {
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
        text.push(b':');
        write(rows.field(row, *slot), rows, &mut text);
    }
    text.push(b'}');
    text
}

fn write(field: Field, rows: &Rows, text: &mut Vec<u8>) {
    match field.kind {
        Kind::Absent | Kind::Null => text.extend_from_slice(b"null"),
        Kind::False => text.extend_from_slice(b"false"),
        Kind::True => text.extend_from_slice(b"true"),
        Kind::Int => text.extend_from_slice(field.as_int().to_string().as_bytes()),
        Kind::Number | Kind::Array | Kind::Object => text.extend_from_slice(rows.text(field)),
        Kind::Text | Kind::Escaped => {
            text.push(b'"');
            text.extend_from_slice(rows.text(field));
            text.push(b'"');
        }
        // A key or header that is no text: a String column takes it.
        Kind::Bytes => text.extend_from_slice(b"\"\""),
    }
}
