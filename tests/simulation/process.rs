//! One process: the real coordinator and the real tasks, with a stand-in for the worker's thread and for delivery.
//!
//! `work` is one round of `runtime/worker.rs`: messages, a tick of each task, one write for all that sealed. The
//! outside decides when it runs, when an attempt begins and how it ends.

use crate::bug::Bug;
use crate::disk::Disk;
use crate::rows::{LETTER_TARGET, LetterTable, ROW_TARGET};
use crate::seams::{Seams, SimClock};
use crate::table::{Request, Table};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use weir::clock::Clock;
use weir::error::{Error, Result};
use weir::metrics::PipelineStats;
use weir::runtime::chain::{Chain, ChainParts};
use weir::runtime::compile::{self, Blueprint};
use weir::runtime::coordinator::{Coordinator, Progress, Workers};
use weir::runtime::delivery::{self, Next, Told};
use weir::runtime::inputs::{Pass, TaskInput};
use weir::runtime::letters::{EpochLetters, LetterTarget};
use weir::runtime::opening::TaskFactory;
use weir::runtime::task::{
    Attempt, AttemptOutcome, DiscardAnswer, DiscardRequest, FromTask, Io, ReplayRequest, Stage, Task, TaskId,
    TaskSettings, TaskStart, ToTask,
};
use weir::source::{Input, Wake};
use weir::state::buffer::SegmentSize;
use weir::state::ledger::Counts;
use weir::state::letters::Letters;
use weir::state::{StateStore, WriteBatch};
use weir::types::TaskNo;

/// Makes the parts of tasks, as `runtime/pipeline.rs` does.
pub struct Factory {
    pub blueprint: Blueprint,
    pub stats: Arc<PipelineStats>,
    pub letters: Arc<Letters>,
    pub store: Arc<dyn StateStore>,
    /// Dead letters stay in the directory; else they go to a table.
    pub keeps_letters: bool,
}

struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
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
        let mut parts = self.blueprint.parts(partition, task).unwrap_or_else(|_| unreachable!());
        let inputs = queues.into_iter().zip(parts.take_sides(plan));
        let inputs = inputs.map(|(queue, sides)| TaskInput::new(queue, sides)).collect();
        let topics = plan.topics.iter().map(|topic| topic.name.clone()).collect();
        let target = match self.keeps_letters {
            true => LetterTarget::Local(self.letters.clone()),
            false => LetterTarget::Blocks(Box::new(LetterTable), self.letters.clone()),
        };
        let letters = EpochLetters::new(plan.name.clone(), topics, partition, target);
        let stats = self.stats.clone();
        let chain = ChainParts {
            task,
            steps: parts.steps,
            joins: parts.joins,
            segment: SegmentSize { rows_max: 8, bytes_max: 1 << 10, chunk_rows: 4 },
            builder: parts.builder,
            target: ROW_TARGET.into(),
            letters,
            counts,
            stats,
        };
        Ok((inputs, Chain::open(&*self.store, chain)?))
    }

    fn waker(&self, _partition: i32) -> Arc<dyn Wake> {
        Arc::new(Deaf)
    }

    fn reach_ms(&self) -> Option<Option<i64>> {
        compile::reach_ms(self.blueprint.plan())
    }
}

enum ToWorker {
    Start(Box<TaskStart>),
    Tell(TaskId, ToTask),
    /// To whichever task has the partition.
    Ask(i32, ToTask),
    Drop(TaskId),
}

#[derive(Default)]
struct Inbox(VecDeque<ToWorker>);

impl Workers for Inbox {
    fn start(&mut self, start: Box<TaskStart>) {
        self.0.push_back(ToWorker::Start(start));
    }

    fn tell(&mut self, task: TaskId, message: ToTask) {
        self.0.push_back(ToWorker::Tell(task, message));
    }

    fn drop_task(&mut self, task: TaskId) {
        self.0.push_back(ToWorker::Drop(task));
    }
}

pub struct Process {
    /// Counts all processes of a world.
    pub life: u64,
    coordinator: Coordinator,
    inbox: Inbox,
    tasks: Vec<Task>,
    pass: Pass,
    messages: Vec<(TaskId, FromTask)>,
    jobs: VecDeque<Attempt>,
    jobs_max: usize,
    settings: Arc<TaskSettings>,
    pub stats: Arc<PipelineStats>,
    disk: Arc<Disk>,
    clock: Arc<SimClock>,
    seams: Seams,
    pub is_cut: Arc<AtomicBool>,
    pub is_fenced: Arc<AtomicBool>,
    is_stopping: bool,
    /// How often a task began with an epoch that the mark names and its outbox does not hold.
    pub forced: u64,
    bug: Option<Bug>,
}

