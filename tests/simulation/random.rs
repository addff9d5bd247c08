//! Random schedules: who runs next, what goes wrong, and when, all from one seed.

use crate::bug::Bug;
use crate::chance::Chance;
use crate::crash_everywhere::quiet_restart;
use crate::drive::{acknowledged, boot_if_due, settle};
use crate::joins::Joins;
use crate::seams::Side;
use crate::world::{GROUP, SESSION_MS, Setup, Violation, World, topic, unclear};
use std::collections::BTreeMap;
use weir::source::memory::CommitFault;

/// What a schedule is drawn from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Up to three instances that crash, pause, lose their disks and their connections.
    Several,
    /// One instance, and a group that forgets its offsets.
    Expiry,
    /// One instance, two inputs with the same keys.
    SharedKeys,
    /// The window of the dedup step changes between two lives.
    Replanned,
    /// Runs to the ends noted at their start, one after the other.
    UntilEnd,
    /// Two instances that lose each other, over a table that often does not answer.
    Zombies,
    /// Somebody moves the group's offsets.
    Reset,
    /// The topics are deleted and made again.
    Recreated,
    /// One instance or two, with dead letters that are replayed, before and after the table is mended.
    Replays,
    /// Two or three topics, joined, with all that can happen to several instances.
    Joins,
}

impl Kind {
    /// By its name in this file.
    pub fn named(name: &str) -> Kind {
        use Kind::*;
        let all = [Several, Expiry, SharedKeys, Replanned, UntilEnd, Zombies, Reset, Recreated, Replays, Joins];
        all.into_iter().find(|kind| format!("{kind:?}") == name).expect("there is a kind of that name")
    }

