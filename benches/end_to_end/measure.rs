//! One measured run: of weir over a topic, or of the bare consumer.

use crate::child::{self, Cost};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What weir does with the events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Passthrough,
    Dedup,
    /// Orders with their payments, within ten minutes.
    Interval,
    /// The same with ten times the window, so with ten times the rows in it.
    IntervalWide,
    /// Visits with their users, of a table.
    Temporal,
}

impl Shape {
    pub const ALL: [Shape; 5] =
        [Shape::Passthrough, Shape::Dedup, Shape::Interval, Shape::IntervalWide, Shape::Temporal];

    pub fn name(self) -> &'static str {
        match self {
            Shape::Passthrough => "passthrough",
            Shape::Dedup => "dedup",
            Shape::Interval => "interval",
            Shape::IntervalWide => "interval-wide",
            Shape::Temporal => "temporal",
        }
    }

    pub fn is_join(self) -> bool {
        !matches!(self, Shape::Passthrough | Shape::Dedup)
    }

    /// Source, steps and columns of its pipeline.
    fn pipeline(self, places: &Places) -> String {
        let Places { topic, right, .. } = places;
        let right = right.as_deref().unwrap_or_default();
        let of_events = |steps: &str| {
            format!(
                "    source: {{ kafka: {{ topic: {topic} }} }}\n{steps}    sink: {{ clickhouse: {{ table: events, columns: {{ url: page.url }} }} }}\n"
            )
        };
        let interval = |within: &str| {
            format!(
                "    source: {{ kafka: {{ topic: {topic} }}, time: {{ field: placed_at, unit: ms, lateness: 10s }} }}
    steps:
      - join:
          with: {{ kafka: {{ topic: {right} }}, time: {{ field: paid_at, unit: ms, lateness: 10s }} }}
          as: payment
          key: order_id
          kind: interval
          within: {within}
    sink:
      clickhouse:
        table: orders_paid
        columns:
          placed_at: {{ path: placed_at, unit: ms }}
          paid_at: {{ path: payment.paid_at, unit: ms }}
          paid: payment.amount
"
            )
        };
        match self {
            Shape::Passthrough => of_events(""),
            Shape::Dedup => of_events("    steps:\n      - dedup: { key: event_id, window: 24h }\n"),
            Shape::Interval => interval("10m"),
            Shape::IntervalWide => interval("100m"),
            Shape::Temporal => format!(
                "    source: {{ kafka: {{ topic: {topic} }}, time: {{ field: at, unit: ms }} }}
    steps:
      - join:
          with: {{ kafka: {{ topic: {right} }}, time: {{ field: updated_at, unit: ms }}, retain: forever }}
          as: user
          key: user_id
          kind: temporal
          within: 10m
    sink: {{ clickhouse: {{ table: visits_with_users, columns: {{ at: {{ path: at, unit: ms }} }} }} }}
"
            ),
        }
    }
}

/// What one run has done and cost.
#[derive(Clone, Debug)]
pub struct Measured {
    pub events: u64,
    pub written: u64,
    pub cost: Cost,
    /// What the state directory holds at the end; 0 for the bare consumer.
    pub state_bytes: u64,
    /// The summary's numbers; null for the bare consumer.
    pub summary: serde_json::Value,
}

impl Measured {
    pub fn per_cpu_second(&self) -> f64 {
        self.events as f64 / self.cost.cpu.as_secs_f64()
    }
}

/// Where a run reads from and writes to.
#[derive(Clone, Debug)]
pub struct Places {
    pub brokers: String,
    pub topic: String,
    /// The topic of the right side, for a join.
    pub right: Option<String>,
    pub url: String,
}

impl Places {
    pub fn topics(&self) -> Vec<&str> {
        [Some(&self.topic), self.right.as_ref()].into_iter().flatten().map(String::as_str).collect()
    }
}

/// This program in one of its other parts.
pub fn own(part: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(part).args(arguments);
    command
}

/// The bare consumer in a process of its own, over all topics one after the other.
pub fn bare(places: &Places) -> Measured {
    let arguments = [vec![&*places.brokers], places.topics()].concat();
    let (output, cost) = child::run("the bare consumer", own("bare", &arguments));
    let events = output.trim().parse().expect("it prints how many records it has read");
    Measured { events, written: 0, cost, state_bytes: 0, summary: serde_json::Value::Null }
}

