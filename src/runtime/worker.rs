//! A worker: a pinned thread that owns tasks and does all their work, batch by batch.
//!
//! Owns its tasks and the memory they share. Never blocks on a record or on a full channel: a task that finds no
//! room rests, the others go on. With nothing to do it sleeps until a queue, a message or a deadline wakes it.

use crate::clock::Clock;
use crate::error::Error;
use crate::metrics::{PartitionLag, PipelineStats, TaskSnapshot};
use crate::runtime::delivery::{Answer, Delivery, PipelineSinks};
use crate::runtime::inputs::Pass;
use crate::runtime::limits;
use crate::runtime::task::{FromTask, Io, Stage, Task, TaskId, TaskSettings, TaskStart, ToTask};
use crate::source::Wake;
use crate::state::{StateStore, WriteBatch};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How the names of workers' threads begin.
pub const THREAD_PREFIX: &str = "weir-worker-";

/// What the tasks of one pipeline need on a worker.
#[derive(Clone)]
pub struct PipelineContext {
    pub settings: Arc<TaskSettings>,
    pub stats: Arc<PipelineStats>,
    pub store: Arc<dyn StateStore>,
    pub sinks: PipelineSinks,
    /// To the pipeline's coordinator.
    pub coordinator: Sender<(TaskId, FromTask)>,
}

/// What a worker is told.
pub enum ToWorker {
    /// From now on this worker may get tasks of this pipeline (by its place).
    Pipeline(usize, Box<PipelineContext>),
    Start(Box<TaskStart>),
    Tell(TaskId, ToTask),
    /// To the task of a pipeline's partition, whichever assignment it has; refused where there is none.
    Ask(usize, i32, ToTask),
    Drop(TaskId),
    /// Let go of all of a pipeline, and say so.
    Forget(usize, Sender<()>),
    /// Records or messages may be there.
    Wake,
    Stop,
}

/// The way to a worker; cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    inbox: Sender<ToWorker>,
    /// Milliseconds busy since the last look, and the look's time.
    pub busy_ns: Arc<AtomicU64>,
}

impl WorkerHandle {
    pub fn send(&self, message: ToWorker) {
        // A worker that panics ends the process (see the engine).
        let _ = self.inbox.send(message);
    }
}

impl Wake for WorkerHandle {
    fn wake(&self) {
        // A full inbox wakes it as well.
        let _ = self.inbox.try_send(ToWorker::Wake);
    }
}

/// Starts worker number `number`, pinned to a core if the machine says which there are.
pub fn start(number: usize, clock: Arc<dyn Clock>, delivery: Delivery) -> (WorkerHandle, std::thread::JoinHandle<()>) {
    let (inbox, messages) = bounded(limits::WORKER_INBOX_MAX);
    let busy_ns = Arc::new(AtomicU64::new(0));
    let handle = WorkerHandle { inbox: inbox.clone(), busy_ns: busy_ns.clone() };
    // Answers never wait for room: a worker that waits for delivery would wait for itself.
    let answers = handle.clone();
    let answer: Answer = Arc::new(move |task, message| answers.send(ToWorker::Tell(task, message)));
    let worker = move || {
        if let Some(cores) = core_affinity::get_core_ids().filter(|cores| cores.len() > 1) {
            core_affinity::set_for_current(cores[number % cores.len()]);
        }
        Worker {
            messages,
            clock,
            delivery,
            answer,
            busy_ns,
            pipelines: BTreeMap::new(),
            tasks: Vec::new(),
            pass: Pass::default(),
        }
        .run();
    };
    let thread = std::thread::Builder::new()
        .name(format!("{THREAD_PREFIX}{number}"))
        .spawn(worker)
        .expect("the process can start a thread");
    (handle, thread)
}

struct Worker {
    messages: Receiver<ToWorker>,
    clock: Arc<dyn Clock>,
    delivery: Delivery,
    answer: Answer,
    busy_ns: Arc<AtomicU64>,
    pipelines: BTreeMap<usize, PipelineContext>,
    tasks: Vec<Task>,
    pass: Pass,
}

impl Worker {
    fn run(mut self) {
        let mut next_snapshot_ms = 0;
        loop {
            let began = Instant::now();
            while let Ok(message) = self.messages.try_recv() {
                if !self.receive(message) {
                    return;
                }
            }
            let mut worked = false;
            for place in 0..self.tasks.len() {
                worked |= self.tick(place);
            }
            worked |= self.store();
            self.let_go();
            let now_ms = self.clock.boot_ms();
            if now_ms >= next_snapshot_ms {
                next_snapshot_ms = now_ms + 250;
                self.tasks.iter().for_each(|task| {
                    self.pipelines[&task.id.pipeline].stats.set_task(task.id.partition, task.snapshot())
                });
            }
            self.busy_ns.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
            if !worked {
                let due_ms = self.tasks.iter().filter_map(Task::next_due_ms).min();
                let wait_ms = due_ms.map_or(250, |due| due.saturating_sub(now_ms)).clamp(1, 250);
                let message = self.messages.recv_timeout(Duration::from_millis(wait_ms));
                if message.is_ok_and(|message| !self.receive(message)) {
                    return;
                }
            }
        }
    }

    /// Tasks that have ended go.
    fn let_go(&mut self) {
        self.tasks.retain(|task| *task.stage() != Stage::Gone);
    }

