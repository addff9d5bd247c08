//! The coordinator of one pipeline: the group's events, the start of tasks, every commit.
//!
//! Owns the group member and the assignment. One thread drives it by `tick`; it holds no thread, no channel and no
//! clock itself, so the simulation runs this very code. Promises: waiting events are served before anything is
//! committed; one commit is under way at a time; what was prepared under another assignment is dropped; nobody
//! else commits.

use crate::error::{Error, Kind, Result};
use crate::metrics::{PipelineState, PipelineStats, TaskSnapshot};
use crate::runtime::limits;
use crate::runtime::opening::Opening;
use crate::runtime::scattered::Scattered;
use crate::runtime::task::{FromTask, TaskId, TaskStart, ToTask};
use crate::source::{CommitOutcome, Group, GroupEvent, OffsetsToCommit, TopicInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How tasks are reached: the workers' inboxes, or the simulation's.
pub trait Workers {
    fn start(&mut self, start: Box<TaskStart>);
    fn tell(&mut self, task: TaskId, message: ToTask);
    /// The task goes at once, with what it has not stored.
    fn drop_task(&mut self, task: TaskId);
}

/// A task of ours.
#[derive(Debug)]
struct Owned {
    id: TaskId,
    /// The newest commit it asks for, not yet sent.
    offer: Option<(u64, OffsetsToCommit)>,
    /// It has said `Gone` (or was dropped) and holds no queue any more.
    gone: bool,
    /// When it is gone, how it begins is decided again.
    anew: bool,
    finished: bool,
}

/// The commit request that waits for its answer.
#[derive(Debug)]
struct Underway {
    id: u64,
    handed_ms: u64,
    offers: Vec<(TaskId, u64)>,
}

/// Partitions that are on their way out.
#[derive(Debug)]
struct Leaving {
    partitions: Vec<i32>,
    /// After this the tasks are dropped.
    deadline_ms: u64,
    dropped: bool,
}

/// Where the pipeline is.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress {
    Going,
    /// Everything is delivered, committed, and the member is out as it should be.
    Done,
    Failed(Error),
}

/// Times of the group, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupTimes {
    pub session_timeout_ms: u64,
}

impl GroupTimes {
    /// A revocation takes at most this, or the whole group waits.
    fn revoke_ms(&self) -> u64 {
        (self.session_timeout_ms / 3).min(10_000)
    }
}

/// How the pipeline is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stopping {
    /// The member stays in the group (its partitions wait for it).
    Stay,
    /// The member leaves (`--until-end`, pause, delete).
    Leave,
}

pub struct Coordinator {
    group: Box<dyn Group>,
    opening: Opening,
    stats: Arc<PipelineStats>,
    times: GroupTimes,
    owned: BTreeMap<i32, Owned>,
    assignments: u64,
    commits: u64,
    underway: Option<Underway>,
    leaving: Option<Leaving>,
    /// No commit between a revocation or loss and the next assignment.
    between: bool,
    fenced: bool,
    stopping: Option<Stopping>,
    until_end: bool,
    assigned_once: bool,
    next_retry_ms: u64,
    next_look_ms: u64,
    /// A question about the topics is under way.
    asking: bool,
    /// The connection may be another one now: nothing is committed before the topics were compared.
    unsure: bool,
    /// That came to be so after the question under way was asked.
    trouble_meanwhile: bool,
    /// Partitions of ours that cannot begin now, and when that is tried again.
    postponed: BTreeSet<i32>,
    next_open_ms: Option<u64>,
    scattered: Scattered,
    progress: Progress,
}

