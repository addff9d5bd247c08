//! What a join means, and what is said about wrong ones.

use super::super::plan::{JoinLate, JoinPlan, Matching, PipelinePlan, StepPlan};
use super::{parse, with_steps};
use crate::config::plan::Plan;
use crate::error::{Finding, Severity};

fn parsed(text: &str) -> (Option<Plan>, Vec<Finding>) {
    let (plan, findings) = parse(text);
    (plan, findings.into_iter().filter(|finding| finding.severity != Severity::Note).collect())
}

const WITH: &str = "with: { kafka: { topic: b } }, as: u, key: k";

fn joined(fields: &str) -> (PipelinePlan, JoinPlan) {
    let (plan, findings) = parsed(&with_steps(&format!("{{ join: {{ {fields} }} }}")));
    let mut plan = plan.unwrap_or_else(|| panic!("{findings:#?}"));
    let pipeline = plan.pipelines.remove(0);
    let Some(StepPlan::Join(join)) = pipeline.steps.last().cloned() else { panic!("a join") };
    (pipeline, *join)
}

/// What is said about a join, the only finding.
fn says(fields: &str, code: &str, part: &str) {
    let (_, findings) = parsed(&with_steps(&format!("{{ join: {{ {fields} }} }}")));
    let [finding] = findings.as_slice() else { panic!("not one finding: {findings:#?}\n{fields}") };
    assert_eq!(finding.code, code, "{finding:#?}");
    assert!(finding.place.is_some_and(|place| place.line > 1), "{finding:#?}");
    let said = format!("{} {}", finding.message, finding.help.clone().unwrap_or_default());
    assert!(said.contains(part), "{part} is not in: {said}");
}

#[test]
fn a_join_has_its_defaults() {
    let (pipeline, join) = joined(&format!("{WITH}, kind: temporal, within: 5m"));
    let topics: Vec<&str> = pipeline.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(topics, ["t", "b"]);
    assert_eq!((pipeline.source.inputs, &join.with.inputs), (vec![0], &vec![1]));
    assert_eq!(join.name, "u");
    assert_eq!(join.matching, Matching::Temporal { within_ms: 300_000, exact: false });
    assert_eq!((join.keeps_left, join.keeps_right, join.late), (false, false, JoinLate::Join));
    assert_eq!((join.max_skew_ms, join.rows_per_key_max), (3_000_000, 100_000));
    assert_eq!(join.left_key, join.right_key);
}

#[test]
fn an_interval_is_given_by_within_or_by_its_bounds() {
    let matching = |fields: &str| joined(&format!("{WITH}, kind: interval, {fields}")).1.matching;
    assert_eq!(matching("within: 1m"), Matching::Interval { before_ms: 60_000, after_ms: 60_000 });
    assert_eq!(matching("before: 5s"), Matching::Interval { before_ms: 5_000, after_ms: 0 });
    assert_eq!(matching("before: -2s, after: 10s"), Matching::Interval { before_ms: -2_000, after_ms: 10_000 });
    says(&format!("{WITH}, kind: interval, before: -3s, after: 2s"), "empty_interval", "no time between");
    says(&format!("{WITH}, kind: interval"), "missing_field", "`within`, or `before` and `after`");
    says(&format!("{WITH}, kind: temporal"), "missing_field", "needs `within`");
}

#[test]
fn retain_forever_makes_a_table() {
    let table = "with: { kafka: { topic: b }, retain: forever, bootstrap: false }, as: u, key: k, within: 1s";
    let matching = joined(&format!("{table}, kind: temporal, exact: true")).1.matching;
    assert_eq!(matching, Matching::Table { within_ms: 1_000, exact: true, bootstrap: false });
    says(&format!("{table}, kind: interval"), "unfit_option", "a table (`retain: forever`) needs `kind: temporal`");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let temporal =
        |with: &str| format!("with: {{ kafka: {{ topic: b }}, {with} }}, as: u, key: k, kind: temporal, within: 1s");
    says(&temporal("retain: 7d"), "unfit_option", "`retain` is `forever`");
    says(&temporal("bootstrap: true"), "unfit_option", "needs `retain: forever`");
    says(&temporal("retain: forever, start: latest"), "unfit_option", "a table has no `start`");
    says(&temporal("retain: forever, tombstones: keep"), "unused", "in a table they delete");
    let interval = |more: &str| format!("{WITH}, kind: interval, within: 1s, {more}");
    says(&interval("exact: true"), "unfit_option", "`exact` needs `kind: temporal`");
    says(&format!("{WITH}, kind: temporal, within: 1s, type: full"), "unfit_option", "is `inner` or `left`");
    says(&format!("{WITH}, kind: temporal, within: 1s, type: right"), "unfit_option", "is `inner` or `left`");
}

#[test]
fn keys_are_compared_pair_by_pair() {
    let keys = |key: &str| format!("with: {{ kafka: {{ topic: b }} }}, as: u, key: {key}, kind: interval, within: 1s");
    let (_, join) = joined(&keys("{ left: [a, b], right: [c, { path: d, as: int }] }"));
    let names: Vec<&str> = join.left_key.iter().chain(&join.right_key).map(|part| part.path.text.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    says(&keys("{ left: [a, b], right: c }"), "key_sizes", "2 fields on the left and 1 on the right");
}

#[test]
fn the_object_has_a_name_of_one_part() {
    for name in ["a.b", "_u", "'a b'"] {
        let fields = format!("with: {{ kafka: {{ topic: b }} }}, as: {name}, key: k, kind: interval, within: 1s");
        says(&fields, "bad_name", "cannot have this name");
    }
}

#[test]
fn two_joins_have_two_names_and_a_right_side_has_no_join() {
    let join = |topic: &str, with: &str| {
        format!(
            "{{ join: {{ with: {{ kafka: {{ topic: {topic} }}{with} }}, as: u, key: k, kind: interval, within: 1s }} }}"
        )
    };
    let codes = |steps: &str| {
        let (_, findings) = parsed(&with_steps(steps));
        findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&format!("{}, {}", join("b", ""), join("c", ""))), ["twice"]);
    assert_eq!(codes(&join("b", &format!(", steps: [ {} ]", join("c", "")))), ["nested_join"]);
}

#[test]
fn a_topic_is_one_input_however_many_sides_it_feeds() {
    let own =
        |with: &str| format!("with: {{ kafka: {{ topic: t }}{with} }}, as: u, key: k, kind: temporal, within: 1s");
    let (pipeline, join) = joined(&own(""));
    assert_eq!((pipeline.topics.len(), join.with.inputs), (1, vec![0]));
    says(&own(", time: { lateness: 5s }"), "read_twice", "the same `time`");
    says(&own(", tombstones: keep"), "read_twice", "the same `time`");
    says(&own(", start: latest"), "read_twice", "begins elsewhere");
    says(&own(", retain: forever"), "table_and_stream", "a topic of its own");
}

#[test]
fn all_inputs_share_one_connection() {
    let with =
        |kafka: &str| format!("with: {{ kafka: {{ topic: b, {kafka} }} }}, as: u, key: k, kind: interval, within: 1s");
    says(&with("brokers: [other]"), "other_connection", "share brokers, security and group");
    says(&with("group: other"), "other_connection", "share brokers, security and group");
    joined(&with("brokers: [k]"));
    says("with: { kafka: {} }, as: u, key: k, kind: interval, within: 1s", "missing_field", "needs `topic`");
}
