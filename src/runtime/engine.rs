//! The whole process: workers, delivery, and one coordinator thread per pipeline.
//!
//! Owns every thread. A pipeline that cannot start or go on fails with its sentence; the others run. Nothing here
//! is on the path of a record.

use crate::clock::Clock;
use crate::config::plan::{PipelinePlan, Plan};
use crate::error::Error;
use crate::metrics::PipelineStats;
use crate::runtime::compile;
use crate::runtime::delivery::Delivery;
use crate::runtime::desk::Desk;
use crate::runtime::inspect;
use crate::runtime::memory::SharedMemory;
use crate::runtime::pipeline::{self, Stop};
use crate::runtime::task::Gate;
use crate::runtime::worker::{self, ToWorker, WorkerHandle};
use crate::state::rocks::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;

const DELIVERY_THREAD: &str = "weir-delivery-io";

/// How the process runs.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Process up to the ends noted at start, then leave.
    pub until_end: bool,
    /// With `until_end`: what waits in windows comes out first.
    pub close_windows: bool,
    /// The broker to ask for topic ids (librdkafka's mock cluster answers only by number).
    pub describe_by_broker: Option<i32>,
}

/// What all pipelines of the process share.
pub struct Process {
    pub clock: Arc<dyn Clock>,
    pub workers: Vec<WorkerHandle>,
    pub delivery: Delivery,
    pub tokio: tokio::runtime::Handle,
    pub rocks: Shared,
    pub memory_limit_bytes: u64,
    pub pipelines: u64,
    /// Those whose rows of a record cannot be told from another one's.
    pub sharing: BTreeSet<String>,
    /// By pipeline: see [`inspect::intervals_beside`].
    pub beside_ms: BTreeMap<String, Vec<u64>>,
    pub options: RunOptions,
    /// By server and table: what may already be in a table goes before what is new, whichever pipeline's it is.
    pub gates: Mutex<BTreeMap<String, Arc<Gate>>>,
}

impl Process {
    /// The gate of a table.
    pub fn gate(&self, table: String) -> Arc<Gate> {
        self.gates.lock().expect("nothing panics while it is held").entry(table).or_default().clone()
    }
}

/// A pipeline with its thread.
struct Running {
    stats: Arc<PipelineStats>,
    desk: Arc<Desk>,
    thread: JoinHandle<Result<(), Error>>,
}

pub struct Engine {
    running: Vec<Running>,
    stop: Stop,
    workers: Vec<(WorkerHandle, JoinHandle<()>)>,
    // Last: delivery runs on it until the workers are gone.
    _tokio: tokio::runtime::Runtime,
}

/// How a pipeline ended.
pub struct Outcome {
    pub stats: Arc<PipelineStats>,
    pub result: Result<(), Error>,
}

impl Engine {
    /// Starts every pipeline of the plan.
    pub fn start(plan: &Plan, options: RunOptions, clock: Arc<dyn Clock>) -> std::io::Result<Engine> {
        end_on_panic();
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(DELIVERY_THREAD)
            .enable_all()
            .build()?;
        let delivery = Delivery::start(tokio.handle().clone(), clock.clone());
        let workers: Vec<_> =
            (0..plan.runtime.workers).map(|number| worker::start(number, clock.clone(), delivery.clone())).collect();
        let limit = plan.runtime.memory_limit_bytes;
        let shared = SharedMemory::of(limit);
        tracing::info!("memory: {shared}, and what the pipelines say, within the limit of {} MiB", limit >> 20);
        let process = Arc::new(Process {
            clock,
            workers: workers.iter().map(|(handle, _)| handle.clone()).collect(),
            delivery,
            tokio: tokio.handle().clone(),
            rocks: Shared::new(shared.block_cache_bytes as usize, shared.write_buffer_bytes as usize),
            memory_limit_bytes: limit,
            pipelines: plan.pipelines.len() as u64,
            sharing: sharing(&plan.pipelines),
            beside_ms: beside_ms(&plan.pipelines),
            options,
            gates: Mutex::default(),
        });
        metrics::gauge!("weir_memory_limit_bytes").set(limit as f64);
        let stop: Stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for (place, pipeline) in plan.pipelines.iter().enumerate() {
            let stats = stats_of(pipeline);
            let (process, stop, thread_stats) = (process.clone(), stop.clone(), stats.clone());
            let desk = Arc::new(Desk::new(pipeline.clone()));
            let thread_desk = desk.clone();
            let (state, pipeline) = (plan.state.clone(), pipeline.clone());
            let thread = std::thread::Builder::new()
                .name(format!("weir-{}", pipeline.name))
                .spawn(move || pipeline::run(place, pipeline, &state, &process, thread_stats, &thread_desk, &stop))?;
            running.push(Running { stats, desk, thread });
        }
        Ok(Engine { running, stop, workers, _tokio: tokio })
    }

