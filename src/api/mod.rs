//! The HTTP side of a running process: health, readiness, metrics, dead letters, the outbox, the ledger.
//!
//! Owns the listener and nothing else; every number comes from the pipelines' stats or their state when it is asked
//! for.

mod door;
pub mod guard;
mod ledger;
pub mod letters;
mod outbox;
pub mod problem;
pub mod summary;

use crate::config::plan::HttpPlan;
use crate::metrics::{PipelineState, PipelineStats};
use crate::runtime::desk::Desk;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use door::Door;
use guard::MayProbe;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use problem::Problem;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a call may send.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How often the samples of histograms are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the handlers see.
#[derive(Clone)]
pub struct Watched {
    pub http: Arc<HttpPlan>,
    pub pipelines: Arc<Vec<Arc<PipelineStats>>>,
    pub desks: Arc<Vec<Arc<Desk>>>,
    pub prometheus: PrometheusHandle,
    /// Called before a scrape: numbers that no pipeline has.
    pub publish: Arc<dyn Fn() + Send + Sync>,
}

/// Installs the process's recorder. Called once, before the first metric is made.
pub fn install_metrics() -> Result<PrometheusHandle, String> {
    let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    let rows = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0, 500_000.0, 1_000_000.0];
    let builder = PrometheusBuilder::new()
        .set_buckets(&seconds)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full("weir_block_rows".into()), &rows))
        .map_err(|error| error.to_string())?;
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    describe();
    Ok(handle)
}

/// Serves until the process ends.
pub async fn serve(listener: tokio::net::TcpListener, watched: Watched) -> std::io::Result<()> {
    let prometheus = watched.prometheus.clone();
    let calls = letters::routes().merge(outbox::routes()).merge(ledger::routes());
    let app = Router::new()
        .route("/healthz", get(async |_: MayProbe| "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .merge(calls.layer(map_response(problem::told_as_one)))
        .fallback(async |uri: Uri| Problem::new(404, format!("there is nothing at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::new(405, format!("{} does not take {method}", uri.path()))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(watched);
    tokio::spawn(async move {
        // The recorder keeps every sample of a histogram until it is asked; nobody may ever scrape.
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            prometheus.run_upkeep();
        }
    });
    // Only a tapped listener of our own says who calls.
    let door = Door::new(listener).tap_io(|_| ());
    axum::serve(door, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Ready: every pipeline is assigned and none restores.
async fn ready(MayProbe(watched): MayProbe) -> impl IntoResponse {
    let not_ready: Vec<String> = watched
        .pipelines
        .iter()
        .filter(|stats| stats.state() != PipelineState::Running)
        .map(|stats| {
            let why = stats.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            format!("{} is {}{why}\n", stats.pipeline, stats.state().name())
        })
        .collect();
    match not_ready.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, not_ready.concat()),
    }
}

async fn scrape(MayProbe(watched): MayProbe) -> impl IntoResponse {
    watched.pipelines.iter().for_each(|stats| stats.publish());
    (watched.publish)();
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], watched.prometheus.render())
}

fn desk(watched: &Watched, name: &str) -> Result<Arc<Desk>, Problem> {
    let found = watched.desks.iter().find(|desk| desk.plan.name == name);
    found.cloned().ok_or_else(|| Problem::new(404, format!("there is no pipeline `{name}`")))
}

fn at_rest(desk: &Desk) -> Problem {
    Problem::new(503, format!("pipeline `{}` does not run: its state is not open", desk.plan.name))
}

fn json_response(object: &Value) -> Response {
    ([("content-type", "application/json")], format!("{object}\n")).into_response()
}

/// The state is read from the disk, and the one thread of the HTTP side must not wait for it.
async fn on_disk(work: impl FnOnce() -> Result<Response, Problem> + Send + 'static) -> Result<Response, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Problem::new(500, "the answer could not be made")))
}

/// Names and help texts: stable from the first release.
fn describe() {
    const COUNTERS: &[(&str, &str)] = &[
        ("weir_records_read_total", "Records taken from Kafka"),
        ("weir_bytes_read_total", "Bytes of keys, values and headers taken from Kafka"),
        ("weir_extra_fields_total", "Top-level fields of payloads that no step and no column names: ignored"),
        ("weir_rows_written_total", "Rows acknowledged by the table"),
        ("weir_rows_duplicate_total", "Rows that a dedup step dropped"),
        ("weir_rows_filtered_total", "Rows that a filter step dropped"),
        (
            "weir_rows_late_total",
            "Rows that came too late to be judged by a step, or to meet all their partners in a join",
        ),
        ("weir_join_rows_total", "Pairs of a join, rows it sent alone, rows it dropped"),
        ("weir_dead_letters_total", "Records that could not be processed"),
        ("weir_blocks_sealed_total", "Blocks sealed, by what ended the batch"),
        ("weir_blocks_acknowledged_total", "Blocks acknowledged by their table"),
        ("weir_blocks_discarded_total", "Blocks taken out of the outbox by hand: the table never takes them"),
        ("weir_insert_retries_total", "Attempts to insert that failed, by error code"),
        ("weir_commits_total", "Offset commits, by their result"),
        ("weir_rebalances_total", "Assignments received from the group"),
        ("weir_recoveries_total", "How tasks began, by the case"),
        ("weir_demo_records_produced_total", "Records that the demo generator produced"),
    ];
    const GAUGES: &[(&str, &str)] = &[
        ("weir_lag_records", "Records between what was processed and the readable end of the partition"),
        ("weir_watermark_timestamp_seconds", "The task's watermark"),
        ("weir_outbox_blocks", "Blocks stored and not yet acknowledged"),
        ("weir_outbox_bytes", "Bytes of blocks stored and not yet acknowledged"),
        ("weir_state_bytes", "Bytes of state on disk, by column family"),
        ("weir_state_keys_estimate", "Keys in the state of a step, about"),
        ("weir_topic_partitioner_info", "How the keys of a topic of a join came to their partitions: 1"),
        ("weir_scattered_keys", "1 once the same key of a dedup step has come through two partitions (by a sample)"),
        ("weir_join_doubts", "What speaks against the way the topics of a join lie: 1"),
        ("weir_join_waiting_rows", "Rows that wait in a join"),
        ("weir_join_oldest_waiting_timestamp_seconds", "Event time of the oldest row that waits in a join, or earlier"),
        ("weir_pipeline_up", "1 for the state that the pipeline is in"),
        ("weir_worker_busy_ratio", "Share of the time since the last scrape that the worker was busy"),
        ("weir_memory_limit_bytes", "runtime.memory_limit"),
        ("weir_build_info", "1; what this binary is"),
    ];
    const HISTOGRAMS: &[(&str, &str)] = &[
        ("weir_block_rows", "Rows per block"),
        ("weir_insert_seconds", "Time of an acknowledged insert"),
        ("weir_store_seconds", "Time of a synced write of the state"),
        ("weir_latency_seconds", "From a record's timestamp until its row was acknowledged"),
        (
            "weir_processing_seconds",
            "Per batch of records: from leaving the client's queue until its rows are in the block builder, plus that block's encode and store",
        ),
    ];
    COUNTERS.iter().for_each(|(name, help)| metrics::describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| metrics::describe_gauge!(*name, *help));
    HISTOGRAMS.iter().for_each(|(name, help)| metrics::describe_histogram!(*name, *help));
}

#[cfg(test)]
mod tests;
