//! What documents mean, and what is said about wrong ones.

mod findings;
mod joins;
mod meaning;
mod robust;

use super::machine::Machine;
use super::parse_on;
use super::plan::Plan;
use crate::error::Finding;

const MACHINE: Machine = Machine { cores: 6, memory_bytes: 8 << 30 };

fn env(name: &str) -> Option<String> {
    match name {
        "ROWS" => Some("500".into()),
        "SECRET" => Some("hunter2".into()),
        "WORD" => Some("nonsense-hunter2".into()),
        "BROKERS" => Some("a:1, b:2".into()),
        _ => None,
    }
}

fn parse(text: &str) -> (Option<Plan>, Vec<Finding>) {
    parse_on(text, &env, &MACHINE)
}

#[track_caller]
fn plan(text: &str) -> Plan {
    let (plan, findings) = parse(text);
    plan.unwrap_or_else(|| panic!("{findings:#?}"))
}

/// A document around a part of a pipeline, each on a line of its own: source (3), steps (4), sink (5), rest (6).
fn document(source: &str, steps: &str, sink: &str, rest: &str) -> String {
    format!(
        "kafka: {{ brokers: [k] }}\nclickhouse: {{ url: http://c:8123 }}\n\
         pipelines: [ {{ name: p, source: {{ {source} }},\nsteps: [ {steps} ],\nsink: {{ clickhouse: {{ {sink} }} }},\n{rest} }} ]\n"
    )
}

const SOURCE: &str = "kafka: { topic: t }";
const SINK: &str = "table: out";

fn with_source(source: &str) -> String {
    document(source, "", SINK, "")
}

fn with_steps(steps: &str) -> String {
    document(SOURCE, steps, SINK, "")
}

fn with_sink(sink: &str) -> String {
    document(SOURCE, "", sink, "")
}

fn with_rest(rest: &str) -> String {
    document(SOURCE, "", SINK, rest)
}
