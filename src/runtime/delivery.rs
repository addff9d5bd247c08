//! Delivery: attempts to insert, on tokio, a bounded number at a time.
//!
//! Owns nothing but what is under way. Promises: an attempt begins only while its lease holds, a block that the table
//! may have forgotten is looked for before it is sent ([`next`]), and every attempt is answered exactly once. What is
//! sent, and when again, is the task's business.

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::runtime::limits;
use crate::runtime::task::{Attempt, AttemptOutcome, TaskId, ToTask};
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
            let (task, epoch, output) = (attempt.task, attempt.send.epoch, attempt.send.output);
            let outcome = carry_out(&attempt, &*sink, &*clock).await;
            answer(task, ToTask::Attempted { epoch, output, outcome });
        });
    }
}

/// Carries an attempt out, step by step, to its outcome.
async fn carry_out(attempt: &Attempt, sink: &dyn AnySink, clock: &dyn Clock) -> AttemptOutcome {
    let (began, token) = (Instant::now(), &attempt.send.token);
    let acknowledged = || AttemptOutcome::Acknowledged { seconds: began.elapsed().as_secs_f64() };
    let mut told = Told::Nothing;
    loop {
        let result = match next(attempt, told, clock.boot_ms()) {
            Next::NotBegun => return AttemptOutcome::NotBegun,
            Next::Delivered => return acknowledged(),
            Next::Fail(error) => Err(error),
            Next::Insert => match sink.insert(token, &attempt.block).await {
                Ok(()) => return acknowledged(),
                Err(error) => Err(error),
            },
            Next::Ask(ranges) => sink.holds(attempt.task.partition, ranges).await,
        };
        match result {
            Ok(held) => told = held.map_or(Told::Unknown, Told::Rows),
            Err(error) => return AttemptOutcome::Failed(named(error, token)),
        }
    }
}

/// What the table has told of the rows of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It was not asked.
    Nothing,
    /// So many of them are there.
    Rows(u64),
    /// It cannot be asked.
    Unknown,
}

/// What is to be done next about an attempt.
#[derive(Clone, PartialEq, Debug)]
pub enum Next<'a> {
    /// Nothing: its lease has run out before it began.
    NotBegun,
    /// Its token may be forgotten: ask the table for the rows of these ranges.
    Ask(&'a [(String, i64, i64)]),
    Insert,
    /// Its rows are there.
    Delivered,
    Fail(Error),
}

/// Decides it. A block whose token the table may have forgotten is looked for before it is sent, and nothing begins
/// without a lease: also not what waited for the table's answer until another owner may have gone on.
pub fn next(attempt: &Attempt, told: Told, boot_ms: u64) -> Next<'_> {
    let (token, rows) = (&attempt.send.token.0, attempt.block.rows);
    let has_lease = boot_ms < attempt.send.lease_until_ms;
    let insert_asked = || match has_lease {
        true => Next::Insert,
        false => Next::Fail(Error::retry(
            "lease",
            format!(
                "the table took longer to tell whether it has block {token} than the lease of its announcement holds \
                 (a third of session.timeout.ms)"
            ),
        )),
    };
    match (&attempt.stale, told) {
        (None, _) | (Some(_), Told::Nothing) if !has_lease => Next::NotBegun,
        (None, _) => Next::Insert,
        (Some(stale), Told::Nothing) => Next::Ask(&stale.ranges),
        (Some(_), Told::Rows(0)) => insert_asked(),
        (Some(_), Told::Rows(held)) if held >= rows => {
            // Only pipelines of this process are known not to share the table.
            tracing::warn!(
                token,
                rows = held,
                "the rows of a block that the table may have forgotten are there, by topic, partition and offset: taken as \
                 delivered; rows of the same records by another weir's pipeline would look the same"
            );
            Next::Delivered
        }
        (Some(stale), Told::Rows(_) | Told::Unknown) if stale.resend => insert_asked(),
        (Some(_), Told::Rows(held)) => Next::Fail(unclear(token, &format!("{held} of its {rows} rows are there"))),
        (Some(_), Told::Unknown) => Next::Fail(unclear(
            token,
            "it cannot be asked for them: it has no columns for the topic, partition and offset of a record, or another \
             pipeline writes rows of the same records into it, or they come out of a join",
        )),
    }
}

fn unclear(token: &str, why: &str) -> Error {
    Error::stop(
        "unclear",
        format!(
            "whether the table has taken block {token} is unknown: it was announced longer ago than the table remembers \
             tokens, and {why} (on_unclear: halt). Compare the table with the topic, then `weir outbox discard`, or \
             allow `on_unclear: resend`"
        ),
    )
}

