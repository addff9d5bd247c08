//! The plain driver: everybody gets a turn, nothing else goes wrong, until all is done.

use crate::world::{Violation, World};
use weir::runtime::task::AttemptOutcome;

/// How long a world may take to settle (simulated time). Sessions that time out, waits between commits and
/// backoff all fit in it many times.
const SETTLES_WITHIN_MS: u64 = 120_000;

/// One turn for everybody; requests are answered at once.
pub fn round(world: &mut World) -> Result<(), Violation> {
    round_with(world, &mut |world, at| world.end_request(at, true, acknowledged()))
}

/// The same, with somebody who decides how each request ends.
pub fn round_with(
    world: &mut World,
    end: &mut dyn FnMut(&mut World, usize) -> Result<(), Violation>,
) -> Result<(), Violation> {
    for place in 0..world.instances.len() {
        boot_if_due(world, place);
        world.coordinate(place)?;
        world.work(place);
        world.begin_attempt(place);
        while let Some(at) = world.table.under_way.iter().position(|request| request.life.is_some()) {
            end(world, at)?;
        }
    }
    world.advance(20)
}

pub fn boot_if_due(world: &mut World, place: usize) {
    let instance = &world.instances[place];
    if instance.process.is_none() && instance.boots_at_ms <= world.seams.now_ms() {
        world.boot(place);
    }
}

/// Goes on until everything is read, delivered and acknowledged.
pub fn settle(world: &mut World) -> Result<(), Violation> {
    let until_ms = world.seams.now_ms() + SETTLES_WITHIN_MS;
    while !world.is_settled() {
        if world.seams.now_ms() >= until_ms {
            return Err(Violation(format!("it never settles:\n{}", world.describe())));
        }
        round(world)?;
    }
    Ok(())
}

pub fn acknowledged() -> AttemptOutcome {
    AttemptOutcome::Acknowledged { seconds: 0.01 }
}
