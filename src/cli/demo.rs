//! `weir demo`: the whole system with nothing installed, and the proof that it did what it says.
//!
//! In-process Kafka, embedded ClickHouse, generator and pipelines in a temporary folder; everything goes when it
//! ends, also by a signal.

use super::signals::Signals;
use super::{Global, observe};
use crate::api::{self, Watched};
use crate::clock::SystemClock;
use crate::config::plan::Plan;
use crate::config::{self, report::Report};
use crate::demo::broker::Broker;
use crate::demo::clickhouse::{Server, ServerOptions, server_program};
use crate::demo::generator::{Generator, GeneratorOptions, GroundTruth};
use crate::demo::proof::{Aggregate, Proof};
use crate::demo::scenarios::Scenario;
use crate::demo::table::{Joined, LiveTable, Snapshot};
use crate::error::Error;
use crate::metrics::{PipelineStats, StepKind, StepStats};
use crate::runtime::engine::{Engine, RunOptions};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the pipelines may take for what is left when the generator has stopped.
const REST_WAIT: Duration = Duration::from_secs(60);
/// How often the table is drawn: on a terminal, and elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The whole system with nothing installed: generator, Kafka, weir, ClickHouse, and a live table
#[derive(clap::Args)]
pub struct Demo {
    /// What is shown
    #[arg(long, default_value = "sessions", value_parser = scenario)]
    scenario: Scenario,

    /// How many records are produced a second
    #[arg(long, value_name = "N", default_value_t = 5000)]
    events_per_sec: u64,

    /// How long to run, such as 30s or 5m; then it proves the result with a query and leaves
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    duration: Duration,

