//! One pipeline from its plan to its end, on its coordinator's thread.
//!
//! Owns the order of a start: state directory, table, topics, memory, then the group. Promises: what only the
//! connection shows is told in a sentence before anything is read; a corrupt state directory is set aside, never
//! repaired; a fatal client error starts the pipeline anew, as after a crash.

mod directory;
mod sinks;
mod tasks;

use crate::config::plan::{DeadLettersPlan, FollowOr, HaltOr, PipelinePlan, SinkPlan, StatePlan, UnclearChoice};
use crate::error::{Error, Kind, Result};
use crate::metrics::{PipelineState, PipelineStats};
use crate::runtime::chain::percent_escaped;
use crate::runtime::compile::{self, Blueprint};
use crate::runtime::coordinator::{Coordinator, GroupTimes, Progress};
use crate::runtime::copartition;
use crate::runtime::desk::Desk;
use crate::runtime::engine::Process;
use crate::runtime::memory::{self, PipelineMemory};
use crate::runtime::opening::{Opening, OpeningSettings, need_equal_counts, show_state_bytes};
use crate::runtime::recovery::Policy;
use crate::runtime::task::{FromTask, TaskId, TaskSettings};
use crate::runtime::worker::{PipelineContext, ToWorker};
use crate::source::kafka::{KafkaGroup, MemberOptions, session_timeout_ms};
use crate::source::{Group, TopicInfo};
use crate::state::StateStore;
use crate::state::buffer::SegmentSize;
use crate::state::ledger;
use crate::state::letters::Letters;
use crossbeam_channel::bounded;
use directory::{open_store, path_of, start_without};
use sinks::connect_sink;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tasks::{Factory, PinnedWorkers, expression_error, way_to_tasks};

/// Set when the process is to end.
pub type Stop = Arc<AtomicBool>;

