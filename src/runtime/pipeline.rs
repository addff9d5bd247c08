//! One pipeline from its plan to its end, on its coordinator's thread.
//!
//! Owns the order of a start: state directory, table, topics, memory, then the group. Promises: what only the
//! connection shows is told in a sentence before anything is read; a corrupt state directory is set aside, never
//! repaired; a fatal client error starts the pipeline anew, as after a crash.

use crate::config::plan::{DeadLettersPlan, FollowOr, HaltOr, PipelinePlan, SinkPlan, StatePlan, UnclearChoice};
use crate::error::{Error, Finding, Kind, Result};
use crate::metrics::{PipelineState, PipelineStats};
use crate::runtime::chain::{Chain, percent_escaped};
use crate::runtime::compile::{self, Blueprint, MakeBuilder};
use crate::runtime::coordinator::{Coordinator, GroupTimes, Progress, Workers};
use crate::runtime::delivery::{AnySink, PipelineSinks};
use crate::runtime::desk::{Desk, Tell};
use crate::runtime::engine::Process;
use crate::runtime::inputs::TaskInput;
use crate::runtime::letters::{EpochLetters, LetterBlocks, LetterTarget};
use crate::runtime::memory::{self, PipelineMemory};
use crate::runtime::opening::{Opening, OpeningSettings, TaskFactory};
use crate::runtime::prepare::Preparing;
use crate::runtime::recovery::Policy;
use crate::runtime::task::{FromTask, TaskId, TaskSettings, TaskStart, ToTask};
use crate::runtime::worker::{PipelineContext, ToWorker, WorkerHandle};
use crate::sink::Block;
use crate::sink::clickhouse::client::Client;
use crate::sink::clickhouse::insert::ClickHouseSink;
use crate::sink::clickhouse::mapping;
use crate::sink::clickhouse::table::{self, Load, TableReport};
use crate::sink::dead_letter::{self, LetterBuilder};
use crate::sink::kafka_letters::{self, KafkaLetters};
use crate::source::kafka::{KafkaGroup, MemberOptions, session_timeout_ms};
use crate::source::{Group, Input, TopicInfo, Wake};
use crate::state::StateStore;
use crate::state::ledger::{self, Counts};
use crate::state::letters::{Letter, Letters};
use crate::state::rocks::RocksStore;
use crate::types::TaskNo;
use crossbeam_channel::bounded;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

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
        let result = run_once(place, &plan, state, process, &stats, desk, stop);
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
                stats.set_state(PipelineState::Starting);
                std::thread::sleep(CONNECT_AGAIN);
            }
            Err(error) => return Err(failed(&plan, &stats, error)),
            Ok(()) => return Ok(()),
        }
    }
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

