//! Whether the topics of a join lie as the join needs them, by the evidence of sampled records.
//!
//! Owns the judgement: rows of one key meet only if both topics put that key into the same partition. Promises: says
//! nothing where too little was seen, and never refuses; counts of partitions are checked elsewhere, exactly.

use crate::config::plan::{JoinPlan, KeyPlan, PipelinePlan, StepPlan, TopicPlan};
use crate::error::Result;
use crate::runtime::compile::joins_of;
use crate::source::kafka::{self, Partitioner, Sample};
use serde_json::Value;

/// What is wrong with a join's topics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// The join's number among the joins of the pipeline.
    pub join: usize,
    /// A stable name.
    pub code: &'static str,
    pub message: String,
    pub help: String,
}

/// The records of so many of each partition are looked at.
const RECORDS_A_PARTITION: usize = 40;

/// So many of a hundred records must have another record key before it is said: one producer that differs is not all.
const OTHER_KEYS_PERCENT: usize = 5;

/// What a look at the topics shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Of each topic, where it can be told.
    pub partitioners: Vec<Option<Partitioner>>,
    pub doubts: Vec<Doubt>,
}

/// Looks at the newest records of a plan's topics; nothing to see where it has no joins.
///
/// # Errors
/// The brokers do not answer.
pub fn look(plan: &PipelinePlan, partitions: i32, by_broker: Option<i32>) -> Result<Seen> {
    if joins_of(plan).next().is_none() {
        return Ok(Seen::default());
    }
    let records = RECORDS_A_PARTITION * partitions.max(1) as usize;
    let sample = |topic: &TopicPlan| kafka::sample(&plan.kafka, &topic.name, by_broker, records);
    let samples: Vec<Sample> = plan.topics.iter().map(sample).collect::<Result<_>>()?;
    Ok(Seen { partitioners: partitioners(&samples), doubts: doubts(plan, &samples) })
}

/// The partitioner of each topic, where it can be told.
fn partitioners(samples: &[Sample]) -> Vec<Option<Partitioner>> {
    samples.iter().map(Partitioner::of).collect()
}

/// What speaks against the joins of a plan; one sample for each of its topics.
fn doubts(plan: &PipelinePlan, samples: &[Sample]) -> Vec<Doubt> {
    let partitioners = partitioners(samples);
    let mut doubts = Vec::new();
    for (number, join) in joins_of(plan).enumerate() {
        let lefts = plan.source.inputs.iter().map(|input| (*input, left_key(plan, number, join)));
        let rights = join.with.inputs.iter().map(|input| (*input, right_key(join)));
        let sides: Vec<(usize, Option<&KeyPlan>)> = lefts.chain(rights).collect();
        doubts.extend(hidden_field(plan, number, join, samples));
        doubts.extend(differently_placed(plan, number, &sides, &partitioners));
        doubts
            .extend(sides.iter().filter_map(|(topic, key)| other_key(plan, number, *topic, (*key)?, &samples[*topic])));
    }
    doubts
}

/// The object that a join adds wins over a field of the row that has its name.
fn hidden_field(plan: &PipelinePlan, number: usize, join: &JoinPlan, samples: &[Sample]) -> Option<Doubt> {
    if is_selected_before(plan, number) {
        return None;
    }
    let has_field = |value: &[u8]| {
        serde_json::from_slice::<Value>(value).is_ok_and(|value| value.get(join.name.as_str()).is_some())
    };
    let topic = *plan.source.inputs.iter().find(|input| samples[**input].values().into_iter().any(has_field))?;
    Some(Doubt {
        join: number,
        code: "object_hides_a_field",
        message: format!(
            "records of `{}` have a field `{}`, and the join calls its object so: the object wins, the field is not \
             seen behind the join",
            plan.topics[topic].name, join.name
        ),
        help: "give the object another name with `as`, if the field is wanted".to_owned(),
    })
}

/// Whether a select in front of a join decides which fields a row has.
fn is_selected_before(plan: &PipelinePlan, number: usize) -> bool {
    let mut joins = 0;
    let mut before = plan.steps.iter().take_while(|step| {
        joins += matches!(step, StepPlan::Join(_)) as usize;
        joins <= number
    });
    before.any(|step| matches!(step, StepPlan::Select(_)))
}

fn differently_placed(
    plan: &PipelinePlan,
    join: usize,
    sides: &[(usize, Option<&KeyPlan>)],
    partitioners: &[Option<Partitioner>],
) -> Option<Doubt> {
    let known: Vec<(usize, Partitioner)> =
        sides.iter().filter_map(|(topic, _)| Some((*topic, partitioners[*topic]?))).collect();
    let (first, by) = *known.first()?;
    let (other, by_other) = *known.iter().find(|(_, other)| *other != by)?;
    let (first, other) = (&plan.topics[first].name, &plan.topics[other].name);
    Some(Doubt {
        join,
        code: "partitioned_differently",
        message: format!(
            "the keys of `{first}` lie in their partitions by {}, those of `{other}` by {}: rows of one key are in \
             different partitions there and never meet",
            by.described(),
            by_other.described()
        ),
        help:
            "let both producers use the same partitioner (of librdkafka: `partitioner=murmur2_random`, as Java), and \
               write one of the topics anew"
                .to_owned(),
    })
}