    /// False when the worker is to end.
    fn receive(&mut self, message: ToWorker) -> bool {
        match message {
            ToWorker::Pipeline(place, context) => {
                self.pipelines.insert(place, *context);
            }
            ToWorker::Start(start) => {
                if let Some(context) = self.pipelines.get(&start.id.pipeline) {
                    let task = Task::new(*start, context.settings.clone(), context.stats.clone());
                    // At once: who asks which partitions run here need not wait for the next look.
                    context.stats.set_task(task.id.partition, task.snapshot());
                    self.tasks.push(task);
                }
            }
            ToWorker::Tell(id, message) => {
                if let Some(place) = self.tasks.iter().position(|task| task.id == id) {
                    self.with_io(place, |task, io| task.receive(message, io));
                }
            }
            ToWorker::Ask(pipeline, partition, message) => {
                let asked = |task: &Task| task.id.pipeline == pipeline && task.id.partition == partition;
                match self.tasks.iter().position(asked) {
                    Some(place) => self.with_io(place, |task, io| task.receive(message, io)),
                    None => message.refuse(format!("partition {partition} does not run on this instance")),
                }
            }
            ToWorker::Drop(id) => {
                if let Some(place) = self.tasks.iter().position(|task| task.id == id) {
                    self.tasks.remove(place);
                }
                self.say(id, FromTask::Gone { finished: false });
            }
            ToWorker::Forget(place, told) => {
                self.tasks.retain(|task| task.id.pipeline != place);
                self.pipelines.remove(&place);
                let _ = told.send(());
            }
            ToWorker::Wake => {}
            ToWorker::Stop => return false,
        }
        true
    }

    fn tick(&mut self, place: usize) -> bool {
        let id = self.tasks[place].id;
        match self.with_io(place, |task, io| task.tick(io)) {
            Ok(worked) => worked,
            Err(error) => {
                self.failed(id, error);
                false
            }
        }
    }

    /// The pipeline stops with the sentence; the task does nothing more until it is dropped.
    fn failed(&mut self, id: TaskId, error: Error) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) {
            task.give_up();
        }
        self.say(id, FromTask::Failed(error));
    }

    fn say(&self, id: TaskId, message: FromTask) {
        if let Some(context) = self.pipelines.get(&id.pipeline) {
            // A coordinator that is gone has failed; its tasks are dropped.
            let _ = context.coordinator.send((id, message));
        }
    }

    fn with_io<R>(&mut self, place: usize, act: impl FnOnce(&mut Task, &mut Io) -> R) -> R {
        let task = &mut self.tasks[place];
        let context = &self.pipelines[&task.id.pipeline];
        let mut said = Vec::new();
        let mut say = |id, message| said.push((id, message));
        let mut submit = |attempt| self.delivery.submit(attempt, &context.sinks, &self.answer);
        let mut io = Io {
            wall_ms: self.clock.wall_ms(),
            boot_ms: self.clock.boot_ms(),
            pass: &mut self.pass,
            store: &*context.store,
            say: &mut say,
            submit: &mut submit,
        };
        let result = act(task, &mut io);
        // Where it ended stays visible, and is shown before the coordinator hears of the end: it may take the partition
        // out of what is shown at once.
        if *task.stage() == Stage::Gone {
            context.stats.set_task(task.id.partition, task.snapshot());
        }
        said.into_iter().for_each(|message| _ = context.coordinator.send(message));
        result
    }

    /// Tasks of a pipeline that sealed at the same moment share one write and its fsync.
    fn store(&mut self) -> bool {
        let mut writes: BTreeMap<usize, (WriteBatch, Vec<usize>)> = BTreeMap::new();
        for (place, task) in self.tasks.iter_mut().enumerate() {
            let Some(batch) = task.take_write() else { continue };
            let (all, places) = writes.entry(task.id.pipeline).or_default();
            match all.is_empty() {
                true => *all = batch,
                false => all.append(batch),
            }
            places.push(place);
        }
        let stored = !writes.is_empty();
        for (pipeline, (batch, places)) in writes {
            let context = self.pipelines[&pipeline].clone();
            let began = Instant::now();
            match context.store.write(&batch) {
                Ok(()) => {
                    let took = began.elapsed();
                    context.stats.stored(took);
                    places.iter().for_each(|&place| self.tasks[place].write_took(took));
                    places.into_iter().for_each(|place| self.with_io(place, |task, io| task.written(io)));
                }
                Err(error) => {
                    let ids: Vec<TaskId> = places.into_iter().map(|place| self.tasks[place].id).collect();
                    ids.into_iter().for_each(|id| self.failed(id, error.clone()));
                }
            }
        }
        stored
    }
}

impl Task {
    /// What is shown of the task a few times a second.
    fn snapshot(&self) -> TaskSnapshot {
        let (outbox_blocks, outbox_bytes) = self.outbox();
        TaskSnapshot {
            lags: self.lags(),
            watermark_ms: self.watermark_ms(),
            outbox_blocks,
            outbox_bytes,
            acknowledged: self.acknowledged().0,
            restoring: self.is_restoring(),
            state_keys: self.state_keys(),
            joins: self.waiting(),
        }
    }

    fn lags(&self) -> Vec<PartitionLag> {
        self.positions_and_ends().map(|(offset, end)| PartitionLag { offset, end: end.max(offset) }).collect()
    }
}
