//! From "this partition is yours" to a task that can run: gathers the facts, lets `recovery` decide, builds.
//!
//! Owns what all tasks of a pipeline begin with: the store, the factory of inputs and steps, the noted ends. Runs
//! on the coordinator's thread; asks the broker, never commits.

mod range;
mod replay;

use crate::clock::Clock;
use crate::config::plan::StartAt;
use crate::error::{Error, Kind, Result};
use crate::metrics::PipelineStats;
use crate::runtime::chain::Chain;
use crate::runtime::commit::{CommitLog, History, Patience};
use crate::runtime::compile::InputRoles;
use crate::runtime::inputs::{Pass, TaskInput, TaskInputs};
use crate::runtime::recovery::{self, Base, Case, Facts, MarkPlan, Policy, Start};
use crate::runtime::task::{Stage, TaskId, TaskStart};
use crate::source::{CommittedOffsets, Group, Input, TopicInfo, Wake};
use crate::state::ledger::{self, Counts, Ledger, Mark, Moment, PartitionsSeen, RecordName, TaskEntry};
use crate::state::{StateStore, Table, WriteBatch};
use crate::types::{Incarnation, TaskNo, TopicId};
use range::{closed_before, tables_first, watermark_cap_ms};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes the moving parts of a task; the pipeline's compiled plan.
pub trait TaskFactory: Send + Sync {
    /// The inputs on these queues, and the steps with their state under `task`.
    fn parts(
        &self,
        partition: i32,
        task: TaskNo,
        queues: Vec<Box<dyn Input>>,
        counts: Option<Counts>,
    ) -> Result<(Vec<TaskInput>, Chain)>;
    /// What wakes the worker that this partition is pinned to.
    fn waker(&self, partition: i32) -> Arc<dyn Wake>;
    /// The longest sum of windows along a path of steps: `None` without state, `Some(None)` without limit.
    fn reach_ms(&self) -> Option<Option<i64>>;
}

/// What does not change between the tasks of a pipeline.
pub struct OpeningSettings {
    pub pipeline: usize,
    pub name: String,
    /// Topic and where a group without offsets begins, in the plan's order.
    pub topics: Vec<(String, StartAt)>,
    /// Hash of the parts of the plan that state depends on.
    pub plan: u64,
    pub policy: Policy,
    pub halt_on_growth: bool,
    pub roles: InputRoles,
    pub session_timeout_ms: u64,
    /// Noted ends per partition and topic under `--until-end`.
    pub ends: Option<BTreeMap<i32, Vec<i64>>>,
}

pub struct Opening {
    settings: OpeningSettings,
    store: Arc<dyn StateStore>,
    factory: Arc<dyn TaskFactory>,
    clock: Arc<dyn Clock>,
    stats: Arc<PipelineStats>,
    /// Draws incarnations.
    random: Box<dyn FnMut() -> [u8; 16] + Send>,
    partitions: Option<PartitionsSeen>,
    /// The ids that each running task knows: one that begins now knows newer ones than the others.
    topic_ids: BTreeMap<i32, Vec<TopicId>>,
    retain_left_ms: i64,
}

/// A partition whose beginning is decided.
pub struct Opened {
    pub partition: i32,
    /// Where its inputs begin, per topic.
    pub fetch_from: Vec<i64>,
    start: Start,
    mark: Mark,
    /// The mark's acknowledged moment in the order of the plan's topics.
    begins: Moment,
    /// Where state-only reading begins and the moment it ends with.
    reread: Option<(Moment, Moment)>,
    ledger: Option<Ledger>,
    /// Where the topics end now.
    log_ends: Vec<i64>,
}

/// How much each table of the state takes now.
pub fn show_state_bytes(store: &dyn StateStore, stats: &PipelineStats) {
    Table::ALL.into_iter().for_each(|table| stats.set_state_bytes(table.name(), store.table_bytes(table)));
}

impl Opening {
    pub fn new(
        settings: OpeningSettings,
        store: Arc<dyn StateStore>,
        factory: Arc<dyn TaskFactory>,
        clock: Arc<dyn Clock>,
        stats: Arc<PipelineStats>,
        random: Box<dyn FnMut() -> [u8; 16] + Send>,
        retain_left_ms: i64,
    ) -> Opening {
        Opening {
            settings,
            store,
            factory,
            clock,
            stats,
            random,
            partitions: None,
            topic_ids: BTreeMap::new(),
            retain_left_ms,
        }
    }

