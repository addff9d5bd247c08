//! What others may look at of a pipeline that runs, its dead letters and its outbox, and the way to its tasks.
//!
//! Owns nothing that keeps the state directory open: when the pipeline ends, there is nothing to look at.

use crate::config::plan::PipelinePlan;
use crate::runtime::task::{DiscardAnswer, DiscardRequest, ReplayAnswer, ReplayDone, ReplayRequest, ToTask};
use crate::state::letters::{LetterId, Letters};
use crate::state::rocks::RocksStore;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Tells the task of a partition something.
pub type Tell = Arc<dyn Fn(i32, ToTask) + Send + Sync>;

pub struct Desk {
    pub plan: PipelinePlan,
    open: Mutex<Option<Open>>,
}

struct Open {
    store: Weak<RocksStore>,
    letters: Weak<Letters>,
    tell: Tell,
}

/// How a replay went, as far as it was waited for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replay {
    pub done: ReplayDone,
    /// Partitions that could not begin, each with the sentence.
    pub refused: Vec<String>,
    /// Letters whose end was not heard in time: it goes on by itself.
    pub under_way: u64,
}

impl Desk {
    pub fn new(plan: PipelinePlan) -> Desk {
        Desk { plan, open: Mutex::new(None) }
    }

    /// The pipeline has opened its directory.
    pub fn open(&self, store: &Arc<RocksStore>, letters: &Arc<Letters>, tell: Tell) {
        *self.held() = Some(Open { store: Arc::downgrade(store), letters: Arc::downgrade(letters), tell });
    }

    fn held(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while the pipeline does not run.
    pub fn letters(&self) -> Option<Arc<Letters>> {
        self.held().as_ref()?.letters.upgrade()
    }

    /// `None` while the pipeline does not run.
    pub fn store(&self) -> Option<Arc<RocksStore>> {
        self.held().as_ref()?.store.upgrade()
    }

    /// Has letters replayed by the tasks of their partitions, and waits until they are settled, or for so long.
    /// `None` while the pipeline does not run.
    pub fn replay(&self, ids: &[LetterId], patience: Duration) -> Option<Replay> {
        self.store()?;
        let tell = self.held().as_ref()?.tell.clone();
        let mut by_partition: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        ids.iter().for_each(|id| by_partition.entry(id.partition).or_default().push(id.seq));
        let asked = by_partition.into_iter().map(|(partition, seqs)| {
            let (answer, answers) = bounded(1);
            let letters = seqs.len() as u64;
            tell(partition as i32, ToTask::Replay(ReplayRequest::new(seqs, answer)));
            (letters, answers)
        });
        let asked: Vec<(u64, Receiver<ReplayAnswer>)> = asked.collect();
        let deadline = Instant::now() + patience;
        let mut replay = Replay::default();
        for (letters, answers) in asked {
            match answers.recv_deadline(deadline) {
                Ok(ReplayAnswer::Done(done)) => {
                    replay.done.replayed += done.replayed;
                    replay.done.failed += done.failed;
                    replay.done.skipped += done.skipped;
                    replay.done.recreated += done.recreated;
                }
                Ok(ReplayAnswer::Refused(why)) => replay.refused.push(why),
                // It takes its time, or its task went away: what it has stored goes on with the next one.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => replay.under_way += letters,
            }
        }
        Some(replay)
    }

    /// Has a block discarded by the task of its partition, and waits for the answer. `None` for a token that names no
    /// partition, or while the pipeline does not run.
    pub fn discard(&self, token: &str, force: bool, now_ms: u64, patience: Duration) -> Option<DiscardAnswer> {
        self.store()?;
        let tell = self.held().as_ref()?.tell.clone();
        let partition = token.split('/').nth(2)?.parse().ok()?;
        let (answer, answers) = bounded(1);
        let until_ms = now_ms + patience.as_millis() as u64;
        tell(partition, ToTask::Discard(DiscardRequest { token: token.to_owned(), force, answer, until_ms }));
        // A little more than the task waits, so that its refusal is heard.
        Some(answers.recv_timeout(patience + Duration::from_secs(1)).unwrap_or(DiscardAnswer::Unknown))
    }
}
