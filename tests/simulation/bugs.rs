//! Each seeded bug is caught by some schedule, or the simulation proves nothing.

use crate::bug::Bug;
use crate::random;

/// Schedules tried for one bug.
const SEEDS_MAX: u64 = 4000;

/// The first seed whose schedule shows the bug, and what it shows.
fn caught(bug: Bug) -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| random::run(seed, Some(bug), false).result.err().map(|wrong| (seed, wrong.0)))
}

#[test]
fn each_seeded_bug_is_caught() {
    for bug in Bug::ALL {
        let (seed, wrong) = caught(bug).unwrap_or_else(|| panic!("{bug:?} is not caught in {SEEDS_MAX} schedules"));
        println!("{bug:?}: seed {seed}: {}", wrong.lines().next().unwrap_or_default());
    }
}