    pub fn pipeline(&self) -> usize {
        self.settings.pipeline
    }

    pub fn has_ends(&self) -> bool {
        self.settings.ends.is_some()
    }

    pub fn ends(&self) -> Option<&BTreeMap<i32, Vec<i64>>> {
        self.settings.ends.as_ref()
    }

    /// Decides how each of the partitions begins. One of which the broker does not tell now what has to be known (it has no
    /// leader) comes with that error, and holds up no other.
    pub fn open(&mut self, group: &mut dyn Group, partitions: &[i32]) -> Result<Vec<(i32, Result<Opened>)>> {
        if partitions.is_empty() {
            return Ok(vec![]);
        }
        let topics = self.without_growth(self.all_there(group.topics()?)?)?;
        let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
        self.topic_ids.extend(partitions.iter().map(|partition| (*partition, ids.clone())));
        let committed = group.committed(partitions)?;
        let group_has_offsets = committed.iter().any(|c| c.offsets[0].is_some()) || group.has_any_offset()?;
        let mut opened = Vec::new();
        for (partition, committed) in partitions.iter().zip(&committed) {
            match self.open_one(group, *partition, committed, &topics, group_has_offsets) {
                Err(error) if error.kind != Kind::Retry => return Err(error),
                answer => opened.push((*partition, answer)),
            }
        }
        Ok(opened)
    }

    /// The running tasks that know a topic by another id than it has now; more partitions are an error of their own.
    pub fn topics_changed(&mut self, topics: Vec<TopicInfo>) -> Result<Vec<i32>> {
        let topics = self.without_growth(self.all_there(topics)?)?;
        let differs = |ids: &[TopicId]| topics.iter().zip(ids).any(|(topic, id)| topic.id != *id);
        Ok(self.topic_ids.iter().filter(|(_, ids)| differs(ids)).map(|(partition, _)| *partition).collect())
    }

    /// A topic that is not there while tasks of ours run may be about to be made anew: that is waited for.
    fn all_there(&self, topics: Vec<TopicInfo>) -> Result<Vec<TopicInfo>> {
        match topics.iter().find(|topic| topic.partitions == 0) {
            Some(gone) if !self.topic_ids.is_empty() => Err(Error::retry(
                "topic_gone",
                format!("topic `{}` was deleted: waiting until it is created again", gone.name),
            )),
            _ => Ok(topics),
        }
    }

    /// Whether what is committed has reached every noted end.
    pub fn all_at_ends(&self, group: &mut dyn Group) -> Result<bool> {
        let Some(ends) = &self.settings.ends else { return Ok(false) };
        let partitions: Vec<i32> = ends.keys().copied().collect();
        let committed = group.committed(&partitions)?;
        let reached = |(committed, ends): (&CommittedOffsets, &Vec<i64>)| {
            committed.offsets.iter().zip(ends).all(|(offset, end)| offset.unwrap_or(0) >= *end)
        };
        Ok(committed.iter().zip(ends.values()).all(reached))
    }

    /// Deletes the state of partitions that left longer ago than `retain_left`.
    pub fn forget_left(&mut self) {
        let oldest_ms = self.clock.wall_ms() - self.retain_left_ms;
        if let Err(error) =
            ledger::retire_left(&*self.store, oldest_ms).and_then(|()| ledger::clear_retired(&*self.store))
        {
            tracing::warn!(pipeline = self.settings.name, "cannot delete the state of partitions that left: {error}");
        }
        show_state_bytes(&*self.store, &self.stats);
    }

    /// The topics as they are now: no more partitions than before.
    fn without_growth(&mut self, topics: Vec<TopicInfo>) -> Result<Vec<TopicInfo>> {
        need_equal_counts(&topics)?;
        let first = &topics[0];
        let now = PartitionsSeen { topic: first.id, partitions: first.partitions };
        // Kept with the state: a restart must not make an old growth look like nothing.
        let before = match self.partitions {
            None => ledger::partitions_seen(&*self.store)?,
            known => known,
        };
        // A topic that was created anew has no past to grow from.
        let before = before.filter(|before| before.topic == now.topic);
        let grown = before.is_some_and(|before| now.partitions > before.partitions);
        if grown && self.settings.halt_on_growth && self.factory.reach_ms().is_some() {
            return Err(Error::stop(
                "partition_growth",
                format!(
                    "topic `{}` grew from {} to {} partitions: keys move to other partitions, so duplicates of old \
                     keys would pass; drain and reset, or allow it with `on_partition_growth: continue`",
                    first.name,
                    before.map_or(0, |before| before.partitions),
                    first.partitions
                ),
            ));
        }
        if self.partitions.replace(now) != Some(now) {
            ledger::note_partitions(&*self.store, now)?;
        }
        Ok(topics)
    }