/// Waits until no worker holds anything of the pipeline any more: its directory can be opened again.
fn forget(place: usize, process: &Process) {
    let (told, done) = bounded(process.workers.len());
    process.workers.iter().for_each(|worker| worker.send(ToWorker::Forget(place, told.clone())));
    for _ in &process.workers {
        // A worker that is gone holds nothing.
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
    let store: Arc<RocksStore> = Arc::new(open_store(plan, state, process, stats)?);
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
    let first = until_reached(stop, plan, || {
        let mut asking = open_group(1 << 20)?;
        let mut infos = asking.topics()?;
        match infos.iter().find(|info| info.partitions == 0) {
            Some(missing) => Err(missing_topic(&missing.name)),
            None => Ok(infos.swap_remove(0)),
        }
    })?;
    let Some(first) = first else { return Ok(()) };
    let partitions = first.partitions;
    if has_grown_meanwhile(plan, &*store, &first)? {
        outlive_former_session(plan, process, stop);
    }
    let memory = memory::divide(
        process.memory_limit_bytes,
        process.pipelines,
        partitions as u64,
        topics.len() as u64,
        batch_bytes(plan),
        process.workers.len() as u64,
    )?;
    tracing::info!(pipeline = plan.name, "memory: {memory}");
    let Some(sink) = until_reached(stop, plan, || connect_sink(plan, process, partitions))? else { return Ok(()) };
    let letters = Arc::new(Letters::open(store.clone(), local_letters_max(plan))?);
    desk.open(&store, &letters, way_to_tasks(place, &process.workers));
    let blueprint =
        Blueprint::new(plan.clone(), identity.seed, memory.task.filter_bytes as usize, sink.make_builder.clone());
    blueprint.parts(0, TaskNo(0)).map_err(|findings| expression_error(&findings))?;
    let factory = Arc::new(Factory {
        blueprint,
        place,
        workers: process.workers.clone(),
        target: sink.sinks.rows_target.clone(),
        letters,
        letter_sink: sink.letters,
        stats: stats.clone(),
    });
    let mut group = open_group(memory.task.queue_bytes)?;
    let ends = match process.options.until_end {
        true => {
            let noted = until_reached(stop, plan, || note_ends(&mut group, topics.len(), partitions))?;
            let Some(noted) = noted else { return Ok(()) };
            Some(noted)
        }
        false => None,
    };
    let (to_coordinator, messages) = bounded(MESSAGES_MAX);
    let context = PipelineContext {
        settings: Arc::new(task_settings(plan, &memory, process.options.until_end, sink.window_ms)),
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
        opening_settings(place, plan, session_timeout_ms, ends),
        store,
        factory,
        process.clock.clone(),
        stats.clone(),
        Box::new(random_bytes::<16>),
        state.retain_left_ms,
    );
    let mut coordinator = Coordinator::new(Box::new(group), opening, stats.clone(), GroupTimes { session_timeout_ms });
    coordinator.join()?;
    coordinate(place, coordinator, messages, process, stop)
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
fn outlive_former_session(plan: &PipelinePlan, process: &Process, stop: &Stop) {
    let wait_ms = session_timeout_ms(&plan.kafka) + CONNECT_AGAIN.as_millis() as u64;
    tracing::warn!(
        pipeline = plan.name,
        wait_ms,
        "the topic has got partitions while we were away: waiting for our former session to end, so that the group \
         shares them out"
    );
    let until_ms = process.clock.boot_ms() + wait_ms;
    while process.clock.boot_ms() < until_ms && !stop.load(Relaxed) {
        std::thread::sleep(POLL_WAIT);
    }
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

/// Tasks are pinned: partition by partition around the workers, each pipeline beginning at another one.
struct PinnedWorkers {
    place: usize,
    workers: Vec<WorkerHandle>,
}

/// The way to a task whose assignment the caller does not know.
fn way_to_tasks(place: usize, workers: &[WorkerHandle]) -> Tell {
    let workers = workers.to_vec();
    Arc::new(move |partition, message| match partition {
        0.. => worker_of(&workers, place, partition).send(ToWorker::Ask(place, partition, message)),
        _ => message.refuse(format!("there is no partition {partition}")),
    })
}

fn worker_of(workers: &[WorkerHandle], place: usize, partition: i32) -> &WorkerHandle {
    &workers[(place + partition as usize) % workers.len()]
}

impl Workers for PinnedWorkers {
    fn start(&mut self, start: Box<TaskStart>) {
        worker_of(&self.workers, self.place, start.id.partition).send(ToWorker::Start(start));
    }

    fn tell(&mut self, task: TaskId, message: ToTask) {
        worker_of(&self.workers, self.place, task.partition).send(ToWorker::Tell(task, message));
    }

    fn drop_task(&mut self, task: TaskId) {
        worker_of(&self.workers, self.place, task.partition).send(ToWorker::Drop(task));
    }
}

/// Makes tasks out of the compiled plan.
struct Factory {
    blueprint: Blueprint,
    place: usize,
    workers: Vec<WorkerHandle>,
    target: String,
    letters: Arc<Letters>,
    letter_sink: Option<LetterSink>,
    stats: Arc<PipelineStats>,
}

impl TaskFactory for Factory {
    fn parts(
        &self,
        partition: i32,
        task: TaskNo,
        queues: Vec<Box<dyn Input>>,
        counts: Option<Counts>,
    ) -> Result<(Vec<TaskInput>, Chain)> {
        let plan = self.blueprint.plan();
        let parts = self.blueprint.parts(partition, task).map_err(|findings| expression_error(&findings))?;
        let lateness_ms = plan.source.time.lateness_ms;
        let inputs = queues.into_iter().zip(parts.decoders);
        let inputs = inputs.map(|(queue, decoder)| TaskInput::new(queue, decoder, lateness_ms)).collect();
        let target = match &self.letter_sink {
            None => LetterTarget::Local(self.letters.clone()),
            Some(sink) => LetterTarget::Blocks(Box::new(sink.clone()), self.letters.clone()),
        };
        let topics = plan.topics.iter().map(|topic| topic.name.clone()).collect();
        let letters = EpochLetters::new(plan.name.clone(), topics, partition, target);
        let chain =
            Chain::new(task, parts.steps, parts.builder, self.target.clone(), letters, counts, self.stats.clone());
        Ok((inputs, chain))
    }

    fn waker(&self, partition: i32) -> Arc<dyn Wake> {
        Arc::new(worker_of(&self.workers, self.place, partition).clone())
    }

    fn reach_ms(&self) -> Option<Option<i64>> {
        compile::reach_ms(self.blueprint.plan())
    }
}

/// Opens `<path>/<pipeline>`; one that is corrupt is set aside as a whole.
fn open_store(plan: &PipelinePlan, state: &StatePlan, process: &Process, stats: &PipelineStats) -> Result<RocksStore> {
    let path = path_of(plan, state);
    match RocksStore::open(&path, &process.rocks) {
        Err(error) if error.code == "corrupt" && !plan.strict => {
            start_without(&path, plan, process, stats, &error)?;
            RocksStore::open(&path, &process.rocks)
        }
        Err(error) if error.code == "locked" => {
            stats.recovered("locked");
            Err(error)
        }
        opened => opened,
    }
}

fn path_of(plan: &PipelinePlan, state: &StatePlan) -> PathBuf {
    state.rocksdb_path.join(&plan.name)
}

/// Makes room for a directory in the place of a corrupt one, and says so.
fn start_without(
    path: &Path,
    plan: &PipelinePlan,
    process: &Process,
    stats: &PipelineStats,
    error: &Error,
) -> Result<()> {
    let aside = set_aside(path, process.clock.wall_ms())?;
    stats.recovered("corrupt");
    tracing::error!(pipeline = plan.name, aside = %aside.display(), "{error}; set aside, starting without it");
    Ok(())
}

fn set_aside(path: &Path, wall_ms: i64) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.corrupt-{wall_ms}"));
    std::fs::rename(path, &aside)
        .map_err(|error| Error::stop("unreadable", format!("cannot set {} aside: {error}", path.display())))?;
    Ok(aside)
}

/// Tries until what is asked for is reached; `None` when the process is to end.
fn until_reached<T>(stop: &Stop, plan: &PipelinePlan, mut ask: impl FnMut() -> Result<T>) -> Result<Option<T>> {
    let mut told = false;
    while !stop.load(Relaxed) {
        match ask() {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if error.kind == Kind::Retry => {
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

/// A sink that was looked at and fits.
struct ConnectedSink {
    sinks: PipelineSinks,
    make_builder: MakeBuilder,
    letters: Option<LetterSink>,
    /// For how long the table remembers a token at least.
    window_ms: i64,
}

fn connect_sink(plan: &PipelinePlan, process: &Process, partitions: i32) -> Result<ConnectedSink> {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    let client = Arc::new(Client::new(&sink.connection)?);
    let load = Load {
        delivery: plan.delivery,
        servers: sink.connection.urls.len(),
        tasks: partitions as u64,
        batch_interval_ms: sink.batch.interval_ms,
    };
    let database = &sink.connection.database;
    let describe_by_broker = process.options.describe_by_broker;
    let preparing = Preparing { plan, client: &client, tokio: &process.tokio, load, describe_by_broker };
    let (server, schema) = usable(preparing.table()?)?;
    let (mapping, problems) = mapping::map(sink, &schema, &server, &mut |_| crate::codec::rows::Slot(0));
    refuse(&problems)?;
    drop(mapping);
    let rows = ClickHouseSink::new(client.clone(), &server, database, &sink.table, &sink.settings);
    let (letters, letter_sink) = connect_letters(plan, process, load)?;
    let window_ms = table::window_seconds(&server, &schema, load).saturating_mul(1000).min(i64::MAX as u64) as i64;
    let (sink_plan, server_info) = (sink.clone(), server);
    let make_builder: MakeBuilder =
        Arc::new(move |resolve| Box::new(mapping::map(&sink_plan, &schema, &server_info, resolve).0.builder()));
    Ok(ConnectedSink {
        sinks: PipelineSinks {
            rows: Arc::new(rows) as Arc<dyn AnySink>,
            letters: letter_sink,
            rows_target: target(database, &sink.table),
        },
        make_builder,
        letters,
        window_ms,
    })
}

/// How dead letters are encoded and who takes them; neither for the local store.
type LettersOut = (Option<LetterSink>, Option<Arc<dyn AnySink>>);

/// The table or topic for dead letters, with the same checks as the sink's.
fn connect_letters(plan: &PipelinePlan, process: &Process, load: Load) -> Result<LettersOut> {
    match &plan.dead_letters {
        DeadLettersPlan::Local { .. } => Ok((None, None)),
        DeadLettersPlan::Kafka { topic, .. } => {
            let taker = KafkaLetters::connect(&plan.kafka, topic, &process.tokio)?;
            let sink = LetterSink::Topic { bytes_max: taker.letter_bytes_max(), target: target("kafka", topic) };
            Ok((Some(sink), Some(Arc::new(taker))))
        }
        DeadLettersPlan::ClickHouse { connection, table, .. } => {
            let client = Arc::new(Client::new(connection)?);
            let report = process.tokio.block_on(table::inspect(&client, &connection.database, table, load));
            let report = report.map_err(|failure| failure.into_error("looking at the table of dead letters"))?;
            let (server, schema) = usable(report)?;
            let SinkPlan::ClickHouse(sink) = &plan.sink;
            LetterBuilder::new(&schema, sink.compression)
                .map_err(|problems| Error::stop("dead_letters", sentences(&problems)))?;
            let taker =
                ClickHouseSink::new(client, &server, &connection.database, table, &BTreeMap::new()).of_letters();
            let letters = LetterSink::Table {
                schema: Arc::new(schema),
                compression: sink.compression,
                target: target(&connection.database, table),
            };
            Ok((Some(letters), Some(Arc::new(taker))))
        }
    }
}

fn usable(
    report: TableReport,
) -> Result<(crate::sink::clickhouse::schema::ServerInfo, crate::sink::clickhouse::schema::TableSchema)> {
    refuse(&report.problems)?;
    let schema = report.schema.ok_or_else(|| Error::stop("no_table", "the table does not exist"))?;
    Ok((report.server, schema))
}

fn refuse(problems: &[table::Problem]) -> Result<()> {
    use crate::error::Severity;
    problems
        .iter()
        .filter(|problem| problem.severity != Severity::Error)
        .for_each(|problem| tracing::warn!("{}", problem.message));
    let errors: Vec<_> = problems.iter().filter(|problem| problem.severity == Severity::Error).cloned().collect();
    match errors.first() {
        None => Ok(()),
        Some(first) => Err(Error::stop(first.code, sentences(&errors))),
    }
}

fn sentences(problems: &[table::Problem]) -> String {
    let sentence = |problem: &table::Problem| match &problem.fix_sql {
        Some(fix) => format!("{}; this mends it: {fix}", problem.message),
        None => problem.message.clone(),
    };
    problems.iter().map(sentence).collect::<Vec<_>>().join("\n")
}

/// Encodes dead letters for where they go.
#[derive(Clone)]
enum LetterSink {
    Table {
        schema: Arc<crate::sink::clickhouse::schema::TableSchema>,
        compression: crate::config::plan::BlockCompression,
        target: String,
    },
    Topic {
        bytes_max: usize,
        target: String,
    },
}

impl LetterBlocks for LetterSink {
    fn target(&self) -> &str {
        match self {
            LetterSink::Table { target, .. } | LetterSink::Topic { target, .. } => target,
        }
    }

    fn takes(&self, letter: &Letter) -> bool {
        match self {
            LetterSink::Table { .. } => true,
            LetterSink::Topic { bytes_max, .. } => kafka_letters::message_bytes(letter) <= *bytes_max,
        }
    }

    fn encode(&mut self, letters: &[Letter]) -> Block {
        match self {
            LetterSink::Table { schema, compression, .. } => table_block(schema, *compression, letters),
            LetterSink::Topic { .. } => kafka_letters::block_of(letters),
        }
    }
}

fn table_block(
    schema: &crate::sink::clickhouse::schema::TableSchema,
    compression: crate::config::plan::BlockCompression,
    letters: &[Letter],
) -> Block {
    let builder = LetterBuilder::new(schema, compression);
    let mut builder = builder.unwrap_or_else(|_| unreachable!("the table was tried at start"));
    for letter in letters {
        let headers = crate::codec::record::encode_headers(&letter.headers);
        builder.push(&dead_letter::Letter {
            time_ms: letter.noted_ms,
            pipeline: &letter.pipeline,
            step: &letter.step,
            reason: &letter.reason,
            message: &letter.message,
            topic: &letter.topic,
            partition: letter.partition as i32,
            offset: letter.offset,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &headers,
        });
    }
    builder.seal().expect("there is at least one letter")
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

fn missing_topic(name: &str) -> Error {
    Error::stop("missing_topic", format!("topic `{name}` does not exist: create it, weir never does"))
}

fn expression_error(findings: &[Finding]) -> Error {
    let sentences: Vec<String> =
        findings.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
    Error::stop("expression", sentences.join("\n"))
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

fn task_settings(plan: &PipelinePlan, memory: &PipelineMemory, until_end: bool, window_ms: i64) -> TaskSettings {
    let SinkPlan::ClickHouse(sink) = &plan.sink;
    let mut batch = sink.batch;
    batch.bytes = batch.bytes.min(memory.task.block_bytes);
    TaskSettings {
        pipeline: plan.name.clone(),
        batch,
        idle_after_ms: vec![plan.source.time.idle_ms as u64; plan.topics.len()],
        outbox_bytes_max: memory.task.outbox_bytes,
        state_bytes_max: memory.task.state_bytes as usize,
        stops_on_failure: until_end,
        gate: Arc::default(),
        window_ms,
        resend_unclear: plan.on_unclear == UnclearChoice::Resend,
        strict: plan.strict,
    }
}

fn opening_settings(
    place: usize,
    plan: &PipelinePlan,
    session_timeout_ms: u64,
    ends: Option<BTreeMap<i32, Vec<i64>>>,
) -> OpeningSettings {
    OpeningSettings {
        pipeline: place,
        name: plan.name.clone(),
        topics: plan.topics.iter().map(|topic| (topic.name.clone(), topic.start)).collect(),
        plan: compile::state_hash(plan),
        policy: Policy {
            halt_on_reset: plan.on_offset_reset == FollowOr::Halt,
            halt_on_gap: plan.on_gap == HaltOr::Halt,
            strict: plan.strict,
        },
        halt_on_growth: plan.on_partition_growth == HaltOr::Halt,
        max_future_ms: plan.source.time.max_future_ms,
        session_timeout_ms,
        ends,
    }
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