fn named(error: Error, token: &Token) -> Error {
    tracing::debug!(token = token.0, code = error.code, "attempt failed: {error}");
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::runtime::commit::ToSend;
    use crate::runtime::task::Stale;
    use crate::state::ledger::OutputRecord;
    use crate::types::Epoch;
    use bytes::Bytes;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const ROWS: u64 = 5;
    const LEASE_UNTIL_MS: u64 = 1_000;
    const TOKEN: &str = "weir1/p/3/i/7/0/db/t";

    /// A table that answers as it is told, and writes down what it was asked.
    #[derive(Default)]
    struct Table {
        holds: Option<u64>,
        fails: bool,
        /// How long its answer about rows takes.
        looks_for_ms: u64,
        clock: Arc<StoppedClock>,
        calls: Mutex<Vec<String>>,
    }

    #[derive(Default)]
    struct StoppedClock(AtomicU64);

    impl Clock for StoppedClock {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn boot_ms(&self) -> u64 {
            self.0.load(Relaxed)
        }
    }

    impl Table {
        fn called(&self, call: String) -> Result<()> {
            self.calls.lock().unwrap().push(call);
            if self.fails { Err(Error::retry("network", "no answer")) } else { Ok(()) }
        }

        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut *self.calls.lock().unwrap())
        }
    }

    impl Sink for Table {
        async fn insert(&self, token: &Token, block: &Block) -> Result<()> {
            self.called(format!("insert {} of {} rows", token.0, block.rows))
        }

        async fn holds(&self, partition: i32, ranges: &[(String, i64, i64)]) -> Result<Option<u64>> {
            self.clock.0.fetch_add(self.looks_for_ms, Relaxed);
            self.called(format!("holds {partition} {ranges:?}")).map(|()| self.holds)
        }
    }

    fn attempt(stale: Option<Stale>) -> Attempt {
        let record = OutputRecord { token: TOKEN.into(), header: vec![], rows: ROWS, hash: [0; 16], body_bytes: 0 };
        Attempt {
            task: TaskId { pipeline: 0, partition: 3, assignment: 1 },
            send: ToSend {
                epoch: Epoch(7),
                output: 0,
                token: Token(TOKEN.into()),
                block: None,
                record,
                lease_until_ms: LEASE_UNTIL_MS,
                unclear: stale.is_some(),
            },
            block: Block { header: vec![], rows: ROWS, hash: [0; 16], body: Bytes::new() },
            stale,
        }
    }

    fn stale(resend: bool) -> Option<Stale> {
        Some(Stale { ranges: vec![("topic".into(), 10, 20)], resend })
    }

    /// What comes of an attempt that begins at that time of the boot clock.
    async fn tried(table: &Table, stale: Option<Stale>, at_ms: u64) -> AttemptOutcome {
        table.clock.0.store(at_ms, Relaxed);
        carry_out(&attempt(stale), table, &*table.clock).await
    }

    const ASKED: &str = "holds 3 [(\"topic\", 10, 20)]";
    const INSERTED: &str = "insert weir1/p/3/i/7/0/db/t of 5 rows";

    fn is_acknowledged(outcome: &AttemptOutcome) -> bool {
        matches!(outcome, AttemptOutcome::Acknowledged { .. })
    }

    /// Of an attempt that has to fail.
    fn error_of(outcome: AttemptOutcome) -> Error {
        match outcome {
            AttemptOutcome::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn with_a_lease_the_block_goes_out_as_it_is() {
        let table = Table::default();
        assert!(is_acknowledged(&tried(&table, None, LEASE_UNTIL_MS - 1).await));
        assert_eq!(table.calls(), [INSERTED]);
        let table = Table { fails: true, ..Table::default() };
        assert_eq!(error_of(tried(&table, None, 0).await).code, "network");
    }

    #[tokio::test]
    async fn when_the_lease_is_over_nothing_is_begun_and_nobody_asked() {
        let table = Table { holds: Some(0), ..Table::default() };
        for stale in [None, stale(false), stale(true)] {
            assert_eq!(tried(&table, stale, LEASE_UNTIL_MS).await, AttemptOutcome::NotBegun);
        }
        assert_eq!(table.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn a_lease_that_ends_while_the_table_is_asked_allows_no_insert() {
        for (holds, resend) in [(Some(0), false), (None, true)] {
            let table = Table { holds, looks_for_ms: LEASE_UNTIL_MS, ..Table::default() };
            let error = error_of(tried(&table, stale(resend), 0).await);
            assert_eq!((error.kind, error.code.as_str()), (Kind::Retry, "lease"), "{error}");
            assert_eq!(table.calls(), [ASKED]);
        }
        // What is there needs no insert.
        let table = Table { holds: Some(ROWS), looks_for_ms: LEASE_UNTIL_MS, ..Table::default() };
        assert!(is_acknowledged(&tried(&table, stale(false), 0).await));
    }

    #[tokio::test]
    async fn a_block_older_than_the_window_is_sent_where_none_of_its_rows_are_there() {
        let table = Table { holds: Some(0), ..Table::default() };
        assert!(is_acknowledged(&tried(&table, stale(false), 0).await));
        assert_eq!(table.calls(), [ASKED, INSERTED]);
    }

    #[tokio::test]
    async fn a_block_older_than_the_window_is_not_sent_where_all_of_its_rows_are_there() {
        for holds in [ROWS, ROWS + 1] {
            let table = Table { holds: Some(holds), ..Table::default() };
            assert!(is_acknowledged(&tried(&table, stale(false), 0).await));
            assert_eq!(table.calls(), [ASKED]);
        }
    }

    #[tokio::test]
    async fn a_block_of_which_a_part_is_there_waits_for_a_person_or_goes_out_again_as_on_unclear_says() {
        let table = Table { holds: Some(3), ..Table::default() };
        let error = error_of(tried(&table, stale(false), 0).await);
        assert_eq!((error.kind, error.code.as_str()), (Kind::Stop, "unclear"));
        assert!(
            error.message.starts_with(&format!("whether the table has taken block {TOKEN} is unknown: "))
                && error.message.contains("3 of its 5 rows are there (on_unclear: halt)"),
            "{error}"
        );
        assert_eq!(table.calls(), [ASKED]);
        assert!(is_acknowledged(&tried(&table, stale(true), 0).await));
        assert_eq!(table.calls(), [ASKED, INSERTED]);
    }

    #[tokio::test]
    async fn where_the_table_cannot_be_asked_on_unclear_decides() {
        let table = Table { holds: None, ..Table::default() };
        let error = error_of(tried(&table, stale(false), 0).await);
        assert_eq!((error.kind, error.code.as_str()), (Kind::Stop, "unclear"));
        assert!(
            error.message.starts_with(&format!("whether the table has taken block {TOKEN} is unknown: "))
                && error.message.contains("it cannot be asked for them: it has no columns for the topic, partition")
                && error.message.contains("`weir outbox discard`"),
            "{error}"
        );
        assert_eq!(table.calls(), [ASKED]);
        assert!(is_acknowledged(&tried(&table, stale(true), 0).await));
        assert_eq!(table.calls(), [ASKED, INSERTED]);
    }

    #[tokio::test]
    async fn a_table_that_does_not_answer_when_asked_gets_no_block() {
        let table = Table { fails: true, holds: Some(0), ..Table::default() };
        let error = error_of(tried(&table, stale(true), 0).await);
        assert_eq!((error.kind, error.code.as_str()), (Kind::Retry, "network"));
        assert_eq!(table.calls(), [ASKED]);
    }

    #[tokio::test]
    async fn every_attempt_is_answered_once_and_letters_go_to_their_own_table() {
        let (rows, letters) = (Arc::new(Table::default()), Arc::new(Table::default()));
        let letters_sink = ("db/letters".to_owned(), letters.clone() as Arc<dyn AnySink>);
        let sinks = PipelineSinks { rows: rows.clone(), rows_target: "db/t".to_owned(), letters: Some(letters_sink) };
        let former = Token("weir1/p/3/i/7/0/db/former".into());
        let refused = sinks.of(&former).insert(&former, &attempt(None).block).await.unwrap_err();
        assert_eq!((refused.kind, refused.code.as_str()), (Kind::Stop, "former_table"));
        let (answered, answers) = bounded(8);
        let answer: Answer = Arc::new(move |task, message| answered.send((task, message)).unwrap());
        let delivery = Delivery::start(tokio::runtime::Handle::current(), rows.clock.clone());
        let mut of_letters = attempt(None);
        of_letters.send.token = Token("weir1/p/3/i/7/1/db/letters".into());
        assert!(delivery.submit(attempt(None), &sinks, &answer) && delivery.submit(of_letters, &sinks, &answer));
        let two = tokio::task::spawn_blocking(move || {
            let patience = std::time::Duration::from_secs(60);
            let two = [(); 2].map(|()| answers.recv_timeout(patience).expect("an attempt is answered"));
            assert!(answers.is_empty(), "and once");
            two
        });
        for (task, message) in two.await.unwrap() {
            assert_eq!(task, attempt(None).task);
            let ToTask::Attempted { epoch, outcome, .. } = message else { panic!("{message:?}") };
            assert!(epoch == Epoch(7) && is_acknowledged(&outcome), "{outcome:?}");
        }
        assert_eq!(rows.calls(), [INSERTED]);
        assert_eq!(letters.calls(), ["insert weir1/p/3/i/7/1/db/letters of 5 rows"]);
    }
}
