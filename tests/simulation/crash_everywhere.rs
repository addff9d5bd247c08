//! Every call through the seams is a place to die: a clean run counts them, then each is tried, before and after
//! its effect, with the directory kept and lost. Commits and inserts are also lost on their way.

use crate::drive::{acknowledged, round, round_with, settle};
use crate::joins::Joins;
use crate::seams::Side;
use crate::world::{Setup, Violation, World, unclear};
use weir::source::memory::CommitFault;

/// A fixed course of events: records before and during, one or two instances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Script {
    /// One instance, one partition.
    Alone,
    /// A second instance joins, two partitions are shared.
    Joined,
    /// Two topics in one task.
    TwoInputs,
    /// It stops in order, starts again, and goes on.
    StopAndStart,
    /// Dead letters are replayed while records flow, before and after the table is mended.
    Replays,
    /// The same with two topics in one task, and two instances that share the partitions.
    ReplaysShared,
    /// Two or three topics, joined.
    Joins(Joins),
    /// The same with all records there at the start, under `--until-end --close-windows`.
    Closed(Joins),
}

impl Script {
    pub const OF_ONE_STREAM: [Script; 6] = [
        Script::Alone,
        Script::Joined,
        Script::TwoInputs,
        Script::StopAndStart,
        Script::Replays,
        Script::ReplaysShared,
    ];

    pub fn all() -> impl Iterator<Item = Script> {
        Script::OF_ONE_STREAM.into_iter().chain(Script::of_joins())
    }

    pub fn of_joins() -> impl Iterator<Item = Script> {
        Joins::ALL.into_iter().chain([Joins::Silent]).map(Script::Joins).chain(Script::CLOSED.map(Script::Closed))
    }

    /// One of each way to wait: for partners, for time, for another join.
    const CLOSED: [Joins; 4] = [Joins::Interval, Joins::Exact, Joins::Temporal, Joins::Three];

    pub fn setup(self) -> Setup {
        let setup = Setup::plain(7);
        match self {
            Script::Alone | Script::StopAndStart => setup,
            Script::Joined => Setup { partitions: 2, ..setup },
            Script::TwoInputs => Setup { inputs: 2, ..setup },
            Script::Replays => Setup { keeps_letters: true, ..setup },
            Script::ReplaysShared => Setup { keeps_letters: true, inputs: 2, partitions: 2, ..setup },
            Script::Joins(joins) => Setup::of_joins(7, joins),
            Script::Closed(joins) => Setup { until_end: true, closes_windows: true, ..Setup::of_joins(7, joins) },
        }
    }

    fn rounds(self) -> u32 {
        match self {
            Script::Replays | Script::ReplaysShared => 80,
            Script::Joins(_) => 24,
            _ => 60,
        }
    }