    fn open_one(
        &mut self,
        group: &mut dyn Group,
        partition: i32,
        committed: &CommittedOffsets,
        topics: &[TopicInfo],
        group_has_offsets: bool,
    ) -> Result<Opened> {
        let ledger = ledger::load(&*self.store, partition)?;
        let mut logs = Vec::new();
        for topic in 0..topics.len() {
            logs.push(group.log_range(topic, partition)?);
        }
        let start = recovery::decide(&Facts {
            pipeline: &self.settings.name,
            partition,
            plan: self.settings.plan,
            ledger: ledger.as_ref(),
            committed,
            topics,
            tables: &self.settings.roles.tables,
            logs: &logs,
            group_has_offsets,
            policy: self.settings.policy,
        })?;
        self.stats.recovered(start.case.name());
        let mut opened = self.resolve(group, partition, start, ledger, topics, &logs)?;
        self.close_gaps(&mut opened, &logs)?;
        tracing::info!(
            pipeline = self.settings.name,
            partition,
            case = opened.start.case.name(),
            epoch = opened.mark.acknowledged.epoch.0,
            from = ?opened.fetch_from,
            "task begins"
        );
        opened.start.warnings.iter().for_each(|warning| tracing::warn!(pipeline = self.settings.name, "{warning}"));
        Ok(opened)
    }

    /// Turns the decision into numbers: the mark, where to fetch from, what to re-read.
    fn resolve(
        &mut self,
        group: &mut dyn Group,
        partition: i32,
        start: Start,
        ledger: Option<Ledger>,
        topics: &[TopicInfo],
        logs: &[(i64, i64)],
    ) -> Result<Opened> {
        let named: Vec<(String, TopicId)> = topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
        let mut mark = match &start.mark {
            MarkPlan::Keep(mark) => self.align(group, partition, mark, &named, logs)?,
            MarkPlan::New { positions } => self.new_mark(group, partition, positions, logs)?,
        };
        mark.plan = self.settings.plan;
        mark.topics = named;
        let mut reread = None;
        let fetch_from = match &start.base {
            Base::Ledger => ledger.as_ref().map_or_else(Vec::new, |ledger| ledger.checkpoint.moment.positions()),
            Base::DeliverFirst | Base::Empty => mark.acknowledged.positions(),
            Base::CatchUp => {
                let from = ledger.as_ref().expect("catching up starts from a ledger").checkpoint.moment.clone();
                let positions = from.positions();
                reread = Some((from, mark.acknowledged.clone()));
                positions
            }
            Base::Reread { origin, watermarks } => {
                // That of a history that goes on, in the order of the plan's topics.
                let origin = if start.case == Case::Reset { origin } else { &mark.origin };
                let (from, to) = self.reread_range(group, partition, &start, &mark, origin, *watermarks, logs)?;
                if start.case == Case::Reset {
                    mark.origin = from.clone();
                    mark.acknowledged = to.clone();
                }
                reread = Some((recovery::beginning(mark.incarnation, &from), to));
                from
            }
        };
        let log_ends = logs.iter().map(|log| log.1).collect();
        let begins = mark.acknowledged.clone();
        if let (Base::DeliverFirst, MarkPlan::Keep(former)) = (&start.base, &start.mark) {
            // What is stored goes out as the plan said that made it, inputs and all.
            mark = (**former).clone();
        }
        Ok(Opened { partition, fetch_from, start, mark, begins, reread, ledger, log_ends })
    }