/// `weir run --until-end` on a state directory of its own, as a new group.
pub fn weir(shape: Shape, places: &Places) -> Measured {
    let folder = tempfile::Builder::new().prefix("weir-bench-").tempdir().expect("a folder for the state");
    let mut command = weir_command(shape, places, folder.path(), crate::support::free_port());
    command.args(["run", "--until-end", "--format", "json"]);
    let (output, cost) = child::run("weir", command);
    let answer: serde_json::Value = serde_json::from_str(&output).expect("the summary is JSON");
    let summary = answer["pipelines"][0].clone();
    let number = |place: &serde_json::Value| place.as_u64().expect("the summary counts");
    Measured {
        events: number(&summary["records"]["read"]),
        written: number(&summary["rows"]["written"]),
        cost,
        state_bytes: bytes_in(&folder.path().join("state")),
        summary,
    }
}

/// Of all files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the state directory is there");
    let bytes = entries.map(|entry| {
        let entry = entry.expect("it can be read");
        let metadata = entry.metadata().expect("it is there");
        if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() }
    });
    bytes.sum()
}

/// weir with a configuration written into the folder, before its subcommand.
pub fn weir_command(shape: Shape, places: &Places, folder: &Path, http_port: u16) -> Command {
    let config = folder.join("weir.yaml");
    std::fs::write(&config, configuration(shape, places, folder, http_port)).expect("the folder takes a file");
    let log = std::fs::File::create(folder.join("log")).expect("the folder takes a file");
    let program =
        std::env::var_os("BENCH_WEIR").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weir")), PathBuf::from);
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(["--log-level", "warn"]);
    // What goes wrong is to be seen; what goes well is not to be paid for by the terminal.
    match std::env::var_os("BENCH_LOG") {
        Some(_) => command.stderr(Stdio::inherit()),
        None => command.stderr(log),
    };
    command
}

fn configuration(shape: Shape, places: &Places, folder: &Path, http_port: u16) -> String {
    // Groups begin new with their state, else a run would go on where the last one ended.
    let group = folder.file_name().expect("a folder with a name").to_string_lossy();
    format!(
        "version: 1
kafka: {{ brokers: [\"{brokers}\"], group: \"{group}\" }}
clickhouse: {{ url: \"{url}\" }}
state: {{ rocksdb: {{ path: \"{state}\" }} }}
http: {{ listen: \"127.0.0.1:{http_port}\" }}
runtime: {{ workers: 2 }}
pipelines:
  - name: {name}
{pipeline}",
        brokers = places.brokers,
        url = places.url,
        state = folder.join("state").display(),
        name = shape.name(),
        pipeline = shape.pipeline(places),
    )
}

/// Processing time under a steady load: the median and the 99th percentile in seconds, over the whole run.
pub fn latency(shape: Shape, places: &Places, per_second: u64, seconds: u64) -> (f64, f64) {
    let folder = tempfile::Builder::new().prefix("weir-bench-").tempdir().expect("a folder for the state");
    let port = crate::support::free_port();
    let mut command = weir_command(shape, places, folder.path(), port);
    command.arg("run");
    let began = Instant::now();
    let mut running = child::start(command, Stdio::null());
    crate::support::wait_for("weir to be ready", Duration::from_secs(60), || {
        let ended = running.try_wait().expect("it is ours");
        assert!(ended.is_none(), "weir has ended: {ended:?}");
        get(port, "/readyz").filter(|answer| answer == "ready\n")
    });
    let records = (per_second * seconds).to_string();
    let arguments = [&*places.brokers, &*places.topic, "events", "0", &records, &per_second.to_string()];
    child::run("the producer", own("produce", &arguments));
    let text = get(port, "/metrics").expect("weir answers");
    // SAFETY: a plain system call; the child is not reaped yet, so the id is its.
    unsafe { libc::kill(running.id() as i32, libc::SIGTERM) };
    let (succeeded, _) = child::reap(&running, began);
    assert!(succeeded, "weir has failed");
    (quantile(&text, "weir_processing_seconds", 0.5), quantile(&text, "weir_processing_seconds", 0.99))
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut answer = ureq::get(format!("http://127.0.0.1:{port}{path}")).call().ok()?;
    answer.body_mut().read_to_string().ok()
}

/// A quantile of a Prometheus histogram, straight between its bounds.
fn quantile(text: &str, name: &str, share: f64) -> f64 {
    let prefix = format!("{name}_bucket{{");
    let buckets: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| {
            let (labels, count) = line.strip_prefix(&prefix)?.rsplit_once("} ")?;
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    let wanted = buckets.last().map_or(0.0, |(_, all)| all * share);
    let (mut bound_before, mut count_before) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted && count > count_before {
            return bound_before + (bound - bound_before) * (wanted - count_before) / (count - count_before);
        }
        (bound_before, count_before) = (bound, count);
    }
    bound_before
}
