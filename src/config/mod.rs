//! What the user writes, and what it means.
//!
//! The way of a document: text → [`node`] (a tree with places) → [`spec`] (what is typed) → `check` (defaults,
//! rules) → [`plan::Plan`] (what is meant). Every layer adds findings and goes on; [`report`] shows them all.

mod check;
pub mod defaults;
pub mod grammar;
pub mod machine;
pub mod node;
pub mod plan;
pub mod read;
pub mod report;
pub mod schema;
mod secrets;
pub mod spec;
#[cfg(test)]
mod tests;
mod units;
mod vars;

use crate::error::{Finding, Severity};
use machine::Machine;
use plan::{Draft, Plan};
use report::Report;
use spec::FileSpec;
use std::path::Path;
pub use vars::Env;

/// A document that was read: the plan, where nothing is wrong with it, and everything that is to be said.
pub struct Loaded {
    pub plan: Option<Plan>,
    /// Every pipeline as far as it can be meant, for the layers that judge what is in it.
    pub drafts: Vec<Draft>,
    /// All findings, rendered on demand; layers that find more add theirs with [`Report::extend`].
    pub report: Report,
}

/// Reads a file, with the variables of this process.
///
/// `Err` holds the report of a file with errors, or of one that cannot be read. Warnings and notes of a good file
/// are in [`load_all`].
pub fn load(path: &Path) -> Result<Plan, Report> {
    let loaded = load_all(path);
    loaded.plan.ok_or(loaded.report)
}

/// As [`load`], with the report also of a good file.
pub fn load_all(path: &Path) -> Loaded {
    let file = path.display().to_string();
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_string()),
        Err(error) => Err(error.to_string()),
    };
    match text {
        Ok(text) => {
            let Parsed { plan, drafts, findings } = read(&text, &|name| std::env::var(name).ok(), &Machine::this());
            Loaded { plan, drafts, report: Report::new(file, text, findings) }
        }
        Err(why) => Loaded { plan: None, drafts: vec![], report: Report::unreadable(file, &why) },
    }
}

/// Reads a document. The plan is there exactly if no finding is an error.
pub fn parse(text: &str, env: &Env<'_>) -> (Option<Plan>, Vec<Finding>) {
    parse_on(text, env, &Machine::this())
}

/// As [`parse`], for a machine of that size.
pub fn parse_on(text: &str, env: &Env<'_>, machine: &Machine) -> (Option<Plan>, Vec<Finding>) {
    let Parsed { plan, findings, .. } = read(text, env, machine);
    (plan, findings)
}

/// A document's meaning.
pub struct Parsed {
    /// There exactly if no finding is an error.
    pub plan: Option<Plan>,
    pub drafts: Vec<Draft>,
    pub findings: Vec<Finding>,
}

/// As [`parse_on`], with what is left of pipelines in which something is wrong.
pub fn read(text: &str, env: &Env<'_>, machine: &Machine) -> Parsed {
    let (node, mut findings) = node::read(text);
    let spec = node.and_then(|node| read_spec(&node, env, &mut findings));
    let (plan, drafts) = spec.map(|spec| check::plan(&spec, machine, &mut findings)).unwrap_or_default();
    findings.sort_by(|a, b| (a.place, &a.path, a.code).cmp(&(b.place, &b.path, b.code)));
    findings.dedup();
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    // Notes are about what a document means; a wrong one means nothing yet.
    findings.retain(|finding| !wrong || finding.severity != Severity::Note);
    Parsed { plan: plan.filter(|_| !wrong), drafts, findings }
}

fn read_spec(node: &node::Node, env: &Env<'_>, findings: &mut Vec<Finding>) -> Option<FileSpec> {
    let reading = read::Reading::new(env);
    let spec = FileSpec::read(&read::Value::root(&reading, node));
    findings.extend(reading.into_findings());
    spec
}
