//! Where what a dedup decides hangs on a race between inputs, so that a rebuilt state can have decided otherwise
//! (`exactly-once.md`, What is not promised).

use super::joins_with_places;
use crate::config::plan::{DedupPlan, JoinPlan, Keep, Matching, PipelinePlan, StepPlan};

/// A dedup, by the name of its step, and what it looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Race {
    /// Rows of several topics.
    Topics(String),
    /// Fields that a join without `exact` has found.
    Joined(String),
}

/// In the order of the steps, those of right sides behind.
pub fn races(plan: &PipelinePlan) -> Vec<Race> {
    let mut found = Vec::new();
    // Names whose value hangs on a race.
    let mut raced: Vec<String> = Vec::new();
    for (place, step) in plan.steps.iter().enumerate() {
        match step {
            StepPlan::Filter(_) => {}
            StepPlan::Select(fields) => {
                let is_raced = |text: &str| raced.iter().any(|name| names(text).any(|named| named == *name));
                raced = fields.iter().filter(|(_, text)| is_raced(&text.text)).map(|(name, _)| name.clone()).collect();
            }
            StepPlan::Join(join) if is_race(join) || join.left_key.iter().any(|key| has(&raced, &key.path.text)) => {
                raced.push(join.name.clone());
            }
            StepPlan::Join(join) => raced.retain(|name| *name != join.name),
            StepPlan::Dedup(_) if plan.source.inputs.len() > 1 => found.push(Race::Topics(place.to_string())),
            StepPlan::Dedup(dedup) if looks_at(dedup).any(|path| has(&raced, path)) => {
                found.push(Race::Joined(place.to_string()));
            }
            StepPlan::Dedup(_) => {}
        }
    }
    for (place, join) in joins_with_places(plan).filter(|(_, join)| join.with.inputs.len() > 1) {
        let dedups = join.steps.iter().enumerate().filter(|(_, step)| matches!(step, StepPlan::Dedup(_)));
        found.extend(dedups.map(|(inner, _)| Race::Topics(format!("{place}.{inner}"))));
    }
    found
}

/// Whether the arrival order decides what a row meets, or which of its pairs comes first.
fn is_race(join: &JoinPlan) -> bool {
    match join.matching {
        Matching::Interval { .. } => true,
        Matching::Temporal { exact, .. } | Matching::Table { exact, .. } => !exact,
    }
}

fn looks_at(dedup: &DedupPlan) -> impl Iterator<Item = &str> {
    let compared = if let Keep::Changes(fields) = &dedup.keep { fields.as_slice() } else { &[] };
    dedup.key.iter().map(|key| &key.path).chain(compared).map(|path| path.text.as_str())
}

/// Whether a path is one of these names, or lies below one.
fn has(raced: &[String], path: &str) -> bool {
    let below = |name: &String| path.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'));
    raced.iter().any(|name| path == name || below(name))
}

/// The names with which the paths of an expression begin. A word in a text looks like one: that says too much, never too
/// little.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let words = expression.split(move |c: char| !is_part(c)).filter(|word| !word.starts_with('.'));
    words.map(|word| word.split_once('.').map_or(word, |(head, _)| head)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn races_of(topics: &str, steps: &str) -> Vec<Race> {
        let text = format!(
            "version: 1\nkafka: {{ brokers: [\"k:1\"] }}\nclickhouse: {{ url: \"http://c:1\" }}\n\
             pipelines: [ {{ name: p, source: {{ kafka: {{ {topics} }} }}, steps: [ {steps} ],\n\
             sink: {{ clickhouse: {{ table: t }} }} }} ]\n"
        );
        let (plan, findings) = crate::config::parse(&text, &|_| None);
        races(&plan.unwrap_or_else(|| panic!("{findings:?}\n{text}")).pipelines[0])
    }

    fn join(name: &str, rest: &str) -> String {
        format!("{{ join: {{ with: {{ kafka: {{ topic: {name} }} }}, as: {name}, key: id, within: 1m, {rest} }} }}")
    }

    fn dedup(key: &str) -> String {
        format!("{{ dedup: {{ key: {key}, window: 1h }} }}")
    }

    #[test]
    fn one_topic_and_joins_alone_are_no_race() {
        assert_eq!(races_of("topic: a", &dedup("id")), []);
        assert_eq!(races_of("topics: [a, b]", "{ filter: \"x > 1\" }"), []);
        assert_eq!(races_of("topic: a", &join("b", "kind: interval")), []);
    }

    #[test]
    fn a_dedup_over_several_topics_is_one() {
        assert_eq!(races_of("topics: [a, b]", &dedup("id")), [Race::Topics("0".into())]);
        let right = "with: { kafka: { topics: [b, c] }, steps: [ { dedup: { key: id, window: 1h } } ] }";
        let join = format!("{{ join: {{ {right}, as: b, key: id, kind: interval, within: 1m }} }}");
        assert_eq!(races_of("topic: a", &join), [Race::Topics("0.0".into())]);
    }

    #[test]
    fn a_dedup_on_what_a_join_has_found_is_one_unless_that_is_exact() {
        let behind = |kind: &str, key: &str| races_of("topic: a", &format!("{}, {}", join("b", kind), dedup(key)));
        assert_eq!(behind("kind: temporal", "b.x"), [Race::Joined("1".into())]);
        assert_eq!(behind("kind: interval", "[id, b.x]"), [Race::Joined("1".into())]);
        assert_eq!(behind("kind: temporal, exact: true", "b.x"), []);
        assert_eq!(behind("kind: temporal", "[id, bx]"), [], "fields of the left side");
        let changes = "{ dedup: { key: id, window: 1h, keep: changes, fields: [b.x] } }";
        assert_eq!(
            races_of("topic: a", &format!("{}, {changes}", join("b", "kind: temporal"))),
            [Race::Joined("1".into())]
        );
    }

    #[test]
    fn a_select_carries_the_race_under_another_name() {
        let behind = |select: &str, key: &str| {
            let steps = format!("{}, {{ select: {{ {select} }} }}, {}", join("b", "kind: temporal"), dedup(key));
            races_of("topic: a", &steps)
        };
        assert_eq!(behind("id: id, x: \"b.x + 1\"", "x"), [Race::Joined("2".into())]);
        assert_eq!(behind("id: id, x: \"b.x + 1\"", "id"), []);
        assert_eq!(behind("id: a.b", "id"), [], "a field of a field is no object of a join");
    }
}