    /// The same seed gives the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let known = || Scenario::ALL.map(Scenario::name).join(", ");
    Scenario::by_name(name).ok_or_else(|| format!("there is no scenario `{name}`; there are: {}", known()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|error| error.to_string())
}

impl Demo {
    pub fn run(self, _global: &Global) -> ExitCode {
        match self.go() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Whether the result is what was produced.
    fn go(&self) -> Result<bool, String> {
        let told = |error: Error| error.to_string();
        let signals = Signals::listen()?;
        let folder = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
        eprintln!("starting Kafka (in this process) and ClickHouse (the engine as a library) …");
        let broker = Broker::start(&Scenario::all_topics()).map_err(told)?;
        let server = Server::start(&ServerOptions {
            program: server_program().map_err(told)?,
            path: folder.path().join("clickhouse"),
            port: 0,
            user: "default".to_owned(),
            password: String::new(),
            log: Some(folder.path().join("clickhouse.log")),
        })
        .map_err(told)?;
        let clickhouse = Asked::new(server.url())?;
        for statement in self.scenario.tables() {
            clickhouse.execute(statement).map_err(|error| format!("cannot make the tables: {error}"))?;
        }
        let plan = self.plan(&broker, &server, folder.path())?;
        let prometheus = api::install_metrics()?;
        let listener = super::run::listen(&plan.http.listen)?;
        let engine = Engine::start(&plan, options(), Arc::new(SystemClock)).map_err(|error| error.to_string())?;
        let stats = engine.stats();
        let publish = observe::publisher(engine.busy());
        let watched = Watched {
            http: Arc::new(plan.http.clone()),
            pipelines: Arc::new(stats.clone()),
            desks: Arc::new(engine.desks()),
            prometheus,
            publish,
        };
        super::run::serve(listener, watched)?;
        eprintln!("metrics at http://{}/metrics; the pipeline:\n\n{}", plan.http.listen, self.scenario.config());
        let generator = Generator::start(
            GeneratorOptions {
                brokers: broker.address().to_owned(),
                scenario: self.scenario,
                seed: self.seed,
                events_per_second: self.events_per_sec,
                groups: plan.pipelines.iter().map(|pipeline| pipeline.kafka.group.clone()).collect(),
            },
            Arc::new(SystemClock),
        )
        .map_err(told)?;
        let truth = self.watch(generator, &stats, engine, &plan, &clickhouse, &signals)?;
        let proof = clickhouse.answers(Proof::ask(&clickhouse.client, self.scenario.result(), truth))?;
        proof.show(&mut std::io::stdout()).map_err(|error| error.to_string())?;
        Ok(proof.holds())
    }

    fn plan(&self, broker: &Broker, server: &Server, folder: &std::path::Path) -> Result<Plan, String> {
        let env = |name: &str| match name {
            "WEIR_DEMO_KAFKA" => Some(broker.address().to_owned()),
            "WEIR_DEMO_CLICKHOUSE" => Some(server.url().to_owned()),
            "WEIR_DEMO_STATE" => Some(folder.join("state").display().to_string()),
            "WEIR_DEMO_HTTP" => std::env::var(name).ok().or_else(free_address),
            _ => None,
        };
        let (plan, findings) = config::parse(self.scenario.config(), &env);
        plan.ok_or_else(|| Report::new("demo", self.scenario.config(), findings).text(false))
    }

    /// Shows the table until the time is over, or a signal says so, and everything produced is written.
    fn watch(
        &self,
        generator: Generator,
        stats: &[Arc<PipelineStats>],
        engine: Engine,
        plan: &Plan,
        clickhouse: &Asked,
        signals: &Signals,
    ) -> Result<GroundTruth, String> {
        let terminal = std::io::stdout().is_terminal();
        let mut table = LiveTable::new(std::io::stdout(), terminal);
        let began = Instant::now();
        let mut look = Look { began, before: (began, 0), aggregates: self.scenario.aggregates(), clickhouse };
        let every = if terminal { LOOK_EVERY } else { LINE_EVERY };
        while began.elapsed() < self.duration && !engine.has_ended() {
            if signals.wait(every.min(self.duration.saturating_sub(began.elapsed()))) {
                eprintln!("stopping: what is under way is written, then proven; a second signal exits at once");
                break;
            }
            let snapshot = look.snapshot(generator.truth(), stats, generator.is_waiting())?;
            table.show(&snapshot).map_err(|error| error.to_string())?;
        }
        let truth = generator.stop().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + REST_WAIT;
        while !engine.has_ended() && !is_taken(stats, truth) {
            if Instant::now() > deadline {
                return Err(format!("waited {} s for the last records to be written", REST_WAIT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // A clean stop writes what was taken; then what waits in windows comes out, as nothing more will come.
        engine.stop();
        let mut all = finish(engine)?;
        if joined(&all).is_some() {
            all.extend(close_windows(plan)?);
        }
        table.show(&look.snapshot(truth, &all, false)?).map_err(|error| error.to_string())?;
        Ok(truth)
    }
}

/// `weir run --until-end --close-windows`. The in-process Kafka would wait for the member that we were until its
/// session times out; a group that knows nothing yet goes on from the state as well.
fn close_windows(plan: &Plan) -> Result<Vec<Arc<PipelineStats>>, String> {
    let mut plan = plan.clone();
    plan.pipelines.iter_mut().for_each(|pipeline| pipeline.kafka.group.push_str("-end"));
    let options = RunOptions { until_end: true, close_windows: true, ..options() };
    finish(Engine::start(&plan, options, Arc::new(SystemClock)).map_err(|error| error.to_string())?)
}

/// Waits for the end of every pipeline; what they counted.
fn finish(engine: Engine) -> Result<Vec<Arc<PipelineStats>>, String> {
    let ended = engine.join().into_iter();
    ended.map(|outcome| outcome.result.map(|()| outcome.stats).map_err(|error| error.to_string())).collect()
}

fn options() -> RunOptions {
    RunOptions { describe_by_broker: Some(1), ..RunOptions::default() }
}

/// Everything that was produced has been processed, and the blocks before the last are in the table.
fn is_taken(stats: &[Arc<PipelineStats>], truth: GroundTruth) -> bool {
    let read: u64 = stats.iter().map(|stats| stats.records_read()).sum();
    let unsent: u64 = stats.iter().flat_map(|stats| stats.tasks().into_values()).map(|task| task.outbox_blocks).sum();
    read >= truth.records && unsent == 0
}

fn duplicates(stats: &PipelineStats) -> u64 {
    let dedups = stats.steps.iter().filter(|step| step.kind == StepKind::Dedup);
    dedups.map(|step| step.dropped.load(Relaxed)).sum()
}

/// What became of the left rows of all joins; `None` without one.
fn joined(stats: &[Arc<PipelineStats>]) -> Option<Joined> {
    let joins: Vec<_> =
        stats.iter().flat_map(|stats| &stats.steps).filter(|step| step.kind == StepKind::Join).collect();
    let sum = |number: fn(&StepStats) -> &AtomicU64| joins.iter().map(|step| number(step).load(Relaxed)).sum();
    // What is waiting is what the last of several runs of a pipeline says.
    let last: BTreeMap<&str, _> = stats.iter().map(|stats| (stats.pipeline.as_str(), stats)).collect();
    let tasks = last.values().flat_map(|stats| stats.tasks().into_values());
    let waiting = tasks.flat_map(|task| task.joins).map(|join| join.rows).sum();
    (!joins.is_empty()).then(|| Joined {
        matched: sum(|step| &step.left_matched),
        decided: sum(|step| &step.left_decided),
        waiting,
    })
}

/// ClickHouse, as the demo asks it.
struct Asked {
    client: clickhouse::Client,
    io: tokio::runtime::Runtime,
}

impl Asked {
    fn new(url: &str) -> Result<Asked, String> {
        let io = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = clickhouse::Client::default().with_url(url).with_user("default");
        Ok(Asked { client, io: io.map_err(|error| error.to_string())? })
    }

    fn execute(&self, statement: &str) -> Result<(), String> {
        self.io.block_on(self.client.query(statement).execute()).map_err(|error| error.to_string())
    }

    fn answers<T>(&self, question: impl Future<Output = crate::error::Result<T>>) -> Result<T, String> {
        self.io.block_on(question).map_err(|error| error.to_string())
    }
}

/// What the last look was compared with.
struct Look<'a> {
    began: Instant,
    before: (Instant, u64),
    /// The query of the aggregates, if the scenario has some.
    aggregates: Option<&'static str>,
    clickhouse: &'a Asked,
}

impl Look<'_> {
    fn snapshot(
        &mut self,
        truth: GroundTruth,
        stats: &[Arc<PipelineStats>],
        waiting: bool,
    ) -> Result<Snapshot, String> {
        let sum = |number: &dyn Fn(&PipelineStats) -> u64| stats.iter().map(|stats| number(stats)).sum::<u64>();
        let read = sum(&|stats| stats.records_read());
        let now = Instant::now();
        let seconds = now.duration_since(self.before.0).as_secs_f64().max(0.001);
        let records_per_second = (read - self.before.1) as f64 / seconds;
        self.before = (now, read);
        let latency = |share: f64| {
            let longest = stats.iter().map(|stats| stats.latency.quantile(share)).fold(0.0, f64::max);
            (longest > 0.0).then(|| Duration::from_secs_f64(longest))
        };
        let aggregates = match self.aggregates {
            Some(query) => self.clickhouse.answers(Aggregate::ask(&self.clickhouse.client, query))?,
            None => vec![],
        };
        Ok(Snapshot {
            elapsed: self.began.elapsed(),
            produced: truth.records,
            read,
            duplicates: sum(&duplicates),
            dead_letters: sum(&|stats| stats.dead_letters().values().sum()),
            joined: joined(stats),
            written: sum(&|stats| stats.rows_written.load(Relaxed)),
            lag: sum(&PipelineStats::lag_records),
            records_per_second,
            latency_p50: latency(0.5),
            latency_p99: latency(0.99),
            waiting,
            aggregates,
        })
    }
}

/// An address nobody listens on.
fn free_address() -> Option<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    Some(listener.local_addr().ok()?.to_string())
}
