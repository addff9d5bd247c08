//! Each seeded bug is caught by some schedule, or the simulation proves nothing.

use crate::bug::Bug;
use crate::random::{self, Kind};

/// Schedules tried for one bug.
const SEEDS_MAX: u64 = 20_000;

/// The kind of schedule in which a bug shows soonest; `None` for the usual mixture.
fn kind_for(bug: Bug) -> Option<Kind> {
    match bug {
        Bug::RetryAfterLease | Bug::CommitAfterRejoin => Some(Kind::Zombies),
        _ => None,
    }
}

/// The first seed whose schedule shows the bug, and what it shows.
fn caught(bug: Bug) -> Option<(u64, String)> {
    let kind = kind_for(bug);
    let run = |seed, bug| random::run_kind(seed, kind, bug, false).result.err();
    (0..SEEDS_MAX).find_map(|seed| {
        let wrong = run(seed, Some(bug))?;
        // A schedule shows the bug only if it ends well without it.
        run(seed, None).is_none().then_some((seed, wrong.0))
    })
}

#[test]
fn each_seeded_bug_is_caught() {
    for bug in Bug::ALL {
        let (seed, wrong) = caught(bug).unwrap_or_else(|| panic!("{bug:?} is not caught in {SEEDS_MAX} schedules"));
        println!("{bug:?}: seed {seed}: {}", wrong.lines().next().unwrap_or_default());
    }
}