    /// A mark in the order of the plan's topics: one that the mark does not know begins at its own start.
    fn align(
        &mut self,
        group: &mut dyn Group,
        partition: i32,
        mark: &Mark,
        topics: &[(String, TopicId)],
        logs: &[(i64, i64)],
    ) -> Result<Mark> {
        let same = mark.topics.len() == topics.len() && mark.topics.iter().zip(topics).all(|(a, b)| a.0 == b.0);
        if same {
            let mut mark = mark.clone();
            self.cut_pending(&mut mark);
            return Ok(mark);
        }
        let place = |name: &str| mark.topics.iter().position(|(known, _)| known == name);
        let mut aligned = mark.clone();
        aligned.acknowledged.inputs.clear();
        aligned.origin.clear();
        aligned.acknowledged.idle = 0;
        for (topic, (name, _)) in topics.iter().enumerate() {
            match place(name) {
                Some(at) => {
                    aligned.acknowledged.inputs.push(mark.acknowledged.inputs[at]);
                    aligned.origin.push(mark.origin[at]);
                }
                None => {
                    let position = self.resolve_start(group, topic, partition, logs)?;
                    aligned.acknowledged.inputs.push(ledger::Progress { position, high_ms: i64::MIN });
                    aligned.origin.push(position);
                }
            }
        }
        if let Some(closed) = &mut aligned.acknowledged.closed {
            let begins = aligned.acknowledged.inputs.iter().map(|input| input.position);
            let known = topics.iter().map(|(name, _)| place(name)).zip(begins);
            *closed = known.map(|(place, begins)| place.map_or(begins, |at| closed[at])).collect();
        }
        if let Some(pending) = &mut aligned.pending {
            let inputs = mark.topics.len();
            let positions = topics.iter().enumerate();
            let old = pending.clone();
            pending.positions = positions
                .map(|(topic, (name, _))| {
                    place(name).map_or(aligned.acknowledged.inputs[topic].position, |at| old.positions[at])
                })
                .collect();
            // A record of a topic that is no input any more cannot be made again.
            let moved = |name: &RecordName| -> Option<RecordName> {
                let (of, _) = mark.topics.get(name.input as usize)?;
                let input = topics.iter().position(|(topic, _)| topic == of)? as u16;
                Some(RecordName { input, ..*name })
            };
            pending.replay = old.replay.iter().filter_map(moved).collect();
            pending.replay.sort_unstable();
            let cut = |pass: &[u64]| -> Vec<u64> {
                topics.iter().map(|(name, _)| place(name).map_or(0, |at| pass[at])).collect()
            };
            pending.cuts.0 = old.cuts.0.chunks(inputs).flat_map(cut).collect();
            pending.idle = 0;
        }
        self.cut_pending(&mut aligned);
        Ok(aligned)
    }

    /// A pending of a plan whose passes had no cuts, where ours have some: its ranges are one pass.
    fn cut_pending(&self, mark: &mut Mark) {
        let Some(pending) = mark.pending.as_mut().filter(|pending| pending.cuts.0.is_empty()) else { return };
        let from = mark.acknowledged.inputs.iter().map(|input| input.position);
        let advance: Vec<u64> =
            pending.positions.iter().zip(from).map(|(to, from)| (to - from).max(0) as u64).collect();
        if self.settings.roles.is_merged && advance.iter().any(|by| *by > 0) {
            pending.cuts.0 = advance;
        }
    }

    fn resolve_start(&self, group: &mut dyn Group, topic: usize, partition: i32, logs: &[(i64, i64)]) -> Result<i64> {
        match self.settings.topics[topic].1 {
            StartAt::Earliest => Ok(logs[topic].0),
            StartAt::Latest => Ok(logs[topic].1),
            StartAt::TimeMs(at_ms) => group.offset_at(topic, partition, at_ms),
        }
    }

    fn new_mark(
        &mut self,
        group: &mut dyn Group,
        partition: i32,
        positions: &[Option<i64>],
        logs: &[(i64, i64)],
    ) -> Result<Mark> {
        let mut resolved = Vec::new();
        for (topic, position) in positions.iter().enumerate() {
            resolved.push(match position {
                Some(position) => *position,
                None => self.resolve_start(group, topic, partition, logs)?,
            });
        }
        let incarnation = Incarnation((self.random)());
        Ok(Mark {
            pipeline: self.settings.name.clone(),
            incarnation,
            origin: resolved.clone(),
            plan: self.settings.plan,
            topics: vec![],
            acknowledged: recovery::beginning(incarnation, &resolved),
            pending: None,
        })
    }

