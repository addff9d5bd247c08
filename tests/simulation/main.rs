//! The simulation: the real tasks and the real recovery over a cluster, a disk, a clock and a table that fail
//! (`exactly-once.md`, Proof 1).
//!
//! `SIM_SEED=<n>` replays one random schedule and prints its trace (`SIM_KIND=Zombies` and the like: as one of that
//! kind, as the seeded bugs are sought); `WEIR_SIM_RUNS=<n>` says how many are run.

mod bug;
mod bugs;
mod chance;
mod courses;
mod crash_everywhere;
mod disk;
mod drive;
mod joins;
mod letters;
mod member;
mod process;
mod random;
mod records;
mod rows;
mod seams;
mod stale;
mod table;
mod world;

use crash_everywhere::{BadInsert, Script, bad_commit, bad_insert, calls_of, crash_at};
use seams::Side;
use weir::source::memory::CommitFault;

#[test]
fn a_crash_at_any_call_changes_nothing_in_the_table() {
    for script in Script::OF_ONE_STREAM {
        let calls = calls_of(script, script.setup());
        for keeps_disk in [true, false] {
            for call in 1..=calls {
                [Side::Before, Side::After].into_iter().for_each(|side| crash_with(script, call, side, keeps_disk));
            }
        }
    }
}

/// Each call meets both sides and both fates of the disk, though for time not each of one with each of the other.
#[test]
fn a_crash_at_any_call_changes_nothing_in_what_is_joined() {
    for script in Script::of_joins() {
        let began = std::time::Instant::now();
        let calls = calls_of(script, script.setup());
        for call in 1..=calls {
            for (side, keeps_disk) in [(Side::Before, call % 2 == 0), (Side::After, call % 2 == 1)] {
                crash_with(script, call, side, keeps_disk);
            }
        }
        println!("{script:?}: {calls} calls in {:?}", began.elapsed());
    }
}

fn crash_with(script: Script, call: u64, side: Side, keeps_disk: bool) {
    let result = crash_at(script, script.setup(), call, side, keeps_disk);
    assert_eq!(result, Ok(()), "{script:?}, call {call}, {side:?}, disk {keeps_disk}");
}

#[test]
fn rows_meet_in_every_kind_of_join_and_some_stay_alone() {
    let mut all_alone = 0;
    for kind in joins::Joins::ALL {
        let (script, mut world) = (Script::Joins(kind), world::World::new(Script::Joins(kind).setup()));
        assert_eq!(script.run(&mut world, &mut crash_everywhere::good, &mut |_| ()), Ok(()), "{kind:?}");
        let [alone, met] = joins::alone_and_met(&world);
        println!("{kind:?}: {met} met, {alone} alone");
        assert!(met > 3, "{kind:?}: {met} met, {alone} alone");
        all_alone += alone;
    }
    assert!(all_alone > 3, "{all_alone} alone");
}

#[test]
fn replayed_letters_are_rows_once_the_table_is_mended() {
    for script in [Script::Replays, Script::ReplaysShared] {
        let mut world = world::World::new(script.setup());
        assert_eq!(script.run(&mut world, &mut crash_everywhere::good, &mut |_| ()), Ok(()), "{script:?}");
        assert!(world.replayed_rows().len() > 1, "{script:?}: {:?}", world.replayed_rows());
        assert!(world.replayed_rows().iter().any(|row| world.announced.contains(&(
            row.input,
            row.partition,
            row.offset
        ))));
    }
}

#[test]
fn a_commit_that_goes_wrong_changes_nothing_in_the_table() {
    for script in Script::all() {
        for fault in [CommitFault::RequestLost, CommitFault::AnswerLost, CommitFault::Rebalancing] {
            let mut number = 1;
            while bad_commit(script, number, fault)
                .unwrap_or_else(|wrong| panic!("{script:?}, commit {number}, {fault:?}: {wrong:?}"))
            {
                number += 1;
            }
            assert!(number > 3, "{script:?} commits more than {} times", number - 1);
        }
    }
}

#[test]
fn an_insert_that_goes_wrong_changes_nothing_in_the_table() {
    for script in Script::all() {
        for how in [BadInsert::RequestLost, BadInsert::AnswerLost, BadInsert::Hangs(50), BadInsert::Hangs(5000)] {
            let mut number = 1;
            while bad_insert(script, number, how)
                .unwrap_or_else(|wrong| panic!("{script:?} {number} {how:?} {wrong:?}"))
            {
                number += 1;
            }
            assert!(number > 1, "{script:?} has inserts");
        }
    }
}

#[test]
fn random_schedules_end_with_every_row_once() {
    if let Some(seed) = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let kind = std::env::var("SIM_KIND").ok().map(|name| random::Kind::named(&name));
        let outcome = random::run_kind(seed, kind, None, true);
        println!("{}", outcome.trace.join("\n"));
        println!("{:?} {:?}", outcome.kind, outcome.cases);
        return assert_eq!(outcome.result, Ok(()), "seed {seed}");
    }
    let runs: u64 = std::env::var("WEIR_SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u64);
    let began = std::time::Instant::now();
    let cases = std::thread::scope(|scope| {
        let run = |thread: u64| move || run_share(thread, threads, runs);
        let shares: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        shares.into_iter().fold(std::collections::BTreeMap::new(), |mut all, share| {
            match share.join() {
                Ok(cases) => cases.into_iter().for_each(|(case, count)| *all.entry(case).or_insert(0) += count),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            all
        })
    });
    println!("{runs} schedules in {:?}: {cases:?}", began.elapsed());
    if runs >= ALL_CASES_COME_IN {
        let never: Vec<_> = CASES.iter().filter(|case| cases.get(*case).is_none_or(|count| *count == 0)).collect();
        assert!(never.is_empty(), "no schedule begins as {never:?}");
    }
}

/// So many schedules meet every way to begin that a schedule can meet.
const ALL_CASES_COME_IN: u64 = 10_000;

/// The ways to begin (`exactly-once.md`, Start and hand-over), and an epoch that had to be made again.
const CASES: [&str; 10] =
    ["new", "unmarked", "reset", "recreated", "foreign", "replanned", "continue", "catch_up", "restore", "forced"];

fn run_share(thread: u64, threads: u64, runs: u64) -> std::collections::BTreeMap<&'static str, u64> {
    let mut cases = std::collections::BTreeMap::new();
    for seed in (thread..runs).step_by(threads as usize) {
        let outcome = random::run(seed, None, false);
        if let Err(violation) = outcome.result {
            let trace = random::run(seed, None, true).trace;
            let lines: usize = std::env::var("SIM_TAIL").ok().and_then(|lines| lines.parse().ok()).unwrap_or(80);
            let tail = &trace[trace.len().saturating_sub(lines)..];
            panic!("{}\nSIM_SEED={seed}: {}", tail.join("\n"), violation.0);
        }
        outcome.cases.into_iter().for_each(|(case, count)| *cases.entry(case).or_insert(0) += count);
    }
    cases
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let (first, second) = (random::run(seed, None, true), random::run(seed, None, true));
        assert!(first.trace.len() > 10, "there is a trace");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
