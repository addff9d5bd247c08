//! Each seeded bug is caught by some schedule, or the simulation proves nothing.

use crate::bug::Bug;
use crate::drive::{acknowledged, round, round_with, settle};
use crate::random;
use crate::world::{Setup, Violation, World, unclear};

/// Schedules tried for one bug.
const SEEDS_MAX: u64 = 4_000;

/// The first random schedule that shows the bug, and what it shows.
fn caught_at_random(bug: Bug) -> Option<String> {
    let run = |seed, bug| random::run(seed, bug, false).result.err();
    (0..SEEDS_MAX).find_map(|seed| {
        let wrong = run(seed, Some(bug))?;
        assert_eq!(run(seed, None), None, "{bug:?}: the schedule {seed} fails without the bug, too");
        Some(format!("seed {seed}: {}", wrong.0))
    })
}

/// What a course of events made for this bug shows.
fn caught_by(course: fn(&mut World) -> Result<(), Violation>, bug: Bug) -> Option<String> {
    let run = |bug| {
        let mut world = World::new(Setup { tight_window: true, bug, ..Setup::plain(1) });
        world.seams.keep_trace();
        let result = course(&mut world);
        (result.err(), world.seams.trace())
    };
    assert_eq!(run(None).0, None, "{bug:?}: the course fails without the bug, too");
    let (wrong, trace) = run(Some(bug));
    if wrong.is_none() {
        println!("{}", trace.join("\n"));
    }
    wrong.map(|wrong| wrong.0)
}

/// One instance has announced and is not answered; it sleeps, another goes on, and it wakes.
fn sleep_past_the_lease(world: &mut World) -> Result<(), Violation> {
    let sleeper = world.add_instance();
    (0..8).for_each(|_| world.produce_anywhere());
    let mut lost = 0;
    while lost == 0 {
        round_with(world, &mut |world, at| {
            lost += 1;
            world.end_request(at, false, unclear())
        })?;
    }
    // It has heard of the failure, and would try again in a moment.
    world.work(sleeper);
    world.instances[sleeper].paused_until_ms = u64::MAX;
    world.add_instance();
    settle(world)?;
    world.forget_tokens();
    world.instances[sleeper].paused_until_ms = 0;
    // Its worker is faster than its coordinator.
    for _ in 0..3 {
        world.work(sleeper);
        world.begin_attempt(sleeper);
    }
    while !world.table.under_way.is_empty() {
        world.end_request(0, true, acknowledged())?;
    }
    settle(world)?;
    world.judge()
}

/// One instance loses its connection with a commit in its client's queue; another goes on; the first is back, and
/// then the other and its disk are lost.
fn come_back_with_an_old_commit(world: &mut World) -> Result<(), Violation> {
    let first = world.add_instance();
    let second = world.add_instance();
    world.instances[second].boots_at_ms += 2_000;
    (0..12).for_each(|_| world.produce_anywhere());
    while world.mark(0).is_none_or(|mark| mark.pending.is_none()) {
        round(world)?;
    }
    world.set_cut(first, u64::MAX);
    settle(world)?;
    (0..12).for_each(|_| world.produce_anywhere());
    settle(world)?;
    world.forget_tokens();
    world.set_cut(first, 0);
    for _ in 0..20 {
        round(world)?;
    }
    for place in [first, second] {
        world.lose_disk(place);
        world.instances[place].boots_at_ms = 0;
    }
    for _ in 0..500 {
        round(world)?;
    }
    settle(world)?;
    world.judge()
}

#[test]
fn each_seeded_bug_is_caught() {
    for bug in Bug::ALL {
        let caught = match bug {
            Bug::RetryAfterLease => caught_by(sleep_past_the_lease, bug),
            Bug::CommitAfterRejoin => caught_by(come_back_with_an_old_commit, bug),
            _ => caught_at_random(bug),
        };
        let wrong = caught.unwrap_or_else(|| panic!("{bug:?} is not caught"));
        println!("{bug:?}: {}", wrong.lines().next().unwrap_or_default());
    }
}
