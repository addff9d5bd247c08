//! A table that remembers a token only for a while: whoever comes back later asks it before sending again.

use crate::crash_everywhere::{Script, calls_of, good};
use crate::seams::Side;
use crate::world::{Setup, Violation, World};

/// Longer than a session, a lease, and whatever an insert may hang.
const REMEMBERS_MS: i64 = 60_000;

/// A crash at one call, and then nobody is there for longer than the table remembers.
fn crash_and_stay_away(script: Script, setup: Setup, call: u64, side: Side, keeps_disk: bool) -> Result<(), Violation> {
    let mut world = World::new(setup);
    world.seams.crash_at(call, side);
    let mut is_away = false;
    let mut wrong = Ok(());
    script.run(&mut world, &mut good, &mut |world| {
        let place = (0..world.instances.len()).find(|place| world.instances[*place].process.is_none());
        let Some(place) = place.filter(|_| !world.seams.is_crash_planned() && !is_away) else { return };
        is_away = true;
        (0..world.instances.len()).for_each(|place| world.kill(place));
        if !keeps_disk {
            world.lose_disk(place);
        }
        wrong = world.advance(REMEMBERS_MS as u64 + 1);
        world.table.forget_all();
    })?;
    wrong
}

/// Every crash of every script; the first that shows something wrong.
fn first_wrong(scripts: &[Script], remembers_ms: i64) -> Option<String> {
    for script in scripts {
        let setup = || Setup { remembers_ms, ..script.setup() };
        for call in 1..=calls_of(*script, setup()) {
            for (side, keeps_disk) in [(Side::Before, true), (Side::After, true), (Side::After, false)] {
                if let Err(violation) = crash_and_stay_away(*script, setup(), call, side, keeps_disk) {
                    return Some(format!("{script:?}, call {call}, {side:?}, disk {keeps_disk}: {}", violation.0));
                }
            }
        }
    }
    None
}

#[test]
fn a_block_older_than_the_tables_memory_is_looked_for_before_it_is_sent_again() {
    assert_eq!(first_wrong(&Script::OF_ONE_STREAM, REMEMBERS_MS), None);
}

#[test]
fn without_looking_the_same_crashes_double_rows() {
    let wrong = first_wrong(&[Script::Alone], i64::MAX).expect("the table has forgotten, and weir does not look");
    assert!(wrong.contains("twice") || wrong.contains("2 times"), "{wrong}");
}
