//! From what is typed to what is meant: defaults, and the rules that look at more than one field.
//!
//! Promises: all findings at once, and a plan only where none of them is an error.

mod connection;
mod denied;
mod join;
mod pipeline;
mod sink;
mod step;

use super::defaults;
use super::machine::Machine;
use super::plan::{Draft, HttpPlan, HttpWrites, PipelinePlan, Plan, RuntimePlan, StatePlan};
use super::read::At;
use super::spec::connection::{ClickHouseSpec, KafkaSpec};
use super::spec::sink::DeadLettersSpec;
use super::spec::{FileSpec, HttpSpec, RuntimeSpec, StateSpec};
use crate::error::{Finding, Place, Severity};

/// The plan of a document (not to be used when a finding is an error), and what is left of each pipeline.
pub fn plan(spec: &FileSpec, machine: &Machine, findings: &mut Vec<Finding>) -> (Option<Plan>, Vec<Draft>) {
    let mut check = Check { kafka: &spec.kafka, clickhouse: &spec.clickhouse, findings };
    let state = state_plan(&spec.state);
    let http = check.http_plan(&spec.http);
    let runtime = runtime_plan(&spec.runtime, machine);
    let (pipelines, drafts): (Vec<Option<PipelinePlan>>, Vec<Draft>) =
        spec.pipelines.iter().map(|spec| check.pipeline_plan(spec)).unzip();
    let pipelines: Vec<PipelinePlan> = pipelines.into_iter().collect::<Option<_>>().unwrap_or_default();
    check.names_differ(spec);
    check.groups_differ(spec);
    check.local_letters(spec);
    check.has_something_to_run(spec);
    (Some(Plan { state, http, runtime, pipelines }), drafts)
}

/// What the checks of a document share: the default connections, and the findings.
struct Check<'a> {
    kafka: &'a KafkaSpec,
    clickhouse: &'a ClickHouseSpec,
    findings: &'a mut Vec<Finding>,
}

impl Check<'_> {
    fn say(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn http_plan(&mut self, spec: &HttpSpec) -> HttpPlan {
        let listen = value_or(&spec.listen, || defaults::HTTP_LISTEN.to_string());
        if let Some(at) = spec.listen.as_ref().filter(|at| !is_listen_address(&at.value)) {
            let finding = at.error("bad_address", "`listen` takes an address and a port");
            self.say(finding.with_help("such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::]:8080`"));
        }
        let writes = value_or(&spec.writes, || HttpWrites::Loopback);
        if let (HttpWrites::Token, None, Some(at)) = (writes, &spec.token, &spec.writes) {
            self.say(
                at.error("missing_field", "`writes: token` needs `token`").with_help("such as `token: ${WEIR_TOKEN}`"),
            );
        }
        if let (HttpWrites::Anyone, Some(at)) = (writes, &spec.writes) {
            self.say(
                at.error("open_to_all", "whoever reaches the port may delete dead letters and discard blocks")
                    .as_warning(),
            );
        }
        let token = spec.token.clone();
        HttpPlan { listen, token, hosts: spec.hosts.iter().map(|host| host.value.clone()).collect(), writes }
    }

    /// A document that is wrong elsewhere may only seem to have no pipeline: `pipeline:` is a misspelling.
    fn has_something_to_run(&mut self, spec: &FileSpec) {
        let is_wrong = self.findings.iter().any(|finding| finding.severity == Severity::Error);
        if is_wrong || !spec.pipelines.is_empty() {
            return;
        }
        let at = At { value: (), at: Place { line: 1, column: 1, len: 1 }, path: "pipelines".into() };
        let finding = at.error("no_pipelines", "no pipelines: there is nothing to run");
        self.say(finding.with_help("such as `pipelines: [ { name: orders, source: …, sink: … } ]`"));
    }

    fn names_differ(&mut self, spec: &FileSpec) {
        let names: Vec<&At<String>> = spec.pipelines.iter().filter_map(|pipeline| pipeline.name.as_ref()).collect();
        for (i, name) in names.iter().enumerate() {
            // Folders of some file systems do not tell capitals apart.
            let same = |other: &&&At<String>| other.value.eq_ignore_ascii_case(&name.value);
            let Some(other) = names[..i].iter().find(same) else { continue };
            let finding = name.error("shared_name", format!("two pipelines are called `{}`", name.value));
            self.say(finding.with_help(format!("the other one is on line {}", other.at.line)));
        }
    }

    fn groups_differ(&mut self, spec: &FileSpec) {
        let mut groups = Vec::new();
        for pipeline in &spec.pipelines {
            let (Some(name), Some(source)) = (&pipeline.name, &pipeline.source) else { continue };
            let own = source.kafka.as_ref().and_then(|kafka| kafka.group.clone());
            let written = own.or_else(|| self.kafka.group.clone());
            let group = value_or(&written, || defaults::group(&name.value));
            groups.push((name, group, written));
        }
        for (i, (name, group, written)) in groups.iter().enumerate() {
            let Some((other, _, other_written)) = groups[..i].iter().find(|(_, earlier, _)| earlier == group) else {
                continue;
            };
            // Two default groups are equal only if the names are, and that was said.
            if written.is_none() && other_written.is_none() {
                continue;
            }
            let at = written.as_ref().or(other_written.as_ref()).unwrap_or(name);
            let message = format!("`{}` and `{}` share the consumer group `{group}`", other.value, name.value);
            let help = "leave `group` out, or give each pipeline its own: they would take each other's partitions";
            self.findings.push(at.error("shared_group", message).with_help(help));
        }
    }

    /// Says once where dead letters stay on the disk of one instance.
    fn local_letters(&mut self, spec: &FileSpec) {
        let is_local = |place: &Option<DeadLettersSpec>| matches!(place, None | Some(DeadLettersSpec::Local { .. }));
        let local = spec.pipelines.iter().filter(|pipeline| is_local(&pipeline.dead_letters));
        let names: Vec<&At<String>> = local.filter_map(|pipeline| pipeline.name.as_ref()).collect();
        let Some(first) = names.first() else { return };
        let listed: Vec<&str> = names.iter().map(|name| name.value.as_str()).collect();
        let listed = super::read::listed(&listed, "and");
        let message = format!("dead letters of {listed} stay on the disk of the instance that finds them");
        let help = "with several instances, or a disk that does not last, write `dead_letters: { kafka: { topic } }`";
        self.say(first.error("local_dead_letters", message).as_note().with_help(help));
    }
}

fn state_plan(spec: &StateSpec) -> StatePlan {
    StatePlan {
        rocksdb_path: value_or(&spec.rocksdb_path, || defaults::STATE_PATH.to_string()).into(),
        retain_left_ms: value_or(&spec.retain_left_ms, || defaults::RETAIN_LEFT_MS),
    }
}

fn runtime_plan(spec: &RuntimeSpec, machine: &Machine) -> RuntimePlan {
    RuntimePlan {
        workers: spec.workers.as_ref().map_or(machine.cores, |at| at.value as usize),
        memory_limit_bytes: value_or(&spec.memory_limit_bytes, || machine.memory_bytes / 2),
    }
}

fn is_listen_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ', '@']),
    };
    host_fits && port.parse::<u16>().is_ok()
}

/// What is written, else the default.
fn value_or<T: Clone>(written: &Option<At<T>>, default: impl FnOnce() -> T) -> T {
    written.as_ref().map_or_else(default, |at| at.value.clone())
}