/// The key as a record of the topic has it: a plain path that no earlier step has changed.
fn left_key<'p>(plan: &'p PipelinePlan, number: usize, join: &'p JoinPlan) -> Option<&'p KeyPlan> {
    let objects: Vec<&str> = joins_of(plan).take(number).map(|join| join.name.as_str()).collect();
    let [key] = join.left_key.as_slice() else { return None };
    let head = key.path.text.split('.').next().unwrap_or_default();
    (!is_selected_before(plan, number) && !objects.contains(&head) && !key.path.text.starts_with('_')).then_some(key)
}

fn right_key(join: &JoinPlan) -> Option<&KeyPlan> {
    let [key] = join.right_key.as_slice() else { return None };
    let is_plain = !join.steps.iter().any(|step| matches!(step, StepPlan::Select(_)));
    (is_plain && !key.path.text.starts_with('_')).then_some(key)
}

fn other_key(plan: &PipelinePlan, join: usize, topic: usize, key: &KeyPlan, sample: &Sample) -> Option<Doubt> {
    let differs = |record: &crate::source::kafka::SampledRecord| -> Option<bool> {
        let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        let field = at_path(&value, &key.path.text).filter(|field| !field.is_null())?;
        Some(!record.key.as_deref().is_some_and(|record_key| is_key(record_key, field, &key.path.text)))
    };
    let judged: Vec<bool> = sample.records.iter().filter_map(differs).collect();
    let others = judged.iter().filter(|differs| **differs).count();
    if judged.is_empty() || others * 100 <= judged.len() * OTHER_KEYS_PERCENT {
        return None;
    }
    let name = &plan.topics[topic].name;
    Some(Doubt {
        join,
        code: "join_key_is_not_the_record_key",
        message: format!(
            "{others} of {} sampled records of `{name}` have another record key than their join key `{}`: rows of one \
             join key can lie in different partitions and then never meet",
            judged.len(),
            key.path.text
        ),
        help: format!("let the producer of `{name}` use `{}` as the record key", key.path.text),
    })
}

/// A literal dotted key wins over the path.
fn at_path<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if let Some(found) = value.get(path) {
        return Some(found);
    }
    let heads = path.rmatch_indices('.').map(|(dot, _)| (&path[..dot], &path[dot + 1..]));
    heads.into_iter().find_map(|(head, rest)| at_path(value.get(head)?, rest))
}

/// Whether a record key is this value: as plain text, as JSON, or as a JSON object with the field.
fn is_key(record_key: &[u8], field: &Value, path: &str) -> bool {
    let plain = match field {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if record_key == plain.as_bytes() {
        return true;
    }
    let Ok(json) = serde_json::from_slice::<Value>(record_key) else { return false };
    json == *field || at_path(&json, path) == Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::source::kafka::SampledRecord;

    fn plan() -> PipelinePlan {
        let text = "version: 1\nkafka: { brokers: [\"b:1\"] }\nclickhouse: { url: \"http://h:1\" }\npipelines:\n  - name: p\n    \
                    source: { kafka: { topic: orders } }\n    steps: [ { join: { with: { kafka: { topic: payments } }, \
                    as: p, key: { left: id, right: order.id }, kind: interval, within: 1m } } ]\n    \
                    sink: { clickhouse: { table: t } }\n";
        let (plan, findings) = parse(text, &|_| None);
        plan.unwrap_or_else(|| panic!("{findings:#?}")).pipelines.remove(0)
    }

    fn sample(key: impl Fn(usize) -> String, value: impl Fn(usize) -> String) -> Sample {
        let record = |number: usize| SampledRecord {
            partition: 0,
            offset: number as i64,
            timestamp_ms: 0,
            key: Some(key(number).into_bytes()),
            value: Some(value(number).into_bytes()),
        };
        Sample { ranges: vec![(0, 100); 1], records: (0..20).map(record).collect() }
    }

    #[test]
    fn a_record_key_that_is_the_join_key_raises_no_doubt_in_any_spelling() {
        let orders = sample(|n| n.to_string(), |n| format!(r#"{{"id": {n}}}"#));
        let payments =
            sample(|n| format!(r#"{{"order": {{"id": {n}}}}}"#), |n| format!(r#"{{"order": {{"id": {n}}}}}"#));
        assert_eq!(doubts(&plan(), &[orders, payments]), []);
    }

    #[test]
    fn a_record_key_that_is_another_field_is_said_with_its_topic() {
        let orders = sample(|n| n.to_string(), |n| format!(r#"{{"id": {n}}}"#));
        let payments = sample(|n| format!("customer-{n}"), |n| format!(r#"{{"order.id": {n}}}"#));
        let found = doubts(&plan(), &[orders, payments]);
        let [doubt] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((doubt.join, doubt.code), (0, "join_key_is_not_the_record_key"));
        assert!(doubt.message.contains("20 of 20 sampled records of `payments`"), "{}", doubt.message);
    }

    #[test]
    fn a_field_that_the_object_hides_is_said() {
        let orders = sample(|n| n.to_string(), |n| format!(r#"{{"id": {n}, "p": 1}}"#));
        let payments = sample(|n| n.to_string(), |n| format!(r#"{{"order.id": {n}}}"#));
        let found = doubts(&plan(), &[orders, payments]);
        let [doubt] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(doubt.code, "object_hides_a_field");
        assert!(doubt.message.contains("records of `orders` have a field `p`"), "{}", doubt.message);
    }
}