    fn of(chance: &mut Chance) -> Kind {
        match chance.below(22) {
            0 => Kind::Expiry,
            1 => Kind::SharedKeys,
            2 => Kind::Replanned,
            3 => Kind::UntilEnd,
            4 | 5 => Kind::Zombies,
            6 => Kind::Reset,
            7 => Kind::Recreated,
            8..11 => Kind::Replays,
            11..15 => Kind::Joins,
            _ => Kind::Several,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disaster {
    Kill,
    CrashAtCall,
    LoseDisk,
    Pause,
    Cut,
    Stop,
    Rebalance,
    CommitFault,
    Fence,
    TableOutage,
    Expire,
    Replan,
}

/// How a schedule went.
pub struct Outcome {
    pub result: Result<(), Violation>,
    pub trace: Vec<String>,
    pub cases: BTreeMap<&'static str, u64>,
    pub kind: Kind,
}

/// The setup that a seed draws.
fn draw(seed: u64, kind: Option<Kind>, bug: Option<Bug>) -> (Kind, Setup, Chance) {
    let mut chance = Chance::new(seed ^ 0x5157_4549_5200_0000);
    let drawn = Kind::of(&mut chance);
    let kind = kind.unwrap_or(drawn);
    let joins = (kind == Kind::Joins).then(|| chance.pick(&Joins::ALL));
    let inputs = match kind {
        Kind::Joins => joins.map_or(1, Joins::inputs),
        Kind::SharedKeys => 2,
        Kind::Recreated if chance.one_in(2) => 2,
        Kind::Recreated => 1,
        _ if chance.one_in(3) => 2,
        _ => 1,
    };
    let partitions = match kind {
        Kind::SharedKeys | Kind::Zombies => 1,
        _ => chance.within(1, 4) as i32,
    };
    let short = !matches!(kind, Kind::SharedKeys | Kind::Replanned) && chance.one_in(2);
    let setup = Setup {
        inputs,
        partitions,
        window_ms: if short { chance.pick(&[500, 2000]) } else { 3_600_000 },
        // Short, so that a restore does not always begin at the beginning; longer than any process here stands still
        // with an epoch open, or its records would lie in the future.
        max_future_ms: if short { 12_000 } else { 3_600_000 },
        batch_rows: chance.within(1, 8),
        shared_keys: kind == Kind::SharedKeys,
        // Where the group's offsets are gone, only the ledger knows what was acknowledged, and not the last of it.
        tight_window: match kind {
            Kind::Expiry | Kind::Recreated => false,
            Kind::Zombies => true,
            _ => chance.one_in(2),
        },
        commit_delay_ms: if kind == Kind::Zombies { 300 } else { chance.pick(&[0, 0, 20, 200]) },
        jobs_max: chance.pick(&[1, 2, 8]),
        state_bytes_max: chance.pick(&[1, 200, 1 << 20]),
        until_end: kind == Kind::UntilEnd,
        keeps_letters: kind == Kind::Replays,
        joins,
        bug,
        ..Setup::plain(chance.next())
    };
    (kind, setup, chance)
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, bug: Option<Bug>, keeps_trace: bool) -> Outcome {
    run_kind(seed, None, bug, keeps_trace)
}

/// The same, of that kind.
pub fn run_kind(seed: u64, kind: Option<Kind>, bug: Option<Bug>, keeps_trace: bool) -> Outcome {
    let (kind, setup, chance) = draw(seed, kind, bug);
    let mut world = World::new(setup);
    if keeps_trace {
        world.seams.keep_trace();
        world.seams.note(|| format!("{kind:?} {:?}", world.setup));
    }
    world.wall_error_max_ms = chance_of_wall(&mut world.chance);
    let mut schedule = Schedule { world, chance, kind, outage_until_ms: 0 };
    let mut result = schedule.run();
    let mut world = schedule.world;
    if result.is_err() {
        world.seams.note(|| world.describe());
    }
    for place in 0..world.instances.len() {
        world.kill(place);
    }
    let differs = world.cases.contains_key("pending_differs") && kind != Kind::Recreated;
    if result.is_ok() && differs {
        result = Err(Violation("an announced epoch came out differently".into()));
    }
    Outcome { result, trace: world.seams.trace(), cases: world.cases, kind }
}

fn chance_of_wall(chance: &mut Chance) -> i64 {
    chance.pick(&[0, 50, 1500])
}

struct Schedule {
    world: World,
    chance: Chance,
    kind: Kind,
    outage_until_ms: u64,
}

impl Schedule {
    fn run(&mut self) -> Result<(), Violation> {
        let instances = match self.kind {
            Kind::Several | Kind::Joins => self.chance.within(1, 4),
            Kind::Reset | Kind::Replays => self.chance.within(1, 3),
            // With the topic its offsets go, and with them what tells a directory that another owner went on: like a
            // group that expired, that is not promised.
            Kind::Zombies => 2,
            _ => 1,
        };
        (0..self.chance.within(0, 30)).for_each(|_| self.world.produce_anywhere());
        for number in 0..instances {
            let place = self.world.add_instance();
            self.world.instances[place].boots_at_ms += number * self.chance.below(3000);
        }
        self.live()?;
        self.calm_down();
        match self.kind {
            Kind::Replays => return self.mend_and_replay(),
            Kind::UntilEnd => return self.end_by_itself(),
            Kind::Reset => return self.reset(),
            Kind::Recreated => self.recreate()?,
            _ => {}
        }
        settle(&mut self.world)?;
        self.world.let_time_pass()?;
        self.world.judge()?;
        match self.chance.one_in(4) {
            true => quiet_restart(&mut self.world),
            false => Ok(()),
        }
    }

    /// Everybody gets his turns, and now and then something goes wrong.
    fn live(&mut self) -> Result<(), Violation> {
        let steps = self.chance.within(150, 700);
        let disasters = self.chance.within(1, if self.kind == Kind::Zombies { 20 } else { 8 });
        for _ in 0..steps {
            if self.chance.one_in(steps / disasters + 1) {
                self.disaster();
            }
            if self.kind == Kind::Replays && self.chance.one_in(30) {
                let place = self.chance.below(self.world.instances.len() as u64) as usize;
                self.world.ask_to_replay(place);
            }
            self.step()?;
        }
        Ok(())
    }

    /// With a mended table, letters come through; in the end each instance gets to see what became of its own.
    fn mend_and_replay(&mut self) -> Result<(), Violation> {
        settle(&mut self.world)?;
        self.world.judge()?;
        self.all_away()?;
        self.world.mend_table();
        self.live()?;
        self.calm_down();
        settle(&mut self.world)?;
        for place in 0..self.world.instances.len() {
            self.all_away()?;
            let away_ms = self.world.seams.now_ms() + 1_000_000;
            self.world.instances.iter_mut().for_each(|instance| instance.boots_at_ms = away_ms);
            self.world.instances[place].boots_at_ms = 0;
            self.go_on(200)?;
            self.world.ask_to_replay(place);
            self.go_on(200)?;
        }
        self.world.judge()
    }

    /// Some quiet turns, and then on until nothing is left to do.
    fn go_on(&mut self, rounds: u32) -> Result<(), Violation> {
        for _ in 0..rounds {
            crate::drive::round(&mut self.world)?;
        }
        settle(&mut self.world)
    }

    /// Under `--until-end` each run ends by itself; the last one must have seen everything.
    fn end_by_itself(&mut self) -> Result<(), Violation> {
        let until_ms = self.world.seams.now_ms() + 120_000;
        let mut finished = self.world.finished;
        while !self.world.is_settled() || self.world.instances[0].process.is_some() {
            if self.world.seams.now_ms() > until_ms {
                return Err(Violation(format!("it never ends:\n{}", self.world.describe())));
            }
            if self.world.finished > finished {
                finished = self.world.finished;
                self.world.instances[0].boots_at_ms = self.world.seams.now_ms();
                if self.world.is_settled() {
                    break;
                }
            }
            crate::drive::round(&mut self.world)?;
        }
        self.world.judge()
    }

    /// Nobody runs, and the group has forgotten all members.
    fn all_away(&mut self) -> Result<(), Violation> {
        for place in 0..self.world.instances.len() {
            self.world.kill(place);
            self.world.instances[place].boots_at_ms = self.world.seams.now_ms() + 2 * SESSION_MS;
        }
        self.world.advance(SESSION_MS + 1)
    }

    /// Offsets move anywhere, sometimes in the middle of things; from there every row comes once more.
    fn reset(&mut self) -> Result<(), Violation> {
        if self.chance.one_in(2) || !self.world.has_booted() {
            settle(&mut self.world)?;
        }
        self.all_away()?;
        let ends: Vec<((u16, i32), u64)> =
            self.world.logs.iter().map(|(place, log)| (*place, log.len() as u64)).collect();
        let mut starts = BTreeMap::new();
        for ((input, partition), end) in ends {
            let start = self.chance.below(end + 1) as i64;
            starts.insert((input, partition), start);
            self.world.kafka.reset_committed(GROUP, &topic(input), partition, start);
        }
        self.world.seams.note(|| format!("offsets are moved to {starts:?}"));
        (0..self.chance.below(20)).for_each(|_| self.world.produce_anywhere());
        settle(&mut self.world)?;
        self.world.judge_from(&starts)
    }

    /// A new topic of the old name begins anew; of the old one nothing may come twice.
    fn recreate(&mut self) -> Result<(), Violation> {
        if self.chance.one_in(2) {
            settle(&mut self.world)?;
            self.world.judge()?;
        }
        self.all_away()?;
        self.world.seams.note(|| "the topics are made again".into());
        self.world.recreate_topics();
        (0..self.chance.below(20)).for_each(|_| self.world.produce_anywhere());
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let by_ms = if self.chance.one_in(60) { self.chance.below(1500) } else { self.chance.below(12) };
        self.world.advance(by_ms)?;
        let place = self.chance.below(self.world.instances.len() as u64) as usize;
        boot_if_due(&mut self.world, place);
        match self.chance.below(100) {
            0..30 => self.world.coordinate(place)?,
            30..68 => self.world.work(place),
            68..80 => self.world.begin_attempt(place),
            80..92 => self.end_a_request()?,
            92..98 => (0..self.chance.below(5)).for_each(|_| self.world.produce_anywhere()),
            _ => {
                if self.kind == Kind::UntilEnd && self.world.instances[place].boots_at_ms == u64::MAX {
                    self.world.instances[place].boots_at_ms = 0;
                }
            }
        }
        Ok(())
    }

    fn end_a_request(&mut self) -> Result<(), Violation> {
        let waiting: Vec<usize> =
            (0..self.world.table.under_way.len()).filter(|at| self.world.table.under_way[*at].life.is_some()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let at = self.chance.pick(&waiting);
        let outage = self.outage_until_ms > self.world.seams.now_ms();
        let of = match outage {
            true => 4,
            false if self.kind == Kind::Zombies => 8,
            false => 20,
        };
        match self.chance.below(of) {
            0 | 1 => self.world.end_request(at, false, unclear()),
            2 => self.world.end_request(at, true, unclear()),
            3 => {
                let for_ms = self.chance.below(9_000);
                self.world.hang_request(at, for_ms);
                Ok(())
            }
            _ => self.world.end_request(at, true, acknowledged()),
        }
    }

    fn disaster(&mut self) {
        use Disaster::*;
        let common = [Kill, CrashAtCall, CrashAtCall, CrashAtCall, Stop, CommitFault, Rebalance, TableOutage];
        let zombies = [Pause, Pause, Pause, Cut, Cut, Cut, LoseDisk, Kill, TableOutage];
        let replays = [Kill, CrashAtCall, CrashAtCall, Stop, CommitFault, Rebalance, TableOutage, Pause, Cut, LoseDisk];
        let several = [Kill, CrashAtCall, CrashAtCall, LoseDisk, LoseDisk, Pause, Pause, Cut, Stop, Rebalance];
        let disaster = match self.kind {
            Kind::Zombies => self.chance.pick(&zombies),
            Kind::Replays if self.chance.one_in(2) => self.chance.pick(&replays),
            Kind::Several | Kind::Joins if self.chance.one_in(2) => self.chance.pick(&several),
            Kind::Several if self.chance.one_in(8) => Fence,
            Kind::Expiry if self.chance.one_in(3) => Expire,
            Kind::Replanned if self.chance.one_in(2) => Replan,
            _ => self.chance.pick(&common),
        };
        let place = self.chance.below(self.world.instances.len() as u64) as usize;
        let now_ms = self.world.seams.now_ms();
        self.world.seams.note(|| format!("{disaster:?} {place}"));
        match disaster {
            Kill => self.kill(place),
            CrashAtCall => {
                let side = self.chance.pick(&[Side::Before, Side::After]);
                let number = self.world.seams.calls() + self.chance.within(1, 40);
                self.world.seams.crash_at(number, side);
            }
            LoseDisk => {
                self.world.lose_disk(place);
                self.boot_later(place);
            }
            Pause => self.world.instances[place].paused_until_ms = now_ms + self.chance.below(3 * SESSION_MS),
            Cut => {
                let until_ms = now_ms + self.chance.below(3 * SESSION_MS);
                self.world.set_cut(place, until_ms);
            }
            Stop => self.world.stop(place),
            Rebalance if self.world.instances.iter().any(|instance| instance.process.is_some()) => {
                self.world.kafka.rebalance(GROUP);
            }
            Rebalance => {}
            CommitFault => self.bad_commit(),
            Fence => self.world.kafka.next_commits([self::CommitFault::IllegalGeneration]),
            TableOutage => self.outage_until_ms = now_ms + self.chance.below(8000),
            Expire => {
                self.kill(place);
                if self.world.has_booted() {
                    self.world.kafka.forget_committed(GROUP);
                }
            }
            Replan => {
                self.kill(place);
                let window_ms = self.world.setup.window_ms + 1;
                self.world.set_plan_window(window_ms);
            }
        }
    }

    fn bad_commit(&mut self) {
        use self::CommitFault::*;
        let faults = (0..self.chance.within(1, 5)).map(|_| self.chance.pick(&[RequestLost, AnswerLost, Rebalancing]));
        let faults: Vec<_> = faults.collect();
        self.world.kafka.next_commits(faults);
    }

    fn kill(&mut self, place: usize) {
        self.world.kill(place);
        self.boot_later(place);
    }

    fn boot_later(&mut self, place: usize) {
        let later_ms = self.chance.pick(&[0, 100, 2000, 7000, 15_000]);
        self.world.instances[place].boots_at_ms = self.world.seams.now_ms() + later_ms;
    }

    /// Nothing goes wrong any more, and everybody may run.
    fn calm_down(&mut self) {
        self.world.seams.note(|| "from here on nothing goes wrong".into());
        self.world.seams.cancel_crash();
        let now_ms = self.world.seams.now_ms();
        for place in 0..self.world.instances.len() {
            self.world.set_cut(place, 0);
            let instance = &mut self.world.instances[place];
            instance.paused_until_ms = instance.paused_until_ms.min(now_ms);
            instance.boots_at_ms = instance.boots_at_ms.min(now_ms);
        }
        if self.world.setup.shared_keys || self.kind == Kind::UntilEnd {
            (0..5).for_each(|_| self.world.produce_anywhere());
        }
    }
}