pub struct ProcessParts {
    pub life: u64,
    pub coordinator: Coordinator,
    pub jobs_max: usize,
    pub settings: TaskSettings,
    pub stats: Arc<PipelineStats>,
    pub disk: Arc<Disk>,
    pub clock: Arc<SimClock>,
    pub seams: Seams,
    pub is_cut: Arc<AtomicBool>,
    pub is_fenced: Arc<AtomicBool>,
    pub bug: Option<Bug>,
}

impl Process {
    pub fn new(parts: ProcessParts) -> Process {
        Process {
            life: parts.life,
            coordinator: parts.coordinator,
            inbox: Inbox::default(),
            tasks: vec![],
            pass: Pass::default(),
            messages: vec![],
            jobs: VecDeque::new(),
            jobs_max: parts.jobs_max,
            settings: Arc::new(parts.settings),
            stats: parts.stats,
            disk: parts.disk,
            clock: parts.clock,
            seams: parts.seams,
            is_cut: parts.is_cut,
            is_fenced: parts.is_fenced,
            is_stopping: false,
            forced: 0,
            bug: parts.bug,
        }
    }

    pub fn join(&mut self) -> Result<()> {
        self.coordinator.join()
    }

    pub fn progress(&self) -> &Progress {
        self.coordinator.progress()
    }