/// How long the coordinator waits for the group's next event when nothing else is to be done.
const POLL_WAIT: Duration = Duration::from_millis(5);
/// Messages from tasks to their coordinator: each has few under way.
const MESSAGES_MAX: usize = 1 << 16;
/// How long a worker may take to let go of a pipeline: one batch, one store.
const FORGET_WAIT: Duration = Duration::from_secs(30);
/// How long to wait before a lost connection at start is tried again.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// Runs a pipeline until it is stopped, finished, or cannot go on.
pub fn run(
    place: usize,
    plan: PipelinePlan,
    state: &StatePlan,
    process: &Process,
    stats: Arc<PipelineStats>,
    desk: &Desk,
    stop: &Stop,
) -> Result<()> {
    let mut fenced_at_ms = None;
    let mut was_set_aside = false;
    loop {
        let once = || run_once(place, &plan, state, process, &stats, desk, stop);
        // Nothing of the run is used again; the others of the process go on.
        let result = std::panic::catch_unwind(AssertUnwindSafe(once)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        forget(place, process);
        match result {
            // Damage that only a read has met: as if the directory had not opened. Once: if what was made in its
            // place is damaged, too, the disk is, and going on would fill it with directories set aside.
            Err(error) if error.code == "corrupt" && !plan.strict && !was_set_aside => {
                was_set_aside = true;
                start_without(&path_of(&plan, state), &plan, process, &stats, &error)
                    .map_err(|error| failed(&plan, &stats, error))?;
                stats.set_state(PipelineState::Starting);
            }
            Err(error) if error.kind != Kind::Stop && !stop.load(Relaxed) => {
                let now_ms = process.clock.boot_ms();
                let fenced = error.kind == Kind::Fenced;
                if fenced
                    && fenced_at_ms.replace(now_ms).is_some_and(|at| now_ms - at < session_timeout_ms(&plan.kafka))
                {
                    return Err(twin(&plan, &stats, &error));
                }
                tracing::warn!(pipeline = plan.name, code = error.code, "{error}; starting anew, as after a crash");
                stats.failed_with(error.message);
                stats.set_state(PipelineState::Starting);
                std::thread::sleep(CONNECT_AGAIN);
            }
            Err(error) => return Err(failed(&plan, &stats, error)),
            Ok(()) => return Ok(()),
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("without a word");
    Error::stop("panic", format!("the pipeline's own thread panicked: {text}. Please report this"))
}

/// The pipeline's end, said to everybody.
fn failed(plan: &PipelinePlan, stats: &PipelineStats, error: Error) -> Error {
    tracing::error!(pipeline = plan.name, code = error.code, "{error}");
    stats.failed_with(error.message.clone());
    stats.set_state(PipelineState::Failed);
    error
}

/// Fenced again and again: somebody else is us.
fn twin(plan: &PipelinePlan, stats: &PipelineStats, error: &Error) -> Error {
    let message = format!(
        "another process uses this pipeline's identity in group `{}` (a copied state directory?): give it a directory \
         of its own. {error}",
        plan.kafka.group
    );
    failed(plan, stats, Error::stop("fenced", message))
}

/// Waits until no worker holds anything of the pipeline any more. Whoever takes longer, or is no worker (an answer that
/// is being read), still holds the directory: the next run waits for that when it opens it.
fn forget(place: usize, process: &Process) {
    let (told, done) = bounded(process.workers.len());
    process.workers.iter().for_each(|worker| worker.send(ToWorker::Forget(place, told.clone())));
    // Ours goes, or a worker that is gone, and holds nothing, would be waited for.
    drop(told);
    for _ in &process.workers {
        let _ = done.recv_timeout(FORGET_WAIT);
    }
}

fn run_once(
    place: usize,
    plan: &PipelinePlan,
    state: &StatePlan,
    process: &Process,
    stats: &Arc<PipelineStats>,
    desk: &Desk,
    stop: &Stop,
) -> Result<()> {
    // Partitions of the run before may be somebody else's by now: none of them lags or restores any more.
    stats.forget_tasks();
    let Some(store) = until_reached(stop, plan, stats, || open_store(plan, state, process, stats))? else {
        return Ok(());
    };
    let store = Arc::new(store);
    show_state_bytes(&*store, stats);
    ledger::clear_retired(&*store)?;
    let identity = ledger::identity(&*store, &plan.name, random_bytes::<32>)?;
    if identity.pipeline != plan.name {
        return Err(Error::stop(
            "foreign",
            format!(
                "the state directory belongs to pipeline `{}`, not to `{}`: give each its own",
                identity.pipeline, plan.name
            ),
        ));
    }
    let instance_id = plan.kafka.instance_id.clone().unwrap_or(identity.instance_id);
    let topics: Vec<String> = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    let open_group = |queue_bytes: u64| {
        KafkaGroup::open(MemberOptions {
            kafka: &plan.kafka,
            instance_id: Some(&instance_id),
            topics: &topics,
            queued_bytes_per_partition: queue_bytes,
            with_headers: true,
            describe_by_broker: process.options.describe_by_broker,
        })
    };
    // How many partitions there are decides how much each may hold, so the question comes first.
    let first = until_reached(stop, plan, stats, || {
        let mut asking = open_group(1 << 20)?;
        let mut infos = asking.topics()?;
        need_equal_counts(&infos).map_err(|error| match error.code.as_str() {
            // It was there: about to be made anew, perhaps.
            "missing_topic" if stats.rebalances.load(Relaxed) > 0 => Error::retry("topic_gone", error.message),
            _ => error,
        })?;
        Ok(infos.swap_remove(0))
    })?;
    let Some(first) = first else { return Ok(()) };
    let partitions = first.partitions;
    if has_grown_meanwhile(plan, &*store, &first)? {
        outlive_former_session(plan, process, stats, stop);
    }
    let memory = memory::divide(
        process.memory_limit_bytes,
        process.pipelines,
        partitions as u64,
        topics.len() as u64,
        compile::join_sides(plan),
        batch_bytes(plan),
        process.workers.len() as u64,
    )?;
    tracing::info!(pipeline = plan.name, "memory: {memory}");
    look_at_joins(plan, partitions, process, stats);
    let Some(sink) = until_reached(stop, plan, stats, || connect_sink(plan, process, partitions))? else {
        return Ok(());
    };
    let letters = Arc::new(Letters::open(store.clone(), local_letters_max(plan))?);
    desk.open(&store, &letters, way_to_tasks(place, &process.workers));
    let blueprint =
        Blueprint::new(plan.clone(), identity.seed, memory.task.filter_bytes as usize, sink.make_builder.clone());
    let state_hash = blueprint.state_hash().map_err(|findings| expression_error(&findings))?;
    let factory = Arc::new(Factory {
        blueprint,
        place,
        workers: process.workers.clone(),
        target: sink.sinks.rows_target.clone(),
        letters,
        letter_sink: sink.letters,
        stats: stats.clone(),
        store: store.clone(),
        segment: SegmentSize::within(memory.task.side_bytes as usize),
    });
    let mut group = open_group(memory.task.queue_bytes)?;
    let ends = match process.options.until_end {
        true => {
            let noted = until_reached(stop, plan, stats, || note_ends(&mut group, topics.len(), partitions))?;
            let Some(noted) = noted else { return Ok(()) };
            Some(noted)
        }
        false => None,
    };
    let (to_coordinator, messages) = bounded(MESSAGES_MAX);
    let context = PipelineContext {
        settings: Arc::new(task_settings(plan, &memory, process, sink.window_ms)),
        stats: stats.clone(),
        store: store.clone(),
        sinks: sink.sinks,
        coordinator: to_coordinator,
    };
    for worker in &process.workers {
        worker.send(ToWorker::Pipeline(place, Box::new(context.clone())));
    }
    let session_timeout_ms = session_timeout_ms(&plan.kafka);
    let opening = Opening::new(
        opening_settings(place, plan, state_hash, session_timeout_ms, ends),
        store,
        factory,
        process.clock.clone(),
        stats.clone(),
        Box::new(random_bytes::<16>),
        state.retain_left_ms,
    );
    let mut coordinator = Coordinator::new(Box::new(group), opening, stats.clone(), GroupTimes { session_timeout_ms });
    coordinator.join()?;
    let ended = coordinate(place, coordinator, messages, process, stop);
    show_state_bytes(&*context.store, stats);
    ended
}

/// Whether the first topic has partitions that nobody had when a task of this directory last began, and that are to
/// be read.
fn has_grown_meanwhile(plan: &PipelinePlan, store: &dyn StateStore, first: &TopicInfo) -> Result<bool> {
    let Some(before) = ledger::partitions_seen(store)? else { return Ok(false) };
    // That is said when the partitions are assigned.
    let halts =
        before.topic == first.id && plan.on_partition_growth == HaltOr::Halt && compile::reach_ms(plan).is_some();
    Ok(first.partitions > before.partitions && !halts)
}

/// Waits until the group has given up the member that we were. One that comes back in time is handed its old
/// assignment without a look at the topic, and new partitions would be nobody's until the next rebalance.
fn outlive_former_session(plan: &PipelinePlan, process: &Process, stats: &PipelineStats, stop: &Stop) {
    let wait_ms = session_timeout_ms(&plan.kafka) + CONNECT_AGAIN.as_millis() as u64;
    let why = "the topic has got partitions while we were away: waiting for our former session to end, so that the \
               group shares them out";
    tracing::warn!(pipeline = plan.name, wait_ms, "{why}");
    stats.failed_with(why.to_owned());
    let until_ms = process.clock.boot_ms() + wait_ms;
    while process.clock.boot_ms() < until_ms && !stop.load(Relaxed) {
        std::thread::sleep(POLL_WAIT);
    }
    stats.forget_error();
}

/// The coordinator's loop.
fn coordinate(
    place: usize,
    mut coordinator: Coordinator,
    messages: crossbeam_channel::Receiver<(TaskId, FromTask)>,
    process: &Process,
    stop: &Stop,
) -> Result<()> {
    let mut workers = PinnedWorkers { place, workers: process.workers.clone() };
    let mut stopping = false;
    loop {
        if stop.load(Relaxed) && !stopping {
            stopping = true;
            coordinator.stop(&mut workers, process.clock.boot_ms());
        }
        let heard: Vec<_> = messages.try_iter().collect();
        let wait = if heard.is_empty() { POLL_WAIT } else { Duration::ZERO };
        coordinator.tick(heard, &mut workers, process.clock.boot_ms(), wait);
        match coordinator.progress() {
            Progress::Going => {}
            Progress::Done => return Ok(()),
            Progress::Failed(error) => return Err(error.clone()),
        }
    }
}

/// Tries until what is asked for is reached; `None` when the process is to end.
fn until_reached<T>(
    stop: &Stop,
    plan: &PipelinePlan,
    stats: &PipelineStats,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let mut told = false;
    while !stop.load(Relaxed) {
        match ask() {
            Ok(answer) => {
                if told {
                    stats.forget_error();
                }
                return Ok(Some(answer));
            }
            Err(error) if error.kind == Kind::Retry => {
                // Whoever asks whether we are ready is told why not.
                stats.failed_with(error.message.clone());
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(pipeline = plan.name, code = error.code, "{error}; trying again");
                }
                std::thread::sleep(CONNECT_AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// `<database>/<table>` as a token ends.
fn target(database: &str, table: &str) -> String {
    format!("{}/{}", percent_escaped(database), percent_escaped(table))
}

/// How the tokens of the sink's rows end.
pub fn rows_target(plan: &PipelinePlan) -> String {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    target(&sink.connection.database, &sink.table)
}

/// The table as metrics name it.
pub fn table_name(plan: &PipelinePlan) -> String {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    format!("{}.{}", sink.connection.database, sink.table)
}

fn batch_bytes(plan: &PipelinePlan) -> u64 {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    sink.batch.bytes
}

fn local_letters_max(plan: &PipelinePlan) -> u64 {
    match plan.dead_letters {
        DeadLettersPlan::Local { bytes_max } => bytes_max,
        _ => 1 << 30,
    }
}

fn note_ends(group: &mut dyn Group, topics: usize, partitions: i32) -> Result<BTreeMap<i32, Vec<i64>>> {
    let mut ends = BTreeMap::new();
    for partition in 0..partitions {
        let mut of_topics = Vec::new();
        for topic in 0..topics {
            of_topics.push(group.log_range(topic, partition)?.1);
        }
        ends.insert(partition, of_topics);
    }
    Ok(ends)
}

/// Says what speaks against the way the topics of joins lie; beside the start, which does not wait for it.
fn look_at_joins(plan: &PipelinePlan, partitions: i32, process: &Process, stats: &Arc<PipelineStats>) {
    let places = compile::join_places(plan);
    if places.is_empty() {
        return;
    }
    let (plan, stats, by_broker) = (plan.clone(), stats.clone(), process.options.describe_by_broker);
    let look = move || {
        let Ok(seen) = copartition::look(&plan, partitions, by_broker) else { return };
        for (topic, partitioner) in plan.topics.iter().zip(seen.partitioners) {
            partitioner.iter().for_each(|partitioner| stats.set_partitioner(&topic.name, partitioner.name()));
        }
        for doubt in seen.doubts {
            tracing::warn!(pipeline = plan.name, step = places[doubt.join], "{}: {}", doubt.message, doubt.help);
            stats.doubt_join(places[doubt.join], doubt.code, doubt.message);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("weir-joins".to_owned()).spawn(look) {
        tracing::debug!("joins are not looked at: {error}");
    }
}

fn task_settings(plan: &PipelinePlan, memory: &PipelineMemory, process: &Process, window_ms: i64) -> TaskSettings {
    let options = &process.options;
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    let mut batch = sink.batch;
    batch.bytes = batch.bytes.min(memory.task.block_bytes);
    TaskSettings {
        pipeline: plan.name.clone(),
        batch,
        idle_after_ms: compile::roles(plan).idle_after_ms,
        outbox_bytes_max: memory.task.outbox_bytes,
        state_bytes_max: memory.task.state_bytes as usize,
        letter_bytes_max: memory.task.letter_bytes as usize,
        stops_on_failure: options.until_end,
        closes_windows: options.close_windows,
        gate: process.gate(format!("{}/{}", sink.connection.urls.join(","), rows_target(plan))),
        window_ms,
        resend_unclear: plan.on_unclear == UnclearChoice::Resend,
        strict: plan.strict,
    }
}

fn opening_settings(
    place: usize,
    plan: &PipelinePlan,
    state_hash: u64,
    session_timeout_ms: u64,
    ends: Option<BTreeMap<i32, Vec<i64>>>,
) -> OpeningSettings {
    OpeningSettings {
        pipeline: place,
        name: plan.name.clone(),
        topics: plan.topics.iter().map(|topic| (topic.name.clone(), topic.start)).collect(),
        plan: state_hash,
        policy: Policy {
            halt_on_reset: plan.on_offset_reset == FollowOr::Halt,
            halt_on_gap: plan.on_gap == HaltOr::Halt,
            strict: plan.strict,
        },
        halt_on_growth: plan.on_partition_growth == HaltOr::Halt,
        roles: compile::roles(plan),
        session_timeout_ms,
        ends,
    }
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests;