    pub fn stats(&self) -> Vec<Arc<PipelineStats>> {
        self.running.iter().map(|running| running.stats.clone()).collect()
    }

    /// What others may look at of each pipeline.
    pub fn desks(&self) -> Vec<Arc<Desk>> {
        self.running.iter().map(|running| running.desk.clone()).collect()
    }

    /// Asks every pipeline to seal, deliver, commit and end.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether every pipeline has ended.
    pub fn has_ended(&self) -> bool {
        self.running.iter().all(|running| running.thread.is_finished())
    }

    /// Nanoseconds each worker has been busy.
    pub fn busy(&self) -> Vec<Arc<AtomicU64>> {
        self.workers.iter().map(|(handle, _)| handle.busy_ns.clone()).collect()
    }

    /// Waits for every pipeline, then ends the workers.
    pub fn join(self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for Running { stats, thread, .. } in self.running {
            let result = thread.join().expect("a pipeline's panic is its error");
            outcomes.push(Outcome { stats, result });
        }
        for (handle, thread) in self.workers {
            handle.send(ToWorker::Stop);
            let _ = thread.join();
        }
        outcomes
    }
}

/// A worker or a delivery that panics ends the process: nobody can say what its memory is worth now, its tasks would stand
/// still in silence, and what is on the disk is whole. A restart goes on from there.
fn end_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if name.starts_with(worker::THREAD_PREFIX) || name == DELIVERY_THREAD {
                tracing::error!(
                    thread = name,
                    "weir ends: {panic}. Please report this; a restart goes on from the disk"
                );
                // SAFETY: ends the process at once, without the destructors of a process that is in disorder.
                unsafe { libc::_exit(1) }
            }
        }));
    });
}

/// The pipelines that write into the table of another one, and read a topic of its: by topic, partition and offset their
/// rows look the same. Names alone decide: one server has many addresses.
fn sharing(pipelines: &[PipelinePlan]) -> BTreeSet<String> {
    let reads = |plan: &PipelinePlan, topic: &str| plan.topics.iter().any(|other| other.name == topic);
    let is_shared = |plan: &&PipelinePlan| {
        pipelines.iter().any(|other| {
            other.name != plan.name
                && pipeline::table_name(other) == pipeline::table_name(plan)
                && other.topics.iter().any(|topic| reads(plan, &topic.name))
        })
    };
    pipelines.iter().filter(is_shared).map(|plan| plan.name.clone()).collect()
}

fn beside_ms(pipelines: &[PipelinePlan]) -> BTreeMap<String, Vec<u64>> {
    pipelines.iter().map(|plan| (plan.name.clone(), inspect::intervals_beside(pipelines, plan))).collect()
}

fn stats_of(plan: &PipelinePlan) -> Arc<PipelineStats> {
    let topics: Vec<String> = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    PipelineStats::new(&plan.name, &pipeline::table_name(plan), &topics, &compile::step_names(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_share_a_table_when_they_write_rows_of_the_same_topic_into_it() {
        let pipeline = |name: &str, topic: &str, table: &str| {
            format!(
                "  - name: {name}\n    source: {{ kafka: {{ topic: {topic} }} }}\n    \
                 sink: {{ clickhouse: {{ table: {table} }} }}\n"
            )
        };
        let text = [
            "version: 1\nkafka: { brokers: [\"k:1\"] }\nclickhouse: { url: \"http://c:1\" }\npipelines:\n".to_owned(),
            pipeline("one", "orders", "all"),
            pipeline("two", "orders", "all"),
            pipeline("three", "offers", "all"),
            pipeline("four", "orders", "other"),
        ];
        let (plan, findings) = crate::config::parse(&text.concat(), &|_| None);
        let plan = plan.unwrap_or_else(|| panic!("{findings:?}"));
        assert_eq!(sharing(&plan.pipelines), ["one".to_owned(), "two".to_owned()].into());
        let beside: Vec<usize> = beside_ms(&plan.pipelines).into_values().map(|beside| beside.len()).collect();
        assert_eq!(beside, [0, 2, 2, 2], "four, one, three, two");
    }
}