    /// A position that processing needs and the log does not have.
    fn close_gaps(&mut self, opened: &mut Opened, logs: &[(i64, i64)]) -> Result<()> {
        if opened.start.base == Base::DeliverFirst {
            return Ok(());
        }
        let needed = match &opened.reread {
            Some((_, to)) => to.positions(),
            None => opened.fetch_from.clone(),
        };
        for (topic, (position, log)) in needed.iter().zip(logs).enumerate() {
            let inside = (*position).clamp(log.0, log.1.max(log.0));
            if inside == *position {
                continue;
            }
            let name = &self.settings.topics[topic].0;
            let partition = opened.partition;
            let told = match *position < log.0 {
                true => format!(
                    "records {position} to {} of `{name}` partition {partition} are gone before they were processed",
                    log.0
                ),
                false => format!(
                    "the log of `{name}` partition {partition} ends at {}, before our position {position}: records were \
                     lost by the cluster",
                    log.1
                ),
            };
            self.stats.recovered("gap");
            if self.settings.policy.halt_on_gap {
                return Err(Error::stop("gap", format!("{told} (on_gap: halt); allow it with `on_gap: continue`")));
            }
            opened.start.warnings.push(format!("{told}; going on behind the gap"));
            opened.fetch_from[topic] = opened.fetch_from[topic].clamp(log.0, log.1.max(log.0));
            opened.skip_to(topic, inside);
        }
        self.cut_forced(opened, logs)
    }

    /// An epoch that the mark names is made of what its log still has: up to its end, and behind the gap.
    fn cut_forced(&mut self, opened: &mut Opened, logs: &[(i64, i64)]) -> Result<()> {
        let Some(pending) = opened.mark.pending.as_ref().filter(|_| opened.start.forced.is_some()) else {
            return Ok(());
        };
        for (topic, (position, log)) in pending.positions.iter().zip(logs).enumerate() {
            if *position <= log.1 {
                continue;
            }
            let name = &self.settings.topics[topic].0;
            let told = format!(
                "the log of `{name}` partition {} ends at {}, before the end of the announced epoch, {position}: records \
                 were lost by the cluster",
                opened.partition, log.1
            );
            self.stats.recovered("gap");
            if self.settings.policy.halt_on_gap {
                return Err(Error::stop("gap", format!("{told} (on_gap: halt); allow it with `on_gap: continue`")));
            }
            opened.start.warnings.push(format!("{told}; going on with what is there"));
        }
        let from = opened.begins.positions();
        let pending = opened.mark.pending.as_mut().expect("it was just looked at");
        pending.cut_to(&from, logs);
        Ok(())
    }

    /// Builds the task.
    pub fn start(&mut self, group: &mut dyn Group, id: TaskId, opened: Opened) -> Result<TaskStart> {
        let Opened { partition, fetch_from: _, start, mark, begins, reread, ledger, log_ends } = opened;
        let keeps_state = matches!(start.base, Base::Ledger | Base::CatchUp | Base::DeliverFirst);
        let (state, retires) = match (&ledger, keeps_state) {
            (Some(ledger), true) => (ledger.task, None),
            (ledger, _) => (self.draw_task()?, ledger.as_ref().map(|ledger| ledger.task)),
        };
        let replay = self.replay_start(group, partition, &start, &mark, ledger.as_ref())?;
        let counts = ledger.as_ref().filter(|_| keeps_state).map(|ledger| ledger.checkpoint.counts.clone());
        let mut queues = Vec::new();
        for topic in 0..self.settings.topics.len() {
            queues.push(group.input(topic, partition, self.factory.waker(partition))?);
        }
        let (moment, cap_ms) = match (&reread, &start.base, &ledger) {
            (Some((from, to)), _, _) => (from.clone(), watermark_cap_ms(to)),
            (None, Base::Ledger, Some(ledger)) => (ledger.checkpoint.moment.clone(), i64::MAX),
            _ => (begins, i64::MAX),
        };
        let begins = match (&start.forced, &mark.pending, &reread) {
            (Some(_), Some(pending), _) => pending.positions.clone(),
            (_, _, Some((_, to))) => to.positions(),
            _ => moment.positions(),
        };
        // A partition that was added after the ends were noted has none: nothing of it is read.
        let noted = |ends: &BTreeMap<i32, Vec<i64>>| ends.get(&partition).cloned().unwrap_or_else(|| begins.clone());
        let ends = self.settings.ends.as_ref().map(noted);
        let tables_first = tables_first(&self.settings.roles, &begins, &mark.origin, &log_ends);
        let closed = reread.as_ref().map_or_else(|| moment.closed.clone(), |(from, to)| closed_before(from, to));
        let history = match (&start.base, &ledger) {
            (Base::DeliverFirst, Some(ledger)) => history_of_ledger(ledger),
            _ => History {
                pipeline: self.settings.name.clone(),
                incarnation: mark.incarnation,
                origin: mark.origin.clone(),
                plan: self.settings.plan,
                topics: mark.topics.clone(),
            },
        };
        let held = ledger.map(|ledger| ledger.epochs).unwrap_or_default();
        let (epochs, drops) = match start.base {
            Base::Ledger | Base::DeliverFirst => (held, vec![]),
            Base::CatchUp => {
                (vec![], held.iter().map(|epoch| (epoch.after.epoch, epoch.outputs.len() as u16)).collect())
            }
            _ => (vec![], vec![]),
        };
        let must_accept = start.must_accept();
        let reread_to = reread.as_ref().map(|(_, to)| to.clone());
        let stage = match (&start.base, &start.forced, reread) {
            (Base::DeliverFirst, _, _) => Stage::DeliverFirst,
            (_, _, Some((_, to))) => Stage::Rereading { to: Box::new(to) },
            (_, Some(pending), None) => {
                Stage::Forcing(Box::new(mark.pending.clone().unwrap_or_else(|| pending.clone())))
            }
            _ => Stage::Running,
        };
        let forced = start.forced.as_ref().and(mark.pending.clone());
        let stage =
            if must_accept && stage != Stage::DeliverFirst { Stage::Adopting { then: Box::new(stage) } } else { stage };
        let patience = Patience::new(self.settings.session_timeout_ms);
        let (inputs, mut chain) = self.factory.parts(partition, state, queues, counts)?;
        let mut inputs = TaskInputs::new(inputs, &moment, cap_ms);
        let mut nothing = Pass::default();
        inputs.empty_pass(&mut nothing);
        chain.begin(&nothing);
        reread_to.iter().for_each(|to| inputs.cap_highs(to));
        Ok(TaskStart {
            id,
            state,
            retires,
            log: CommitLog::new(history, state, mark, epochs, forced, start.is_remembered, patience),
            inputs,
            chain,
            stage,
            drops,
            replay,
            ends,
            tables_first,
            closed,
        })
    }

