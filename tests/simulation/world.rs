//! The world of a simulation: a cluster, two tables, some instances with their directories, and time.
//!
//! Single-threaded. Whoever drives it decides what happens next; the world keeps what is true of the real one: a
//! session times out only after its time without a heartbeat, a directory belongs to one process, tokens are
//! forgotten only when nobody may need them.

use crate::bug::Bug;
use crate::chance::Chance;
use crate::disk::Disk;
use crate::joins::{self, JoinMaker, Joins};
use crate::letters::Place;
use crate::member::{Member, MemberParts, describe};
use crate::process::{Factory, Process, ProcessParts};
use crate::records::{Content, Maker, SimRecord, expected};
use crate::rows::{NOBODY, RowBuilder, RowId};
use crate::seams::{Crashed, Seams, SimClock, WALL_START_MS};
use crate::table::{Table, TokenParts};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use weir::config::plan::{BatchPlan, PipelinePlan, StartAt, StepPlan};
use weir::error::{Error, Kind};
use weir::metrics::PipelineStats;
use weir::runtime::compile::{self, Blueprint};
use weir::runtime::coordinator::{Coordinator, GroupTimes, Progress};
use weir::runtime::opening::{Opening, OpeningSettings};
use weir::runtime::recovery::Policy;
use weir::runtime::task::{AttemptOutcome, Stage, TaskSettings};
use weir::source::Group;
use weir::source::memory::MemoryKafka;
use weir::state::StateStore;
use weir::state::ledger::{self, Mark, MarkRead};
use weir::state::letters::Letters;

pub const SESSION_MS: u64 = 6_000;
pub const GROUP: &str = "g";

/// What a schedule is about.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub inputs: u16,
    pub partitions: i32,
    pub window_ms: i64,
    pub max_future_ms: i64,
    pub batch_rows: u64,
    /// Several inputs carry the same keys.
    pub shared_keys: bool,
    /// The table forgets a token as soon as nobody may use it again.
    pub tight_window: bool,
    /// For how long the table remembers a token, as far as the tasks know.
    pub remembers_ms: i64,
    pub commit_delay_ms: u64,
    pub jobs_max: usize,
    /// Small: a re-read is stored in many pieces.
    pub state_bytes_max: usize,
    pub until_end: bool,
    /// Dead letters stay in the directories, where they can be replayed.
    pub keeps_letters: bool,
    /// `on_gap: continue`.
    pub passes_gaps: bool,
    /// `on_unclear: resend`.
    pub resends_unclear: bool,
    /// `on_partition_growth: continue`.
    pub passes_growth: bool,
    /// An announced epoch that comes out differently stops the pipeline.
    pub strict: bool,
    /// `--close-windows`.
    pub closes_windows: bool,
    /// Its inputs are the sides of joins.
    pub joins: Option<Joins>,
    pub bug: Option<Bug>,
}

impl Setup {
    pub fn plain(seed: u64) -> Setup {
        Setup {
            seed,
            inputs: 1,
            partitions: 1,
            window_ms: 3_600_000,
            max_future_ms: 3_600_000,
            batch_rows: 4,
            shared_keys: false,
            tight_window: false,
            remembers_ms: i64::MAX,
            commit_delay_ms: 0,
            jobs_max: 8,
            state_bytes_max: 1 << 20,
            until_end: false,
            keeps_letters: false,
            passes_gaps: false,
            resends_unclear: false,
            passes_growth: false,
            strict: false,
            closes_windows: false,
            joins: None,
            bug: None,
        }
    }

    /// One that joins.
    pub fn of_joins(seed: u64, joins: Joins) -> Setup {
        Setup { inputs: joins.inputs(), joins: Some(joins), ..Setup::plain(seed) }
    }
}

/// An instance: a directory, and a process while one runs on it.
pub struct Instance {
    pub disk: Arc<Disk>,
    pub process: Option<Process>,
    /// Stopped by SIGSTOP.
    pub paused_until_ms: u64,
    pub cut_until_ms: u64,
    pub boots_at_ms: u64,
}

