//! Delivery: attempts to insert, on tokio, a bounded number at a time.
//!
//! Owns nothing but what is under way. Promises: an attempt begins only while its lease holds, and every attempt
//! is answered exactly once. Decides nothing: what is sent, and when again, is the task's business.

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::runtime::limits;
use crate::runtime::task::{Attempt, AttemptOutcome, Stale, TaskId, ToTask};
use crate::sink::{Block, Sink, Token};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A [`Sink`] behind a pointer: each pipeline has its own.
pub trait AnySink: Send + Sync {
    fn insert<'a>(&'a self, token: &'a Token, block: &'a Block) -> Soon<'a, ()>;

    fn holds<'a>(&'a self, partition: i32, ranges: &'a [(String, i64, i64)]) -> Soon<'a, Option<u64>>;
}

/// An answer that comes later.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl<S: Sink> AnySink for S {
    fn insert<'a>(&'a self, token: &'a Token, block: &'a Block) -> Soon<'a, ()> {
        Box::pin(Sink::insert(self, token, block))
    }

    fn holds<'a>(&'a self, partition: i32, ranges: &'a [(String, i64, i64)]) -> Soon<'a, Option<u64>> {
        Box::pin(Sink::holds(self, partition, ranges))
    }
}

/// Which sink takes an output of a pipeline: 0 the rows; the dead letters, if they go to one, come last.
#[derive(Clone)]
pub struct PipelineSinks {
    pub rows: Arc<dyn AnySink>,
    /// `<database>/<table>` of the rows, as it ends their tokens.
    pub rows_target: String,
    /// The same of the dead letters.
    pub letters: Option<(String, Arc<dyn AnySink>)>,
}

impl PipelineSinks {
    fn of(&self, token: &Token) -> Arc<dyn AnySink> {
        let is_for = |target: &str| token.0.strip_suffix(target).is_some_and(|rest| rest.ends_with('/'));
        match &self.letters {
            _ if is_for(&self.rows_target) => self.rows.clone(),
            Some((target, letters)) if is_for(target) => letters.clone(),
            _ => Arc::new(FormerTable),
        }
    }
}

/// Takes nothing: the table of a block that was sealed before the plan was changed.
struct FormerTable;

impl Sink for FormerTable {
    async fn insert(&self, token: &Token, _block: &Block) -> Result<()> {
        Err(Error::stop(
            "former_table",
            format!(
                "block {} is for a table that this pipeline does not write any more: run it with its former sink until \
                 the outbox is empty, or take the block out (`weir outbox export`, `discard`)",
                token.0
            ),
        ))
    }

    async fn holds(&self, _partition: i32, _ranges: &[(String, i64, i64)]) -> Result<Option<u64>> {
        Ok(Some(0))
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

    /// Hands an attempt over; false when the queue is full.
    pub fn submit(&self, attempt: Attempt, sinks: &PipelineSinks, answer: &Answer) -> bool {
        let sink = sinks.of(&attempt.send.token);
        self.jobs.try_send(Job { attempt, sink, answer: answer.clone() }).is_ok()
    }
}

fn dispatch(queue: Receiver<Job>, runtime: tokio::runtime::Handle, clock: Arc<dyn Clock>) {
    for Job { attempt, sink, answer } in queue {
        let clock = clock.clone();
        runtime.spawn(async move {
            let Attempt { task, send, block, stale } = attempt;
            let outcome = match clock.boot_ms() < send.lease_until_ms {
                false => AttemptOutcome::NotBegun,
                true => {
                    let began = Instant::now();
                    match deliver(&*sink, task.partition, &send.token, &block, stale).await {
                        Ok(()) => AttemptOutcome::Acknowledged { seconds: began.elapsed().as_secs_f64() },
                        Err(error) => AttemptOutcome::Failed(named(error, &send.token)),
                    }
                }
            };
            answer(task, ToTask::Attempted { epoch: send.epoch, output: send.output, outcome });
        });
    }
}

/// One attempt. A block whose token the table may have forgotten is looked for first.
async fn deliver(sink: &dyn AnySink, partition: i32, token: &Token, block: &Block, stale: Option<Stale>) -> Result<()> {
    let Some(stale) = stale else { return sink.insert(token, block).await };
    match sink.holds(partition, &stale.ranges).await? {
        Some(0) => sink.insert(token, block).await,
        Some(rows) if rows >= block.rows => {
            // Only pipelines of this process are known not to share the table.
            tracing::warn!(
                token = token.0,
                rows,
                "the rows of a block that the table may have forgotten are there, by topic, partition and offset: taken as \
                 delivered; rows of the same records by another weir's pipeline would look the same"
            );
            Ok(())
        }
        None if stale.resend => sink.insert(token, block).await,
        held => Err(Error::stop(
            "unclear",
            format!(
                "whether the table has taken block {} is unknown: it was announced longer ago than the table remembers \
                 tokens, and {} (on_unclear: halt). Compare the table with the topic, then `weir outbox discard`, or \
                 allow `on_unclear: resend`",
                token.0,
                match held {
                    Some(rows) => format!("{rows} of its {} rows are there", block.rows),
                    None => "it cannot be asked for them: it has no columns for the topic, partition and offset of a \
                             record, or another pipeline writes rows of the same records into it, or the rows come out \
                             of a join"
                        .to_owned(),
                }
            ),
        )),
    }
}

fn named(error: Error, token: &Token) -> Error {
    tracing::debug!(token = token.0, code = error.code, "attempt failed: {error}");
    error
}
