//! Delivery: attempts to insert, on tokio, a bounded number at a time.
//!
//! Owns nothing but what is under way. Promises: an attempt begins only while its lease holds, and every attempt
//! is answered exactly once. Decides nothing: what is sent, and when again, is the task's business.

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::runtime::limits;
use crate::runtime::task::{Attempt, AttemptOutcome, TaskId, ToTask};
use crate::sink::{Block, Sink, Token};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A [`Sink`] behind a pointer: each pipeline has its own.
pub trait AnySink: Send + Sync {
    fn insert<'a>(
        &'a self,
        token: &'a Token,
        block: &'a Block,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;
}

impl<S: Sink> AnySink for S {
    fn insert<'a>(
        &'a self,
        token: &'a Token,
        block: &'a Block,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(Sink::insert(self, token, block))
    }
}

/// Which sink takes an output of a pipeline: 0 the rows; the dead letters, if they go to one, come last.
#[derive(Clone)]
pub struct PipelineSinks {
    pub rows: Arc<dyn AnySink>,
    pub letters: Option<Arc<dyn AnySink>>,
    /// `<database>/<table>` of the rows, as it ends their tokens.
    pub rows_target: String,
}

impl PipelineSinks {
    fn of(&self, token: &Token) -> &Arc<dyn AnySink> {
        match &self.letters {
            Some(letters) if !token.0.ends_with(&format!("/{}", self.rows_target)) => letters,
            _ => &self.rows,
        }
    }
}

struct Job {
    attempt: Attempt,
    sink: Arc<dyn AnySink>,
    answer: Answer,
}

/// Takes the answer back to the task's worker.
pub type Answer = Arc<dyn Fn(TaskId, ToTask) + Send + Sync>;

/// Hands attempts to the delivery threads.
#[derive(Clone)]
pub struct Delivery {
    jobs: Sender<Job>,
}

impl Delivery {
    /// Starts the dispatcher; it ends when the last handle is gone.
    pub fn start(runtime: tokio::runtime::Handle, clock: Arc<dyn Clock>) -> Delivery {
        let (jobs, queue) = bounded(limits::DELIVERY_QUEUE_MAX);
        std::thread::Builder::new()
            .name("weir-delivery".into())
            .spawn(move || dispatch(queue, runtime, clock))
            .expect("the process can start a thread");
        Delivery { jobs }
    }

    /// Hands an attempt over; gives it back when the queue is full.
    pub fn submit(&self, attempt: Attempt, sinks: &PipelineSinks, answer: &Answer) -> Result<(), Attempt> {
        let sink = sinks.of(&attempt.send.token).clone();
        self.jobs.try_send(Job { attempt, sink, answer: answer.clone() }).map_err(|refused| match refused {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job.attempt,
        })
    }
}

fn dispatch(queue: Receiver<Job>, runtime: tokio::runtime::Handle, clock: Arc<dyn Clock>) {
    for Job { attempt, sink, answer } in queue {
        let clock = clock.clone();
        runtime.spawn(async move {
            let Attempt { task, send, block } = attempt;
            let outcome = match clock.boot_ms() < send.lease_until_ms {
                false => AttemptOutcome::NotBegun,
                true => {
                    let began = Instant::now();
                    match sink.insert(&send.token, &block).await {
                        Ok(()) => AttemptOutcome::Acknowledged { seconds: began.elapsed().as_secs_f64() },
                        Err(error) => AttemptOutcome::Failed(named(error, &send.token)),
                    }
                }
            };
            answer(task, ToTask::Attempted { epoch: send.epoch, output: send.output, outcome });
        });
    }
}

fn named(error: Error, token: &Token) -> Error {
    tracing::debug!(token = token.0, code = error.code, "attempt failed: {error}");
    error
}