impl Coordinator {
    pub fn new(group: Box<dyn Group>, opening: Opening, stats: Arc<PipelineStats>, times: GroupTimes) -> Coordinator {
        Coordinator {
            until_end: opening.has_ends(),
            group,
            opening,
            stats,
            times,
            owned: BTreeMap::new(),
            assignments: 0,
            commits: 0,
            underway: None,
            leaving: None,
            between: false,
            fenced: false,
            stopping: None,
            assigned_once: false,
            next_retry_ms: 0,
            next_look_ms: 0,
            asking: false,
            unsure: false,
            trouble_meanwhile: false,
            postponed: BTreeSet::new(),
            next_open_ms: None,
            scattered: Scattered::default(),
            progress: Progress::Going,
        }
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Joins the group.
    pub fn join(&mut self) -> Result<()> {
        self.group.join()
    }

    /// Seal, deliver, commit, stop; the member stays in the group.
    pub fn stop(&mut self, workers: &mut dyn Workers, boot_ms: u64) {
        self.begin_stop(Stopping::Stay, workers, boot_ms + limits::STOP_WAIT_MS);
    }

    /// Serves the group's events and the tasks' messages, then commits what is to be said.
    pub fn tick(&mut self, messages: Vec<(TaskId, FromTask)>, workers: &mut dyn Workers, boot_ms: u64, wait: Duration) {
        if self.progress != Progress::Going {
            return;
        }
        let mut wait = wait;
        while let Some(event) = self.group.poll(wait) {
            wait = Duration::ZERO;
            if let Err(error) = self.serve(event, workers, boot_ms) {
                return self.fail(error, workers);
            }
        }
        for (task, message) in messages {
            if let Err(error) = self.hear(task, message, workers) {
                return self.fail(error, workers);
            }
        }
        self.continue_leaving(workers, boot_ms);
        if let Err(error) = self.continue_anew(workers).and_then(|()| self.continue_postponed(workers, boot_ms)) {
            return self.fail(error, workers);
        }
        if let Err(error) = self.look_around(workers, boot_ms) {
            return self.fail(error, workers);
        }
        self.commit(workers, boot_ms);
        self.continue_stopping(workers);
    }

    /// The pipeline cannot go on: its tasks go at once, nothing more is sent or committed.
    fn fail(&mut self, error: Error, workers: &mut dyn Workers) {
        self.owned.values().filter(|task| !task.gone).for_each(|task| workers.drop_task(task.id));
        self.stats.failed_with(error.message.clone());
        self.stats.set_state(PipelineState::Failed);
        self.progress = Progress::Failed(error);
    }

    fn serve(&mut self, event: GroupEvent, workers: &mut dyn Workers, boot_ms: u64) -> Result<()> {
        match event {
            GroupEvent::Assigned(partitions) => self.assigned(partitions, workers),
            GroupEvent::Revoked { partitions, lost } => self.revoked(partitions, lost, workers, boot_ms),
            GroupEvent::Committed { id, outcome } => {
                self.answered(id, outcome, workers, boot_ms);
                Ok(())
            }
            GroupEvent::Fatal(error) => Err(error),
            GroupEvent::Trouble(error) => {
                tracing::warn!(pipeline = self.stats.pipeline, code = error.code, "{error}");
                self.stats.failed_with(error.message);
                self.be_unsure();
                Ok(())
            }
        }
    }

    fn assigned(&mut self, partitions: Vec<i32>, workers: &mut dyn Workers) -> Result<()> {
        self.between = false;
        self.assigned_once = true;
        self.stats.rebalances.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if std::mem::take(&mut self.fenced) {
            self.owned.values().for_each(|task| workers.tell(task.id, ToTask::Fenced(false)));
        }
        tracing::info!(pipeline = self.stats.pipeline, ?partitions, "assigned");
        self.begin_tasks(&partitions, workers, false)?;
        // Only now: whoever asks whether we are ready hears of tasks that restore, too.
        if self.stopping.is_none() {
            self.stats.set_state(PipelineState::Running);
        }
        Ok(())
    }

    /// Decides how each partition begins, takes it on from there, and hands it to its worker.
    fn begin_tasks(&mut self, partitions: &[i32], workers: &mut dyn Workers, again: bool) -> Result<()> {
        self.assignments += 1;
        if again {
            // Before the questions below take their time: a client takes any unassignment for the answer to a revocation
            // that it has noted meanwhile and not told yet, and would give away what we still work on.
            self.group.unassign(partitions)?;
        }
        let mut starts = Vec::new();
        for (partition, opened) in self.opening.open(&mut *self.group, partitions)? {
            match opened {
                Ok(opened) => starts.push(opened),
                Err(error) => self.postpone(partition, error),
            }
        }
        let offsets: Vec<(i32, Vec<i64>)> =
            starts.iter().map(|opened| (opened.partition, opened.fetch_from.clone())).collect();
        let assignment = self.assignments;
        for opened in starts {
            let id = TaskId { pipeline: self.opening.pipeline(), partition: opened.partition, assignment };
            let start = self.opening.start(&mut *self.group, id, opened)?;
            self.owned.insert(id.partition, Owned { id, offer: None, gone: false, anew: false, finished: false });
            workers.start(Box::new(start));
            if let Some(stopping) = self.stopping {
                tracing::debug!(?stopping, "assigned while stopping");
                workers.tell(id, ToTask::Drain { deadline_ms: Some(0) });
            }
        }
        self.group.assign(&offsets)
    }

    /// A partition that cannot begin now; it counts as one that restores.
    fn postpone(&mut self, partition: i32, error: Error) {
        tracing::warn!(pipeline = self.stats.pipeline, partition, code = error.code, "{error}; beginning it later");
        self.stats.failed_with(error.message);
        let snapshot = TaskSnapshot { restoring: true, watermark_ms: i64::MIN, ..TaskSnapshot::default() };
        self.stats.set_task(partition, snapshot);
        self.postponed.insert(partition);
        self.next_open_ms = None;
    }

    /// Tries again what could not begin.
    fn continue_postponed(&mut self, workers: &mut dyn Workers, boot_ms: u64) -> Result<()> {
        if self.postponed.is_empty() || self.leaving.is_some() || self.between || self.stopping.is_some() {
            return Ok(());
        }
        if boot_ms < *self.next_open_ms.get_or_insert(boot_ms + limits::OPEN_AGAIN_MS) {
            return Ok(());
        }
        let partitions: Vec<i32> = std::mem::take(&mut self.postponed).into_iter().collect();
        self.begin_tasks(&partitions, workers, false)
    }

    fn revoked(&mut self, partitions: Vec<i32>, lost: bool, workers: &mut dyn Workers, boot_ms: u64) -> Result<()> {
        tracing::info!(pipeline = self.stats.pipeline, ?partitions, lost, "revoked");
        let deadline_ms = if lost { boot_ms } else { boot_ms + self.times.revoke_ms() };
        for partition in &partitions {
            self.postponed.remove(partition);
            let Some(task) = self.owned.get_mut(partition) else { continue };
            task.anew = false;
            match lost {
                true => {
                    workers.drop_task(task.id);
                    task.offer = None;
                }
                false => workers.tell(task.id, ToTask::Drain { deadline_ms: Some(deadline_ms) }),
            }
        }
        if lost {
            // A commit sent now would count for whatever membership comes next.
            self.underway = None;
            self.between = true;
            // Nothing is ours until the group answers again.
            self.stats.set_state(PipelineState::Starting);
        }
        let already = self.leaving.take().map(|leaving| leaving.partitions).unwrap_or_default();
        self.leaving = Some(Leaving { partitions: [already, partitions].concat(), deadline_ms, dropped: lost });
        Ok(())
    }

    /// Now and then, and before the first commit after the connection may have been lost: are the topics still the same
    /// ones, with as many partitions? The answer is not waited for: commits and rebalances go on, or wait by their own
    /// rules.
    fn look_around(&mut self, workers: &mut dyn Workers, boot_ms: u64) -> Result<()> {
        if self.asking {
            return match self.group.topics_told() {
                Some(told) => self.compare_topics(told, workers, boot_ms),
                None => Ok(()),
            };
        }
        let is_quiet = self.leaving.is_none() && self.stopping.is_none() && self.assigned_once;
        let is_due = is_quiet && boot_ms >= self.next_look_ms;
        if is_due && std::mem::replace(&mut self.next_look_ms, boot_ms + limits::LOOK_AROUND_MS) == 0 {
            return Ok(());
        }
        if is_due {
            self.opening.forget_left();
        }
        if is_due || (self.unsure && boot_ms >= self.next_retry_ms) {
            self.group.ask_topics();
            self.asking = true;
        }
        Ok(())
    }

    /// A topic with another id is a loss of all its tasks, which begin anew.
    fn compare_topics(&mut self, told: Result<Vec<TopicInfo>>, workers: &mut dyn Workers, boot_ms: u64) -> Result<()> {
        self.asking = false;
        let is_of_before = std::mem::take(&mut self.trouble_meanwhile);
        match told.and_then(|topics| self.opening.topics_changed(topics)) {
            Ok(partitions) => {
                // What was asked before the trouble says nothing about the topics behind it.
                self.unsure = is_of_before;
                if partitions.is_empty() {
                    return self.finish_without_partitions();
                }
                tracing::warn!(
                    pipeline = self.stats.pipeline,
                    ?partitions,
                    "a topic was deleted and created again: its tasks begin anew"
                );
                self.begin_anew(&partitions, workers);
            }
            // Who cannot be asked now is asked again later.
            Err(error) if error.kind == Kind::Retry => {
                self.next_retry_ms = self.next_retry_ms.max(boot_ms + 100);
                if error.code == "topic_gone" {
                    if !std::mem::replace(&mut self.unsure, true) {
                        tracing::warn!(pipeline = self.stats.pipeline, "{error}");
                    }
                    self.stats.failed_with(error.message);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Under `--until-end`, a member to which the group gives nothing is done when the others are.
    fn finish_without_partitions(&mut self) -> Result<()> {
        if self.until_end
            && self.stopping.is_none()
            && self.owned.is_empty()
            && self.postponed.is_empty()
            && self.opening.all_at_ends(&mut *self.group)?
        {
            self.stopping = Some(Stopping::Leave);
        }
        Ok(())
    }

    /// Drops these tasks with what they have not stored. When they are gone, and not before (they may be storing), how
    /// they begin is decided again.
    fn begin_anew(&mut self, partitions: &[i32], workers: &mut dyn Workers) {
        for partition in partitions {
            let leaves = self.leaving.as_ref().is_some_and(|leaving| leaving.partitions.contains(partition));
            if let Some(task) = self.owned.get_mut(partition) {
                (task.anew, task.offer) = (!leaves, None);
                workers.drop_task(task.id);
            }
        }
    }

    /// Begins those again that were dropped for it and are gone. Not while partitions are being given back: unassigning
    /// ours now would be taken for that.
    fn continue_anew(&mut self, workers: &mut dyn Workers) -> Result<()> {
        if self.leaving.is_some() || self.between || self.stopping.is_some() {
            return Ok(());
        }
        let dropped = self.owned.values().filter(|task| task.anew && task.gone);
        let partitions: Vec<i32> = dropped.map(|task| task.id.partition).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        partitions.iter().for_each(|partition| _ = self.owned.remove(partition));
        self.begin_tasks(&partitions, workers, true)
    }

    /// Gives partitions back when their tasks hold no queue any more.
    fn continue_leaving(&mut self, workers: &mut dyn Workers, boot_ms: u64) {
        let Some(leaving) = &mut self.leaving else { return };
        let holds = |partition: &&i32| self.owned.get(partition).is_some_and(|task| !task.gone);
        let holding: Vec<i32> = leaving.partitions.iter().filter(holds).copied().collect();
        if !holding.is_empty() {
            if boot_ms >= leaving.deadline_ms && !leaving.dropped {
                leaving.dropped = true;
                holding.iter().for_each(|partition| workers.drop_task(self.owned[partition].id));
            }
            return;
        }
        // What is acknowledged is said before the partition goes, as far as the deadline allows.
        let unsaid = self.underway.is_some() && boot_ms < leaving.deadline_ms;
        if unsaid {
            return;
        }
        let leaving = self.leaving.take().expect("it was just looked at");
        for partition in &leaving.partitions {
            self.owned.remove(partition);
            self.stats.forget_task(*partition);
            self.opening.left(*partition);
        }
        self.between = true;
        if let Err(error) = self.group.unassign(&leaving.partitions) {
            self.fail(error, workers);
        }
    }

    fn hear(&mut self, id: TaskId, message: FromTask, workers: &mut dyn Workers) -> Result<()> {
        let lost = |leaving: &Leaving| leaving.dropped && leaving.partitions.contains(&id.partition);
        let can_commit = !self.leaving.as_ref().is_some_and(lost);
        // What an older assignment still says is about a task that is not there any more.
        let Some(task) = self.owned.get_mut(&id.partition).filter(|task| task.id == id) else {
            return Ok(());
        };
        match message {
            // What was said before the loss was heard.
            FromTask::Offer { .. } if !can_commit => {}
            FromTask::Offer { offer, commit } => task.offer = Some((offer, commit)),
            FromTask::Gone { .. } if task.anew && self.stopping.is_none() => task.gone = true,
            FromTask::Gone { finished } => {
                task.gone = true;
                task.finished = finished;
                task.offer = None;
            }
            FromTask::DecideAgain => self.begin_anew(&[id.partition], workers),
            FromTask::Keys { step, keys } => {
                if let Some((one, other)) = self.scattered.meet(step, id.partition, &keys) {
                    self.say_scattered(step, one, other);
                }
            }
            // A position that the log does not have: retention, or another topic of that name. The start knows.
            FromTask::Failed(error) if error.code == "gap" && self.stopping.is_none() => {
                tracing::warn!(pipeline = self.stats.pipeline, partition = id.partition, "{error}");
                self.begin_anew(&[id.partition], workers);
            }
            FromTask::Failed(error) => return Err(error),
        }
        Ok(())
    }

    #[cold]
    fn say_scattered(&self, step: usize, one: i32, other: i32) {
        let name = &self.stats.steps[step].name;
        let message = format!(
            "the same key of step {name} (dedup) has come through partitions {one} and {other}: duplicates are found \
             within a partition only, so producers have to key by the dedup key"
        );
        tracing::warn!(pipeline = self.stats.pipeline, step = name, "{message}");
        self.stats.scattered(step, message);
    }

    /// Sends the newest offers of all tasks in one request.
    fn commit(&mut self, workers: &mut dyn Workers, boot_ms: u64) {
        if self.underway.is_some() || self.between || self.fenced || self.unsure || boot_ms < self.next_retry_ms {
            return;
        }
        let mut offers = Vec::new();
        let mut commits = Vec::new();
        for task in self.owned.values_mut().filter(|task| !task.gone) {
            if let Some((offer, commit)) = task.offer.take() {
                offers.push((task.id, offer));
                commits.push(commit);
            }
        }
        if commits.is_empty() {
            return;
        }
        self.commits += 1;
        let id = self.commits;
        match self.group.commit(id, &commits) {
            Ok(()) => self.underway = Some(Underway { id, handed_ms: boot_ms, offers }),
            Err(error) if error.kind == Kind::Retry => {
                self.next_retry_ms = boot_ms + 100;
                offers.iter().for_each(|(task, offer)| workers.tell(*task, ToTask::Refused { offer: *offer }));
            }
            Err(error) if error.kind == Kind::Fenced => self.set_fenced(&error.message, workers),
            Err(error) => self.fail(error, workers),
        }
    }

    /// The connection may be another one now.
    fn be_unsure(&mut self) {
        self.unsure = true;
        self.trouble_meanwhile = self.asking;
    }

    fn set_fenced(&mut self, why: &str, workers: &mut dyn Workers) {
        self.stats.committed("fenced");
        tracing::warn!(pipeline = self.stats.pipeline, why, "fenced: nothing is sent until the next assignment");
        self.fenced = true;
        self.owned.values().for_each(|task| workers.tell(task.id, ToTask::Fenced(true)));
    }

    fn answered(&mut self, id: u64, outcome: CommitOutcome, workers: &mut dyn Workers, boot_ms: u64) {
        let Some(underway) = self.underway.take_if(|underway| underway.id == id) else { return };
        // Accepted counts for the assignment under which it was prepared.
        let owned = |task: &TaskId| self.owned.get(&task.partition).is_some_and(|owned| owned.id == *task);
        let offers = underway.offers.iter().filter(|(task, _)| owned(task));
        match outcome {
            CommitOutcome::Accepted => {
                self.stats.committed("accepted");
                let handed_ms = underway.handed_ms;
                offers.for_each(|(task, offer)| workers.tell(*task, ToTask::Accepted { offer: *offer, handed_ms }));
            }
            CommitOutcome::Repeat(why) => {
                self.stats.committed("repeat");
                tracing::debug!(pipeline = self.stats.pipeline, why, "commit not accepted, repeating");
                offers.for_each(|(task, offer)| workers.tell(*task, ToTask::Refused { offer: *offer }));
                self.next_retry_ms = boot_ms + 100;
                self.be_unsure();
            }
            CommitOutcome::Fenced(why) => self.set_fenced(&why, workers),
        }
    }

    fn begin_stop(&mut self, how: Stopping, workers: &mut dyn Workers, deadline_ms: u64) {
        if self.stopping.is_some() || self.progress != Progress::Going {
            return;
        }
        self.stopping = Some(how);
        for task in self.owned.values().filter(|task| !task.gone) {
            workers.tell(task.id, ToTask::Drain { deadline_ms: Some(deadline_ms) });
        }
    }

    fn continue_stopping(&mut self, workers: &mut dyn Workers) {
        let all_gone = self.owned.values().all(|task| task.gone);
        if self.until_end && self.stopping.is_none() && self.assigned_once && !self.owned.is_empty() {
            let finished = self.owned.values().all(|task| task.finished);
            if finished && all_gone && self.postponed.is_empty() {
                self.stopping = Some(Stopping::Leave);
            }
        }
        let Some(stopping) = self.stopping else { return };
        if !all_gone || self.underway.is_some() || self.progress != Progress::Going {
            return;
        }
        let left = match stopping {
            Stopping::Stay => Ok(()),
            Stopping::Leave => self.group.leave(),
        };
        self.stats.set_state(PipelineState::Stopped);
        match left {
            Ok(()) => self.progress = Progress::Done,
            Err(error) => self.fail(error, workers),
        }
    }

    /// Partitions that are ours now.
    pub fn partitions(&self) -> BTreeSet<i32> {
        self.owned.keys().copied().collect()
    }
}