    fn draw_task(&mut self) -> Result<TaskNo> {
        let mut batch = WriteBatch::default();
        let task = ledger::draw_task(&*self.store, &mut batch)?;
        self.store.write(&batch)?;
        Ok(task)
    }

    /// A partition went to somebody else; its state stays for `retain_left`.
    pub fn left(&mut self, partition: i32) {
        self.topic_ids.remove(&partition);
        let noted = self.store.get(Table::Ledger, &ledger::key::partition(partition));
        let entry = noted.ok().flatten().and_then(|bytes| ledger::decode::<TaskEntry>(&bytes).ok());
        let Some(entry) = entry else { return };
        let mut batch = WriteBatch::default();
        let entry = TaskEntry { left_ms: self.clock.wall_ms(), ..entry };
        batch.put(Table::Ledger, ledger::key::partition(partition), ledger::encode(&entry));
        if let Err(error) = self.store.write(&batch) {
            tracing::warn!(pipeline = self.settings.name, partition, "cannot note that the partition left: {error}");
        }
    }
}

impl Opened {
    /// Processing begins behind a gap; what is committed stays as it is until the next epoch says otherwise.
    fn skip_to(&mut self, topic: usize, position: i64) {
        if let Some((from, to)) = &mut self.reread {
            to.inputs[topic].position = position;
            from.inputs[topic].position = from.inputs[topic].position.min(position);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.checkpoint.moment.inputs[topic].position = position;
        }
        if self.start.base == Base::Empty {
            self.mark.acknowledged.inputs[topic].position = position;
            self.begins.inputs[topic].position = position;
        }
    }
}

fn history_of_ledger(ledger: &Ledger) -> History {
    let checkpoint = &ledger.checkpoint;
    History {
        pipeline: checkpoint.pipeline.clone(),
        incarnation: checkpoint.incarnation,
        origin: checkpoint.origin.clone(),
        plan: checkpoint.plan,
        topics: checkpoint.topics.clone(),
    }
}

/// A task is the same partition of all topics: each has to be there, with as many partitions as the others.
pub(super) fn need_equal_counts(topics: &[TopicInfo]) -> Result<()> {
    let first = &topics[0];
    for topic in topics {
        if topic.partitions == 0 {
            return Err(Error::stop(
                "missing_topic",
                format!("topic `{}` does not exist: create it, weir never does", topic.name),
            ));
        }
        if topic.partitions != first.partitions {
            return Err(Error::stop(
                "partition_counts",
                format!(
                    "topic `{}` has {} partitions and `{}` has {}: the inputs of a pipeline need equal counts; \
                     repartition one of them",
                    first.name, first.partitions, topic.name, topic.partitions
                ),
            ));
        }
    }
    Ok(())
}
