//! `weir run`: every pipeline of the file, in the foreground, until it is told to stop or has reached the end.

use super::signals::Signals;
use super::{Format, Global, colour, print};
use crate::api::{self, Watched, summary};
use crate::clock::SystemClock;
use crate::config::plan::Plan;
use crate::metrics::PipelineStats;
use crate::runtime::engine::{Engine, Outcome, RunOptions};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Run every pipeline of the file
#[derive(clap::Args)]
pub struct Run {
    /// Process up to the ends that the topics have now, deliver all, commit, leave, and print a summary
    #[arg(long)]
    until_end: bool,

    /// With --until-end: what waits in windows comes out first
    #[arg(long, requires = "until_end")]
    close_windows: bool,

    /// Only this pipeline; may be given several times
    #[arg(long, value_name = "NAME")]
    pipeline: Vec<String>,

    /// How the summary of --until-end is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Run {
    pub fn run(self, global: &Global) -> ExitCode {
        let (report, plan) = super::check::judged(global);
        eprint!("{}", report.text(colour(&std::io::stderr())));
        let Some(mut plan) = plan.filter(|_| !report.has_errors()) else {
            return ExitCode::FAILURE;
        };
        if let Err(unknown) = pick(&mut plan, &self.pipeline) {
            eprintln!("error: {unknown}");
            return ExitCode::FAILURE;
        }
        match self.go(&plan) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn go(&self, plan: &Plan) -> Result<ExitCode, String> {
        let prometheus = api::install_metrics()?;
        let signals = Signals::listen()?;
        // Before anything is touched: a taken port is often another weir on the same state.
        let listener = listen(&plan.http.listen)?;
        let options =
            RunOptions { until_end: self.until_end, close_windows: self.close_windows, ..RunOptions::default() };
        let began = Instant::now();
        let engine = Engine::start(plan, options, Arc::new(SystemClock)).map_err(|error| error.to_string())?;
        let stats = engine.stats();
        let pipelines = Arc::new(stats.clone());
        let watched = Watched {
            http: Arc::new(plan.http.clone()),
            pipelines,
            desks: Arc::new(engine.desks()),
            prometheus,
            publish: super::observe::publisher(engine.busy()),
        };
        serve(listener, watched)?;
        while !engine.has_ended() {
            if signals.wait(Duration::from_millis(50)) {
                tracing::info!("stopping: seal, deliver, commit; a second signal exits at once");
                engine.stop();
            }
        }
        let outcomes = engine.join();
        if self.until_end {
            self.summarize(&stats, began.elapsed());
        }
        Ok(exit_code(&outcomes))
    }

    fn summarize(&self, stats: &[Arc<PipelineStats>], took: Duration) {
        match self.format {
            Format::Text => eprint!("{}", summary_table(stats, took)),
            Format::Json => {
                let seconds = took.as_secs_f64();
                let objects: Vec<_> = stats.iter().map(|stats| summary::pipeline_object(stats, seconds)).collect();
                print(&format!("{}\n", serde_json::json!({ "pipelines": objects })));
            }
        }
    }
}

/// Keeps only the pipelines that were asked for.
pub(super) fn pick(plan: &mut Plan, names: &[String]) -> Result<(), String> {
    if let Some(unknown) = names.iter().find(|name| plan.pipelines.iter().all(|pipeline| pipeline.name != **name)) {
        let known: Vec<&str> = plan.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        return Err(format!("there is no pipeline `{unknown}` in the file; it has: {}", known.join(", ")));
    }
    if !names.is_empty() {
        plan.pipelines.retain(|pipeline| names.contains(&pipeline.name));
    }
    Ok(())
}

fn exit_code(outcomes: &[Outcome]) -> ExitCode {
    match outcomes.iter().any(|outcome| outcome.result.is_err()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Takes the address of `http.listen`.
pub(super) fn listen(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| format!("cannot listen on {address} (http.listen): {error}"))
}

/// Answers there until the process ends.
pub(super) fn serve(listener: TcpListener, watched: Watched) -> Result<(), String> {
    let serving = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            runtime.block_on(async { api::serve(tokio::net::TcpListener::from_std(listener)?, watched).await })
        });
        if let Err(error) = served {
            tracing::error!("the HTTP side has ended: {error}");
        }
    };
    std::thread::Builder::new().name("weir-http".into()).spawn(serving).map_err(|error| error.to_string())?;
    Ok(())
}

/// One line a pipeline.
fn summary_table(stats: &[Arc<PipelineStats>], took: Duration) -> String {
    let mut text = format!(
        "{:<28} {:>10} {:>12} {:>12} {:>12} {:>8} {:>10}\n",
        "pipeline", "state", "read", "duplicates", "written", "dead", "read/s"
    );
    for stats in stats {
        let duplicates: u64 = stats
            .steps
            .iter()
            .filter(|step| step.kind == crate::metrics::StepKind::Dedup)
            .map(|step| step.dropped.load(Relaxed))
            .sum();
        text += &format!(
            "{:<28} {:>10} {:>12} {:>12} {:>12} {:>8} {:>10.0}\n",
            stats.pipeline,
            stats.state().name(),
            stats.records_read(),
            duplicates,
            stats.rows_written.load(Relaxed),
            stats.dead_letters().values().sum::<u64>(),
            stats.records_read() as f64 / took.as_secs_f64().max(0.001),
        );
    }
    text
}
