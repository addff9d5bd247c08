//! How a pipeline's tasks come to their workers, and what they are made of.

use super::sinks::LetterSink;
use crate::error::{Error, Finding, Result};
use crate::metrics::PipelineStats;
use crate::runtime::chain::{Chain, ChainParts};
use crate::runtime::compile::{self, Blueprint};
use crate::runtime::coordinator::Workers;
use crate::runtime::desk::Tell;
use crate::runtime::inputs::TaskInput;
use crate::runtime::letters::{EpochLetters, LetterTarget};
use crate::runtime::opening::TaskFactory;
use crate::runtime::task::{TaskId, TaskStart, ToTask};
use crate::runtime::worker::{ToWorker, WorkerHandle};
use crate::source::{Input, Wake};
use crate::state::StateStore;
use crate::state::buffer::SegmentSize;
use crate::state::ledger::Counts;
use crate::state::letters::Letters;
use crate::types::TaskNo;
use std::sync::Arc;

/// Tasks are pinned: partition by partition around the workers, each pipeline beginning at another one.
pub(super) struct PinnedWorkers {
    pub place: usize,
    pub workers: Vec<WorkerHandle>,
}

/// The way to a task whose assignment the caller does not know.
pub(super) fn way_to_tasks(place: usize, workers: &[WorkerHandle]) -> Tell {
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
pub(super) struct Factory {
    pub blueprint: Blueprint,
    pub place: usize,
    pub workers: Vec<WorkerHandle>,
    pub target: String,
    pub letters: Arc<Letters>,
    pub letter_sink: Option<LetterSink>,
    pub stats: Arc<PipelineStats>,
    pub store: Arc<dyn StateStore>,
    pub segment: SegmentSize,
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
        let mut parts = self.blueprint.parts(partition, task).map_err(|findings| expression_error(&findings))?;
        let inputs = queues.into_iter().zip(parts.take_sides(plan));
        let inputs = inputs.map(|(queue, sides)| TaskInput::new(queue, sides)).collect();
        let target = match &self.letter_sink {
            None => LetterTarget::Local(self.letters.clone()),
            Some(sink) => LetterTarget::Blocks(Box::new(sink.clone()), self.letters.clone()),
        };
        let topics = plan.topics.iter().map(|topic| topic.name.clone()).collect();
        let letters = EpochLetters::new(plan.name.clone(), topics, partition, target);
        let chain = ChainParts {
            task,
            steps: parts.steps,
            joins: parts.joins,
            segment: self.segment,
            builder: parts.builder,
            target: self.target.clone(),
            letters,
            counts,
            stats: self.stats.clone(),
        };
        Ok((inputs, Chain::open(&*self.store, chain)?))
    }

    fn waker(&self, partition: i32) -> Arc<dyn Wake> {
        Arc::new(worker_of(&self.workers, self.place, partition).clone())
    }

    fn reach_ms(&self) -> Option<Option<i64>> {
        compile::reach_ms(self.blueprint.plan())
    }
}

pub(super) fn expression_error(findings: &[Finding]) -> Error {
    let sentences: Vec<String> =
        findings.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect();
    Error::stop("expression", sentences.join("\n"))
}
