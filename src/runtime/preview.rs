//! Sampled records as they would reach the table: filtered, joined, selected, written as JSON again.
//!
//! Owns nothing. Promises: the steps are the pipeline's own; a record that would become a dead letter is passed
//! over; dedup is left out, for it changes no field. A join puts any right row beside a left one: what is asked for are
//! names and types, and a sample seldom has both rows of a key.

use crate::codec::decode::{Decoded, Decoder};
use crate::codec::object::write_object;
use crate::codec::record::RecordBatch;
use crate::codec::rows::{Field, Kind, Rows, Slot};
use crate::config::plan::PipelinePlan;
use crate::runtime::chain::Step;
use crate::runtime::compile::{JoinPart, joins_of, no_time, offline};
use crate::source::kafka::Sample;
use crate::types::TaskNo;

/// One JSON object for each record of the source that passes; a sample for each of the plan's topics. Without a select
/// these are the records themselves, with the joined objects.
pub fn at_the_sink(plan: &PipelinePlan, samples: &[Sample]) -> Vec<Vec<u8>> {
    let blueprint = offline(plan);
    let (mut compiler, time, steps) = blueprint.compile(TaskNo(0));
    let of_source = || plan.source.inputs.iter().map(|input| &samples[*input]);
    if !compiler.findings.is_empty() {
        return of_source().flat_map(Sample::values).map(<[u8]>::to_vec).collect();
    }
    let selected: Option<Vec<String>> =
        compiler.scope.names().map(|names| names.into_iter().map(str::to_owned).collect());
    let is_whole = selected.is_none();
    let names: Vec<String> = selected.into_iter().flatten().chain(compiler.scope.object_names()).collect();
    let slot = |name: &String| compiler.scope.resolve(name).expect("the scope has its own names");
    let slots: Vec<Slot> = names.iter().map(slot).collect();
    let fields = names.into_iter().zip(slots).collect();
    let (joins, layout) = blueprint.join_parts(compiler, 0);
    let decoders = blueprint.decoders(&plan.source, &layout, &time.unwrap_or_else(no_time), 0);
    let mut pipe = Pipe { plan, samples, steps, joins, fields, is_whole };
    decoders.into_iter().zip(of_source()).flat_map(|(decoder, sample)| pipe.take(decoder, sample)).collect()
}

/// What the rows of a sample go through.
struct Pipe<'a> {
    plan: &'a PipelinePlan,
    samples: &'a [Sample],
    steps: Vec<Step>,
    joins: Vec<JoinPart>,
    /// What a row at the sink has beside the record itself.
    fields: Vec<(String, Slot)>,
    /// No select has left the record behind.
    is_whole: bool,
}

impl Pipe<'_> {
    fn take(&mut self, mut decoder: Decoder, sample: &Sample) -> Vec<Vec<u8>> {
        let (mut rows, mut alive) = decode(&mut decoder, sample);
        let mut at = 0;
        for (join, plan) in self.joins.iter_mut().zip(joins_of(self.plan)) {
            apply(&mut self.steps[at..join.steps_before], &mut rows, &mut alive);
            at = join.steps_before;
            let decoders = plan.with.inputs.iter().zip(&mut join.decoders);
            let rights = decoders.map(|(input, decoder)| {
                let (mut rows, mut alive) = decode(decoder, &self.samples[*input]);
                apply(&mut join.steps, &mut rows, &mut alive);
                (rows, alive)
            });
            let rights: Vec<(Rows, Vec<u32>)> = rights.filter(|(_, alive)| !alive.is_empty()).collect();
            for (place, &left) in alive.iter().enumerate() {
                let Some((right_rows, right_alive)) = rights.get(place % rights.len().max(1)) else { break };
                beside(join, &mut rows, left, right_rows, right_alive[place % right_alive.len()]);
            }
        }
        apply(&mut self.steps[at..], &mut rows, &mut alive);
        let values: Vec<&[u8]> = sample.values();
        let text = |row: u32| {
            let mut object = Vec::new();
            write_object(&rows, row, &self.fields, &mut object);
            match self.is_whole {
                true => with_fields(values[rows.meta[row as usize].record as usize], &object),
                false => object,
            }
        };
        alive.iter().map(|&row| text(row)).collect()
    }
}

fn decode(decoder: &mut Decoder, sample: &Sample) -> (Rows, Vec<u32>) {
    let mut batch = RecordBatch::default();
    for record in sample.records.iter().filter(|record| record.value.is_some()) {
        batch.push(record.offset, record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), []);
    }
    let (mut rows, mut decoded) = (Rows::default(), Decoded::default());
    // No record of a sample is one of the future.
    decoder.decode(&mut batch, i64::MAX, &mut rows, &mut decoded);
    let alive = (0..rows.len() as u32).collect();
    (rows, alive)
}

fn apply(steps: &mut [Step], rows: &mut Rows, alive: &mut Vec<u32>) {
    let mut bad = Vec::new();
    for step in steps {
        match step {
            Step::Filter(filter) => drop(filter.apply(rows, alive, &mut bad)),
            Step::Select(select) => select.apply(rows, alive, &mut bad),
            Step::Dedup(_) => {}
        }
    }
}

/// Fills the fields of the object that a join adds.
fn beside(join: &JoinPart, rows: &mut Rows, left: u32, right_rows: &Rows, right: u32) {
    for (place, into) in &join.assembly.joined {
        let of_right = join.assembly.right.slots[*place];
        let field = match &join.object {
            Some((slot, fields)) if *slot == of_right => {
                let mut object = Vec::new();
                write_object(right_rows, right, fields, &mut object);
                rows.append(Kind::Object, &object)
            }
            _ => copied(right_rows, right_rows.field(right, of_right), rows),
        };
        rows.set(left, *into, field);
    }
}

fn copied(from: &Rows, field: Field, rows: &mut Rows) -> Field {
    match field.kind {
        Kind::Absent | Kind::Null | Kind::False | Kind::True | Kind::Int => field,
        kind => rows.append(kind, from.text(field)),
    }
}

/// A record with these members added.
fn with_fields(record: &[u8], members: &[u8]) -> Vec<u8> {
    let record = record.trim_ascii();
    let Some(open) = record.strip_suffix(b"}").filter(|_| members.len() > 2) else { return record.to_vec() };
    let comma: &[u8] = if open.trim_ascii().len() > 1 { b"," } else { b"" };
    [open, comma, &members[1..]].concat()
}