pub struct World {
    pub setup: Setup,
    pub seams: Seams,
    pub chance: Chance,
    pub kafka: MemoryKafka,
    pub table: Table,
    pub instances: Vec<Instance>,
    /// When the broker last heard of a member, by its instance id.
    heard_ms: BTreeMap<String, u64>,
    lives: u64,
    plan: PipelinePlan,
    pub makers: BTreeMap<(u16, i32), Maker>,
    join_makers: BTreeMap<(u16, i32), JoinMaker>,
    pub logs: BTreeMap<(u16, i32), Vec<SimRecord>>,
    pub generation: u8,
    /// Codes of failures that this schedule may bring.
    pub may_fail: BTreeSet<&'static str>,
    /// How tasks began, and what else the statistics tell.
    pub cases: BTreeMap<&'static str, u64>,
    pub wall_error_max_ms: i64,
    pub until_end_now: bool,
    pub finished: u64,
    /// The table takes what did not fit before.
    pub is_mended: Arc<AtomicBool>,
    pub disks_lost: u64,
    /// Topics without a leader, one bit each.
    pub leaderless: Arc<AtomicU64>,
    /// Records of which Kafka has heard that they are replayed.
    pub announced: BTreeSet<Place>,
    /// Rows that were stored when their topic was deleted: they come all the same.
    owed: BTreeSet<RowId>,
}

/// What a schedule ended with instead of the expected table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(pub String);

static PLANS: LazyLock<Vec<PipelinePlan>> = LazyLock::new(|| {
    let dedup = "      - filter: \"n > 0\"\n      - dedup: { key: k, window: 1h }\n";
    [1, 2].into_iter().map(|inputs| parse_plan(inputs, dedup)).collect()
});

/// The right sides bring their inputs.
static JOIN_PLANS: LazyLock<Vec<(Joins, PipelinePlan)>> = LazyLock::new(|| {
    let all = Joins::ALL.into_iter().chain([Joins::Silent]);
    all.map(|joins| (joins, parse_plan(1, &joins.steps()))).collect()
});

fn plan_of(setup: &Setup) -> PipelinePlan {
    match setup.joins {
        None => PLANS[setup.inputs as usize - 1].clone(),
        Some(joins) => JOIN_PLANS.iter().find(|(one, _)| *one == joins).expect("every kind has its plan").1.clone(),
    }
}

/// A pipeline that reads so many topics as its source.
fn parse_plan(inputs: u16, steps: &str) -> PipelinePlan {
    let topics: Vec<String> = (0..inputs).map(|input| format!("topic{input}")).collect();
    let text = format!(
        "version: 1\nkafka: {{ brokers: [\"sim:1\"] }}\nclickhouse: {{ url: \"http://sim:1\", database: db }}\n\
         pipelines:\n  - name: sim\n    source: {{ kafka: {{ topics: [{}] }} }}\n    steps:\n{steps}    \
         sink: {{ clickhouse: {{ table: rows }} }}\n",
        topics.join(", ")
    );
    let (plan, findings) = weir::config::parse(&text, &|_| None);
    plan.unwrap_or_else(|| panic!("{findings:?}")).pipelines.remove(0)
}

impl World {
    pub fn new(setup: Setup) -> World {
        let mut chance = Chance::new(setup.seed);
        let kafka = MemoryKafka::irregular(chance.next());
        (0..setup.inputs).for_each(|input| kafka.create_topic(&topic(input), setup.partitions));
        let mut plan = plan_of(&setup);
        plan.source.time.max_future_ms = setup.max_future_ms;
        if setup.joins.is_none() {
            set_window(&mut plan, setup.window_ms);
        }
        let mut world = World {
            seams: Seams::default(),
            chance,
            kafka,
            table: Table::default(),
            instances: vec![],
            heard_ms: BTreeMap::new(),
            lives: 0,
            plan,
            makers: BTreeMap::new(),
            join_makers: BTreeMap::new(),
            logs: BTreeMap::new(),
            generation: 0,
            may_fail: BTreeSet::new(),
            cases: BTreeMap::new(),
            wall_error_max_ms: 0,
            until_end_now: setup.until_end,
            finished: 0,
            is_mended: Arc::default(),
            disks_lost: 0,
            leaderless: Arc::default(),
            announced: BTreeSet::new(),
            owed: BTreeSet::new(),
            setup,
        };
        world.seams.advance(100_000);
        (0..world.setup.inputs).for_each(|input| world.make_makers(input));
        if world.setup.joins.is_some() {
            world.begin_every_log();
        }
        world
    }