    pub fn stages(&self) -> Vec<(TaskId, Stage)> {
        self.tasks.iter().map(|task| (task.id, task.stage().clone())).collect()
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.coordinator.stop(&mut self.inbox, self.clock.boot_ms());
        }
    }

    /// Somebody asks for these letters to be replayed, and does not wait for the answer.
    pub fn replay(&mut self, partition: i32, seqs: Vec<u64>) {
        self.seams.note(|| format!("life {}: replay of {seqs:?} in partition {partition}", self.life));
        let (answer, _) = crossbeam_channel::bounded(1);
        self.inbox.0.push_back(ToWorker::Ask(partition, ToTask::Replay(ReplayRequest::new(seqs, answer))));
    }

    /// Somebody asks for this block to be discarded, whatever the table has.
    pub fn discard(&mut self, partition: i32, token: &str) -> crossbeam_channel::Receiver<DiscardAnswer> {
        self.seams.note(|| format!("life {}: discard of {token}", self.life));
        let (answer, answers) = crossbeam_channel::bounded(1);
        let until_ms = self.clock.boot_ms() + 8_000;
        let request = DiscardRequest { token: token.to_owned(), force: true, answer, until_ms };
        self.inbox.0.push_back(ToWorker::Ask(partition, ToTask::Discard(request)));
        answers
    }

    /// One turn of the coordinator's thread.
    pub fn coordinate(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        self.coordinator.tick(messages, &mut self.inbox, self.clock.boot_ms(), Duration::ZERO);
    }

    /// One turn of the worker's thread.
    pub fn work(&mut self) -> bool {
        while let Some(message) = self.inbox.0.pop_front() {
            self.receive(message);
        }
        let mut worked = false;
        for place in 0..self.tasks.len() {
            let id = self.tasks[place].id;
            match self.with_io(place, |task, io| task.tick(io)) {
                Ok(did) => worked |= did,
                Err(error) => self.failed(id, error),
            }
        }
        worked |= self.store();
        self.tasks.retain(|task| *task.stage() != Stage::Gone);
        worked
    }

    fn receive(&mut self, message: ToWorker) {
        match message {
            ToWorker::Start(start) => {
                self.seams.note(|| format!("life {} starts {:?} as {:?}", self.life, start.id, start.stage));
                self.forced += u64::from(start.log.forced().is_some());
                self.tasks.push(Task::new(*start, self.settings.clone(), self.stats.clone()));
            }
            ToWorker::Tell(id, message) => {
                if let Some(place) = self.tasks.iter().position(|task| task.id == id) {
                    self.with_io(place, |task, io| task.receive(message, io));
                }
            }
            ToWorker::Ask(partition, message) => {
                match self.tasks.iter().position(|task| task.id.partition == partition) {
                    Some(place) => self.with_io(place, |task, io| task.receive(message, io)),
                    None => message.refuse("it does not run here".into()),
                }
            }
            ToWorker::Drop(id) => {
                self.tasks.retain(|task| task.id != id);
                self.messages.push((id, FromTask::Gone { finished: false }));
            }
        }
    }

    fn failed(&mut self, id: TaskId, error: Error) {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.id == id) {
            task.give_up();
        }
        self.messages.push((id, FromTask::Failed(error)));
    }

    fn with_io<R>(&mut self, place: usize, act: impl FnOnce(&mut Task, &mut Io) -> R) -> R {
        let Process { tasks, messages, jobs, jobs_max, .. } = self;
        let mut say = |id, message| messages.push((id, message));
        let mut submit = |attempt| {
            let has_room = jobs.len() < *jobs_max;
            if has_room {
                jobs.push_back(attempt);
            }
            has_room
        };
        let mut io = Io {
            wall_ms: self.clock.wall_ms(),
            boot_ms: self.clock.boot_ms(),
            pass: &mut self.pass,
            store: &*self.disk,
            say: &mut say,
            submit: &mut submit,
        };
        act(&mut tasks[place], &mut io)
    }

    /// Tasks that sealed in this turn share one write.
    fn store(&mut self) -> bool {
        let mut all = WriteBatch::default();
        let mut places = Vec::new();
        for (place, task) in self.tasks.iter_mut().enumerate() {
            if let Some(batch) = task.take_write() {
                all.append(batch);
                places.push(place);
            }
        }
        if places.is_empty() {
            return false;
        }
        match self.disk.write(&all) {
            Ok(()) => places.into_iter().for_each(|place| self.with_io(place, |task, io| task.written(io))),
            Err(error) => {
                let ids: Vec<TaskId> = places.into_iter().map(|place| self.tasks[place].id).collect();
                ids.into_iter().for_each(|id| self.failed(id, error.clone()));
            }
        }
        true
    }

    /// Delivery takes the next attempt, and sends its request if there is to be one.
    pub fn begin_attempt(&mut self, table: &mut Table) {
        let Some(attempt) = self.jobs.pop_front() else { return };
        let token = &attempt.send.token.0;
        let is_letters = token.ends_with(LETTER_TARGET);
        assert!(is_letters || token.ends_with(ROW_TARGET), "{token}");
        let mut told = Told::Nothing;
        let outcome = loop {
            match delivery::next(&attempt, told, self.clock.boot_ms()) {
                Next::Insert => return self.insert(attempt, table),
                Next::NotBegun => break AttemptOutcome::NotBegun,
                Next::Delivered => break AttemptOutcome::Acknowledged { seconds: 0.0 },
                Next::Fail(error) => break AttemptOutcome::Failed(error),
                Next::Ask(ranges) => {
                    let partition = attempt.task.partition;
                    let held = self.seams.call("ask the table", || table.held(is_letters, partition, ranges));
                    self.seams.note(|| format!("life {} finds {held:?} rows of {token}", self.life));
                    told = held.map_or(Told::Unknown, Told::Rows);
                }
            }
        };
        self.answer(attempt.task, attempt.send.epoch, attempt.send.output, outcome);
    }

    fn insert(&mut self, attempt: Attempt, table: &mut Table) {
        let Attempt { task, send, block, .. } = attempt;
        let token = match self.bug {
            Some(Bug::TokenChanges) => format!("{}/{}", send.token.0, self.life),
            _ => send.token.0,
        };
        let life = Some(self.life);
        let request = Request { life, task, epoch: send.epoch, output: send.output, token, block, applied_at_ms: 0 };
        self.seams.note(|| format!("life {} inserts {}", self.life, request.token));
        self.seams.call("insert", || table.under_way.push(request));
    }

    pub fn answer(&mut self, task: TaskId, epoch: weir::types::Epoch, output: u16, outcome: AttemptOutcome) {
        let outcome = match outcome {
            AttemptOutcome::Failed(_) if self.bug == Some(Bug::UnclearIsDelivered) => {
                AttemptOutcome::Acknowledged { seconds: 0.0 }
            }
            outcome => outcome,
        };
        self.inbox.tell(task, ToTask::Attempted { epoch, output, outcome });
    }
}