    /// What a person does before a round.
    fn act(self, world: &mut World, number: u32) -> Result<(), Violation> {
        match (self, number) {
            (Script::Joined | Script::ReplaysShared, 4) => _ = world.add_instance(),
            (Script::StopAndStart, 15) => world.stop(0),
            (Script::StopAndStart, 40) => world.instances[0].boots_at_ms = 0,
            (Script::Replays | Script::ReplaysShared, 30) => {
                // Nothing is under way that was begun with the old table.
                settle(world)?;
                (0..world.instances.len()).for_each(|place| world.kill(place));
                world.mend_table();
            }
            (Script::Replays | Script::ReplaysShared, 12 | 20 | 45 | 55) => {
                (0..world.instances.len()).for_each(|place| world.ask_to_replay(place));
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs to its end; `meddle` is asked before each round.
    pub fn run(
        self,
        world: &mut World,
        end: &mut dyn FnMut(&mut World, usize) -> Result<(), Violation>,
        meddle: &mut dyn FnMut(&mut World),
    ) -> Result<(), Violation> {
        world.add_instance();
        (0..16).for_each(|_| world.produce_anywhere());
        if let Script::Closed(_) = self {
            return run_to_the_end(world, end, meddle);
        }
        for number in 0..self.rounds() {
            self.act(world, number)?;
            if number % 4 == 0 {
                world.produce_anywhere();
            }
            meddle(world);
            round_with(world, end)?;
        }
        if self == Script::StopAndStart && world.instances[0].process.is_none() {
            world.instances[0].boots_at_ms = 0;
        }
        settle(world)?;
        world.let_time_pass()?;
        world.judge()
    }
}

/// Until a run ends by itself: then everything that waited is out.
fn run_to_the_end(
    world: &mut World,
    end: &mut dyn FnMut(&mut World, usize) -> Result<(), Violation>,
    meddle: &mut dyn FnMut(&mut World),
) -> Result<(), Violation> {
    let until_ms = world.seams.now_ms() + 60_000;
    while world.finished == 0 {
        if world.seams.now_ms() > until_ms {
            return Err(Violation(format!("it never ends:\n{}", world.describe())));
        }
        meddle(world);
        round_with(world, end)?;
    }
    settle(world)?;
    world.judge()
}

pub fn good(world: &mut World, at: usize) -> Result<(), Violation> {
    world.end_request(at, true, acknowledged())
}

/// Runs a script with a crash at one call.
pub fn crash_at(script: Script, setup: Setup, call: u64, side: Side, keeps_disk: bool) -> Result<(), Violation> {
    let mut world = World::new(setup);
    world.seams.crash_at(call, side);
    let mut lives = vec![];
    script.run(&mut world, &mut good, &mut |world| {
        for place in 0..world.instances.len() {
            let died = world.instances[place].process.is_none() && lives.get(place) == Some(&true);
            if died && !keeps_disk && !world.seams.is_crash_planned() {
                world.lose_disk(place);
            }
        }
        lives = world.instances.iter().map(|instance| instance.process.is_some()).collect();
    })?;
    // After a quiet night the table remembers no token of what was acknowledged.
    quiet_restart(&mut world)
}

/// Everything acknowledged is forgotten by the table, all processes begin again: nothing may happen.
pub fn quiet_restart(world: &mut World) -> Result<(), Violation> {
    world.forget_tokens();
    for place in 0..world.instances.len() {
        world.kill(place);
        world.instances[place].boots_at_ms = 0;
    }
    for _ in 0..30 {
        round(world)?;
    }
    settle(world)?;
    world.judge()
}

pub fn calls_of(script: Script, setup: Setup) -> u64 {
    let mut world = World::new(setup);
    if let Err(violation) = script.run(&mut world, &mut good, &mut |_| ()) {
        panic!("the clean run of {script:?}: {violation:?}");
    }
    world.seams.calls()
}

/// Runs a script in which the commit of that number goes wrong; whether there was one of that number.
pub fn bad_commit(script: Script, number: u64, fault: CommitFault) -> Result<bool, Violation> {
    let mut world = World::new(script.setup());
    world.kafka.next_commits((1..number).map(|_| CommitFault::None).chain([fault]));
    script.run(&mut world, &mut good, &mut |_| ())?;
    Ok(world.kafka.faults_to_come() == 0)
}

/// How an insert goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadInsert {
    RequestLost,
    AnswerLost,
    /// Given up, and applied so much later.
    Hangs(u64),
}

/// Runs a script in which the insert of that number goes wrong; whether there was one of that number.
pub fn bad_insert(script: Script, number: u64, how: BadInsert) -> Result<bool, Violation> {
    let mut world = World::new(script.setup());
    let mut inserts = 0;
    let mut end = |world: &mut World, at: usize| {
        inserts += 1;
        match (inserts == number, how) {
            (false, _) => good(world, at),
            (true, BadInsert::RequestLost) => world.end_request(at, false, unclear()),
            (true, BadInsert::AnswerLost) => world.end_request(at, true, unclear()),
            (true, BadInsert::Hangs(for_ms)) => {
                world.hang_request(at, for_ms);
                Ok(())
            }
        }
    };
    script.run(&mut world, &mut end, &mut |_| ())?;
    Ok(inserts >= number)
}