    /// No input is ever idle where rows are joined, so that one without any record would hold back the others for good.
    fn begin_every_log(&mut self) {
        for input in 0..self.setup.inputs {
            for partition in 0..self.setup.partitions {
                let time_ms = WALL_START_MS - 1000;
                self.send(input, partition, SimRecord { time_ms, key: 0, content: Content::Good, generation: 0 });
            }
        }
    }

    fn make_makers(&mut self, input: u16) {
        (0..self.setup.partitions).for_each(|partition| self.make_maker(input, partition));
    }

    fn make_maker(&mut self, input: u16, partition: i32) {
        let first_key = if self.setup.shared_keys { 0 } else { 1000 * input as u32 };
        self.makers.insert((input, partition), Maker::new(self.setup.window_ms, first_key, 12));
        self.join_makers.insert((input, partition), JoinMaker::new(WALL_START_MS - 1000));
        self.logs.insert((input, partition), vec![]);
    }

    pub fn wall_ms(&self) -> i64 {
        WALL_START_MS + self.seams.now_ms() as i64
    }

    pub fn produce(&mut self, input: u16, partition: i32) {
        let now_ms = self.wall_ms();
        let World { makers, join_makers, chance, generation, setup, .. } = self;
        let place = (input, partition);
        let record = match setup.joins {
            None => makers.get_mut(&place).unwrap().next(chance, now_ms, *generation),
            Some(_) => join_makers.get_mut(&place).unwrap().next(chance, now_ms),
        };
        self.send(input, partition, record);
    }

    pub fn send(&mut self, input: u16, partition: i32, record: SimRecord) {
        let log = self.logs.get_mut(&(input, partition)).unwrap();
        let sent = match self.setup.joins {
            None => record.to_kafka(),
            Some(_) => joins::to_kafka(&record, partition, log.len() as i64),
        };
        match sent {
            Some(sent) => _ = self.kafka.append(&topic(input), partition, sent),
            None => self.kafka.append_marker(&topic(input), partition),
        }
        log.push(record);
    }

    pub fn produce_anywhere(&mut self) {
        let input = self.chance.below(self.inputs_that_speak() as u64) as u16;
        let partition = self.chance.below(self.setup.partitions as u64) as i32;
        self.produce(input, partition);
    }

    /// Those behind them have their first record and no other.
    pub fn inputs_that_speak(&self) -> u16 {
        if self.setup.joins == Some(Joins::Silent) { 1 } else { self.setup.inputs }
    }

    // --- instances -----------------------------------------------------------------------------------------

    pub fn add_instance(&mut self) -> usize {
        let disk = Arc::new(Disk::new(self.seams.clone(), self.setup.bug));
        let instance =
            Instance { disk, process: None, paused_until_ms: 0, cut_until_ms: 0, boots_at_ms: self.seams.now_ms() };
        self.instances.push(instance);
        self.instances.len() - 1
    }

    pub fn has_booted(&self) -> bool {
        self.lives > 0
    }

    /// Starts a process on the directory of an instance.
    pub fn boot(&mut self, place: usize) {
        assert!(self.instances[place].process.is_none(), "one process at a time");
        self.lives += 1;
        let life = self.lives;
        self.seams.note(|| format!("instance {place} boots as life {life}"));
        self.guarded(place, |world| {
            let process = world.make_process(place, life);
            world.instances[place].process = Some(process);
            let joined = world.instances[place].process.as_mut().unwrap().join();
            joined.expect("joining the cluster in memory cannot fail");
        });
    }

    fn make_process(&mut self, place: usize, life: u64) -> Process {
        let disk = self.instances[place].disk.clone();
        ledger::clear_retired(&*disk).unwrap();
        let mut random = [0; 32];
        random.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&self.chance.next().to_be_bytes()));
        let identity = ledger::identity(&*disk, "sim", || random).unwrap();
        self.heard_ms.insert(identity.instance_id.clone(), self.seams.now_ms());
        let topics: Vec<String> = (0..self.setup.inputs).map(topic).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut inner = self.kafka.member(GROUP, Some(&identity.instance_id), &names);
        let ends = self.until_end_now.then(|| {
            let range = |partition, inner: &mut weir::source::memory::MemoryGroup| {
                (0..names.len()).map(|topic| inner.log_range(topic, partition).unwrap().1).collect::<Vec<_>>()
            };
            (0..self.setup.partitions).map(|partition| (partition, range(partition, &mut inner))).collect()
        });
        let (is_cut, is_fenced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let stats = PipelineStats::new("sim", "db.rows", &topics, &compile::step_names(&self.plan));
        let (is_mended, has_joins) = (self.is_mended.clone(), self.setup.joins.is_some());
        let make_builder = Arc::new(move |resolve: &mut dyn FnMut(&str) -> weir::codec::rows::Slot| {
            Box::new(RowBuilder::new(resolve, is_mended.clone(), has_joins)) as Box<dyn weir::sink::BlockBuilder>
        });
        let blueprint = Blueprint::new(self.plan.clone(), identity.seed, 1 << 12, make_builder);
        let wall_error_ms = match self.wall_error_max_ms {
            0 => 0,
            max => self.chance.below(2 * max as u64) as i64 - max,
        };
        let clock = Arc::new(SimClock { seams: self.seams.clone(), wall_error_ms });
        let member = Member::new(MemberParts {
            inner,
            seams: self.seams.clone(),
            chance: Chance::new(self.chance.next()),
            delay_ms: self.setup.commit_delay_ms,
            is_cut: is_cut.clone(),
            leaderless: self.leaderless.clone(),
            is_fenced: is_fenced.clone(),
            bug: self.setup.bug,
            disk: disk.clone(),
        });
        // A lease that never ends, in the eyes of the tasks.
        let lease_times = if self.setup.bug == Some(Bug::RetryAfterLease) { 1000 } else { 1 };
        let settings = OpeningSettings {
            pipeline: 0,
            name: "sim".into(),
            topics: topics.iter().map(|name| (name.clone(), StartAt::Earliest)).collect(),
            plan: blueprint.state_hash().unwrap_or_else(|findings| panic!("{findings:?}")),
            policy: Policy { halt_on_reset: false, halt_on_gap: !self.setup.passes_gaps, strict: self.setup.strict },
            halt_on_growth: !self.setup.passes_growth,
            roles: compile::roles(&self.plan),
            session_timeout_ms: SESSION_MS * lease_times,
            ends,
        };
        let mut incarnations = Chance::new(self.chance.next());
        let random = move || {
            let mut bytes = [0; 16];
            bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&incarnations.next().to_be_bytes()));
            bytes
        };
        const RETAIN_LEFT_MS: i64 = 86_400_000;
        let letters = Arc::new(Letters::open(disk.clone(), 1 << 20).unwrap());
        let keeps_letters = self.setup.keeps_letters;
        let factory =
            Arc::new(Factory { blueprint, stats: stats.clone(), letters, store: disk.clone(), keeps_letters });
        let opening = Opening::new(
            settings,
            disk.clone(),
            factory,
            clock.clone(),
            stats.clone(),
            Box::new(random),
            RETAIN_LEFT_MS,
        );
        let times = GroupTimes { session_timeout_ms: SESSION_MS };
        Process::new(ProcessParts {
            life,
            coordinator: Coordinator::new(Box::new(member), opening, stats.clone(), times),
            jobs_max: self.setup.jobs_max,
            settings: self.task_settings(),
            stats,
            disk,
            clock,
            seams: self.seams.clone(),
            is_cut,
            is_fenced,
            bug: self.setup.bug,
        })
    }

    fn task_settings(&self) -> TaskSettings {
        TaskSettings {
            pipeline: "sim".into(),
            batch: BatchPlan { rows: self.setup.batch_rows, bytes: 1 << 20, interval_ms: 200 },
            idle_after_ms: (0..self.setup.inputs).map(|input| self.idle_after_ms(input)).collect(),
            outbox_bytes_max: 1 << 20,
            state_bytes_max: self.setup.state_bytes_max,
            letter_bytes_max: 16 << 20,
            stops_on_failure: self.until_end_now,
            closes_windows: self.setup.closes_windows,
            gate: Arc::default(),
            window_ms: self.setup.remembers_ms,
            resend_unclear: self.setup.resends_unclear,
            strict: self.setup.strict,
        }
    }

    /// Whether a join waits for an input that speaks must not depend on when somebody looked at it.
    fn idle_after_ms(&self, input: u16) -> u64 {
        if self.setup.joins.is_some() && input < self.inputs_that_speak() { u64::MAX } else { 300 }
    }

    /// Runs something of an instance; if it dies in there, its memory is gone.
    fn guarded(&mut self, place: usize, act: impl FnOnce(&mut World)) {
        let result = catch_unwind(AssertUnwindSafe(|| act(self)));
        if let Err(panic) = result {
            match panic.is::<Crashed>() {
                true => {
                    self.lose_process(place, "crashed at a call");
                    self.instances[place].disk.crash();
                }
                false => resume_unwind(panic),
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, place: usize) {
        self.lose_process(place, "was killed");
        self.instances[place].disk.crash();
    }

    fn lose_process(&mut self, place: usize, how: &str) {
        self.seams.note(|| format!("instance {place} {how}"));
        let instance = &mut self.instances[place];
        if let Some(process) = instance.process.take() {
            for (case, count) in process.stats.recoveries().into_iter().chain([("forced", process.forced)]) {
                *self.cases.entry(case).or_default() += count;
            }
        }
        (instance.paused_until_ms, instance.cut_until_ms) = (0, 0);
    }

    /// Its directory is gone as well.
    pub fn lose_disk(&mut self, place: usize) {
        self.lose_process(place, "was killed and lost its disk");
        self.disks_lost += 1;
        self.instances[place].disk = Arc::new(Disk::new(self.seams.clone(), self.setup.bug));
    }

    pub fn runs(&self, place: usize) -> bool {
        self.instances[place].process.is_some() && self.instances[place].paused_until_ms <= self.seams.now_ms()
    }

    pub fn coordinate(&mut self, place: usize) -> Result<(), Violation> {
        if !self.runs(place) {
            return Ok(());
        }
        let id = self.instance_id(place);
        self.guarded(place, |world| world.instances[place].process.as_mut().unwrap().coordinate());
        // Who joined again in this turn has a session again, even if it dies before its first heartbeat.
        if self.kafka.is_member(GROUP, &id) {
            let now_ms = self.seams.now_ms();
            self.heard_ms.entry(id).or_insert(now_ms);
        }
        self.look_after(place)
    }

    /// What the pipeline does about a coordinator that has ended.
    fn look_after(&mut self, place: usize) -> Result<(), Violation> {
        let Some(process) = &self.instances[place].process else { return Ok(()) };
        match process.progress().clone() {
            Progress::Going => Ok(()),
            Progress::Done => {
                self.lose_process(place, "has ended");
                self.finished += 1;
                let later_ms = self.seams.now_ms() + 2000;
                self.instances[place].boots_at_ms = if self.until_end_now { u64::MAX } else { later_ms };
                Ok(())
            }
            Progress::Failed(error) => {
                self.lose_process(place, &format!("failed: {} ({})", error.message, error.code));
                self.instances[place].boots_at_ms = self.seams.now_ms() + 1000;
                self.judge_failure(&error)
            }
        }
    }

    fn judge_failure(&self, error: &Error) -> Result<(), Violation> {
        let expected = error.kind == Kind::Fenced || self.may_fail.contains(error.code.as_str());
        match expected {
            true => Ok(()),
            false => Err(Violation(format!("the pipeline failed: {} ({})", error.message, error.code))),
        }
    }

    pub fn work(&mut self, place: usize) {
        if self.runs(place) {
            self.guarded(place, |world| _ = world.instances[place].process.as_mut().unwrap().work());
        }
    }

    pub fn begin_attempt(&mut self, place: usize) {
        if self.runs(place) {
            self.guarded(place, |world| {
                let World { instances, table, .. } = world;
                instances[place].process.as_mut().unwrap().begin_attempt(table);
            });
        }
    }

    pub fn stop(&mut self, place: usize) {
        if self.runs(place) {
            self.seams.note(|| format!("instance {place} is told to stop"));
            self.guarded(place, |world| world.instances[place].process.as_mut().unwrap().stop());
        }
    }

    pub fn set_cut(&mut self, place: usize, until_ms: u64) {
        let now_ms = self.seams.now_ms();
        let instance = &mut self.instances[place];
        instance.cut_until_ms = until_ms;
        if let Some(process) = &instance.process {
            process.is_cut.store(until_ms > now_ms, Relaxed);
        }
    }

    // --- the network ---------------------------------------------------------------------------------------

    /// Ends a request: applied or not, answered or not.
    pub fn end_request(&mut self, at: usize, is_applied: bool, outcome: AttemptOutcome) -> Result<(), Violation> {
        let request = self.table.under_way.remove(at);
        if is_applied {
            self.apply(&request.token, &request.block)?;
        }
        self.answer(request.life, request.task, request.epoch, request.output, outcome);
        Ok(())
    }

    /// The client gives a request up; it is applied later.
    pub fn hang_request(&mut self, at: usize, for_ms: u64) {
        let request = &mut self.table.under_way[at];
        request.applied_at_ms = self.seams.now_ms() + for_ms;
        let (life, task, epoch, output) = (request.life.take(), request.task, request.epoch, request.output);
        self.answer(life, task, epoch, output, unclear());
    }

    fn answer(
        &mut self,
        life: Option<u64>,
        task: weir::runtime::task::TaskId,
        epoch: weir::types::Epoch,
        output: u16,
        outcome: AttemptOutcome,
    ) {
        let asked = self.instances.iter_mut().filter_map(|instance| instance.process.as_mut());
        if let Some(process) = asked.into_iter().find(|process| Some(process.life) == life) {
            process.answer(task, epoch, output, outcome);
        }
    }

    fn apply(&mut self, token: &str, block: &weir::sink::Block) -> Result<(), Violation> {
        self.seams.note(|| format!("the table takes {token}: {:?}", RowId::all_of(block)));
        let applied = self.table.apply(token, block);
        if self.setup.tight_window {
            self.forget_tokens();
        }
        applied.map_err(|row| Violation(format!("{row:?} came twice under one incarnation")))
    }

    /// The window moves on over what nobody may send again.
    pub fn forget_tokens(&mut self) {
        let marks: BTreeMap<i32, Mark> =
            (0..self.setup.partitions).filter_map(|partition| Some((partition, self.mark(partition)?))).collect();
        self.table.forget(|token: &TokenParts| {
            marks.get(&token.partition).is_some_and(|mark| {
                mark.incarnation.to_string() == token.incarnation && mark.acknowledged.epoch.0 >= token.epoch
            })
        });
    }

    pub fn apply_hanging(&mut self) -> Result<(), Violation> {
        let now_ms = self.seams.now_ms();
        let due = |request: &crate::table::Request| request.life.is_none() && request.applied_at_ms <= now_ms;
        while let Some(at) = self.table.under_way.iter().position(due) {
            self.end_request(at, true, unclear())?;
        }
        Ok(())
    }

    // --- time ----------------------------------------------------------------------------------------------

    pub fn advance(&mut self, by_ms: u64) -> Result<(), Violation> {
        self.seams.advance(by_ms);
        let now_ms = self.seams.now_ms();
        for place in 0..self.instances.len() {
            let instance = &self.instances[place];
            let reaches = instance.cut_until_ms <= now_ms;
            if let Some(process) = instance.process.as_ref().filter(|_| reaches) {
                process.is_cut.store(false, Relaxed);
            }
            if self.runs(place) && reaches {
                self.heard_ms.insert(self.instance_id(place), now_ms);
            }
        }
        self.expire_fenced();
        let silent = |(_, heard): &(&String, &u64)| now_ms - **heard >= SESSION_MS;
        let silent: Vec<String> = self.heard_ms.iter().filter(silent).map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.heard_ms.remove(&id);
            if self.kafka.is_member(GROUP, &id) {
                self.seams.note(|| format!("the session of {id} times out"));
                self.kafka.expire(GROUP, &id);
            }
        }
        self.watch_replays();
        self.apply_hanging()
    }

    /// A generation that was refused belongs to a member that the broker is about to forget.
    fn expire_fenced(&mut self) {
        for place in 0..self.instances.len() {
            let fenced = self.instances[place].process.as_ref().is_some_and(|it| it.is_fenced.swap(false, Relaxed));
            if fenced && self.kafka.is_member(GROUP, &self.instance_id(place)) {
                self.kafka.expire(GROUP, &self.instance_id(place));
            }
        }
    }

    pub fn instance_id(&self, place: usize) -> String {
        ledger::identity(&*self.instances[place].disk, "sim", || unreachable!("it has booted")).unwrap().instance_id
    }

    // --- what is true now ----------------------------------------------------------------------------------

    pub fn mark(&self, partition: i32) -> Option<Mark> {
        let (_, metadata) = self.kafka.committed(GROUP, &topic(0), partition)?;
        match Mark::from_metadata(&metadata) {
            MarkRead::Mark(mark) => Some(*mark),
            _ => None,
        }
    }

    /// Everything is read, delivered and acknowledged.
    pub fn is_settled(&self) -> bool {
        let partition = |partition: i32| {
            self.mark(partition).filter(|mark| self.is_of_these_topics(mark)).is_some_and(|mark| {
                let ends = (0..self.setup.inputs).map(|input| self.logs[&(input, partition)].len() as i64);
                mark.pending.is_none() && mark.acknowledged.positions().into_iter().eq(ends)
            })
        };
        // A recreated topic can end where the old one was read to, while what is stored of that is still delivered.
        let delivers_first = self
            .instances
            .iter()
            .filter_map(|instance| instance.process.as_ref())
            .any(|process| process.stages().iter().any(|(_, stage)| *stage == Stage::DeliverFirst));
        self.table.under_way.is_empty()
            && !delivers_first
            && self.replays_are_settled()
            && (0..self.setup.partitions).all(partition)
    }

    /// A topic that was made again can end where the old one was read to.
    fn is_of_these_topics(&self, mark: &Mark) -> bool {
        let topics: Vec<String> = (0..self.setup.inputs).map(topic).collect();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let now = self.kafka.member(GROUP, None, &names).topics().expect("the cluster in memory answers");
        mark.topics.iter().all(|(name, id)| now.iter().any(|now| now.name == *name && now.id == *id))
    }

    /// The rows that a single uninterrupted pass would give.
    pub fn expected(&self) -> Vec<RowId> {
        let log = |(&(input, partition), log): (&(u16, i32), &Vec<SimRecord>)| {
            expected(log, self.setup.window_ms, input, partition)
        };
        self.logs.iter().flat_map(log).collect()
    }

    /// Every expected row exactly once, and nothing else.
    pub fn judge(&self) -> Result<(), Violation> {
        if let Some(joins) = self.setup.joins {
            return self.judge_joins(joins);
        }
        if self.setup.shared_keys {
            return self.judge_shared();
        }
        let mut expected: BTreeSet<RowId> = self.expected().into_iter().collect();
        if self.setup.keeps_letters {
            self.judge_letters()?;
            expected.retain(|row| !row.is_letter);
            expected.extend(self.replayed_rows());
        }
        for row in expected.iter().chain(&self.owed) {
            match self.table.rows.get(row).map_or(0, Vec::len) {
                1 => {}
                0 => return Err(Violation(format!("{row:?} is missing"))),
                more => return Err(Violation(format!("{row:?} came {more} times"))),
            }
        }
        match self.table.rows.keys().find(|row| row.generation == self.generation && !expected.contains(row)) {
            None => Ok(()),
            Some(row) => Err(Violation(format!("{row:?} came, though it is a duplicate"))),
        }
    }

    /// After the offsets were moved to `starts`: what is expected from there on came once under the incarnation of
    /// now, and nothing came twice under any.
    pub fn judge_from(&self, starts: &BTreeMap<(u16, i32), i64>) -> Result<(), Violation> {
        for row in self.expected() {
            let mark = self.mark(row.partition).ok_or_else(|| Violation("there is no mark".into()))?;
            let now = mark.incarnation.to_string();
            let came = self.table.rows.get(&row).is_some_and(|came| came.contains(&now));
            let wanted = row.offset >= starts[&(row.input, row.partition)];
            if came != wanted {
                return Err(Violation(format!("{row:?}: came after the reset: {came}, expected: {wanted}")));
            }
        }
        Ok(())
    }

    /// Inputs that carry the same keys race: of each key there is one row, from one of them.
    fn judge_shared(&self) -> Result<(), Violation> {
        let record = |row: &RowId| &self.logs[&(row.input, row.partition)][row.offset as usize];
        let mut rows = BTreeMap::new();
        for (row, came) in &self.table.rows {
            if came.len() != 1 {
                return Err(Violation(format!("{row:?} came {} times", came.len())));
            }
            if !row.is_letter && rows.insert((row.partition, record(row).key), *row).is_some() {
                return Err(Violation(format!("the key of {row:?} came twice")));
            }
        }
        for (&(input, partition), log) in &self.logs {
            for (offset, record) in log.iter().enumerate() {
                let (offset, beside) = (offset as i64, [NOBODY; 2]);
                let row = RowId { is_letter: false, generation: 0, input, partition, offset, beside };
                let is_there = match record.content {
                    Content::Good => rows.contains_key(&(partition, record.key)),
                    Content::Broken | Content::Keyless => {
                        self.table.rows.contains_key(&RowId { is_letter: true, ..row })
                    }
                    _ => true,
                };
                if !is_there {
                    return Err(Violation(format!("{row:?} is missing, and every other one of its key")));
                }
            }
        }
        Ok(())
    }

    /// What the marks and the processes say, for a trace.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for partition in 0..self.setup.partitions {
            let committed = self.kafka.committed(GROUP, &topic(0), partition);
            let ends: Vec<usize> = (0..self.setup.inputs).map(|input| self.logs[&(input, partition)].len()).collect();
            text += &format!(
                "partition {partition}: ends {ends:?}, mark {:?}\n",
                committed.map(|(offset, metadata)| (offset, describe(&metadata)))
            );
        }
        for (place, instance) in self.instances.iter().enumerate() {
            let stages = instance.process.as_ref().map(Process::stages);
            text += &format!(
                "instance {place}: {stages:?}, progress {:?}\n",
                instance.process.as_ref().map(|process| process.progress().clone())
            );
        }
        text
    }

    pub fn set_plan_window(&mut self, window_ms: i64) {
        self.setup.window_ms = window_ms;
        set_window(&mut self.plan, window_ms);
    }

    /// An unclean election takes the end of a log: what comes there now are other records.
    pub fn cut_log(&mut self, offset: i64) {
        self.generation = 1;
        self.kafka.cut(&topic(0), 0, offset);
        self.logs.get_mut(&(0, 0)).unwrap().truncate(offset as usize);
    }

    /// Every topic gets one more partition.
    pub fn grow(&mut self) {
        let partition = self.setup.partitions;
        self.setup.partitions += 1;
        for input in 0..self.setup.inputs {
            self.kafka.grow_topic(&topic(input), self.setup.partitions);
            self.make_maker(input, partition);
        }
    }

    /// Deletes the topics and makes them again, empty. What is stored of the old ones, and not overtaken by another
    /// owner, is still to come.
    pub fn recreate_topics(&mut self) {
        self.owed = self.stored_rows();
        (0..self.setup.inputs).for_each(|input| self.recreate_topic(input));
        self.generation = 1;
    }

    /// The rows in the outboxes of directories that go on from what Kafka knows.
    pub fn stored_rows(&self) -> BTreeSet<RowId> {
        let mut rows = BTreeSet::new();
        for partition in 0..self.setup.partitions {
            let Some(mark) = self.mark(partition) else { continue };
            for Instance { disk, .. } in &self.instances {
                let Some(ledger) = ledger::load(&**disk, partition).unwrap() else { continue };
                let goes_on = ledger.checkpoint.incarnation == mark.incarnation && !ledger.checkpoint.restoring;
                if !goes_on || !ledger.holds(mark.acknowledged.link) {
                    continue;
                }
                for record in ledger.epochs.iter().filter(|record| record.after.epoch > mark.acknowledged.epoch) {
                    for output in 0..record.outputs.len() as u16 {
                        let key = ledger::key::outbox(ledger.task, record.after.epoch, output);
                        let body =
                            disk.get(weir::state::Table::Outbox, &key).unwrap().expect("a stored block is there");
                        rows.extend(RowId::all_in(&body));
                    }
                }
            }
        }
        rows
    }

    /// Deletes one of them and makes it again, empty: what comes then is of the next generation.
    pub fn recreate_topic(&mut self, input: u16) {
        self.generation = 1;
        self.kafka.delete_topic(&topic(input));
        self.kafka.create_topic(&topic(input), self.setup.partitions);
        self.make_makers(input);
    }
}

pub fn unclear() -> AttemptOutcome {
    AttemptOutcome::Failed(Error::retry("network", "no answer came"))
}

pub fn topic(input: u16) -> String {
    format!("topic{input}")
}

fn set_window(plan: &mut PipelinePlan, window_ms: i64) {
    for step in &mut plan.steps {
        if let StepPlan::Dedup(dedup) = step {
            dedup.window_ms = Some(window_ms);
        }
    }
}
