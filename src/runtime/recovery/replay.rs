//! What a start means for a replay of dead letters that was stored before it, as a pure function.

use super::{Base, MarkPlan, Start};
use crate::state::ledger::{Ledger, Mark, flag, names_hash};
use crate::state::letters::{Ending, Replaying};

/// How a stored replay stands when its task begins: `None` while it is still under way (in our outbox, or named by
/// the mark, so that it is made again first).
///
/// Whether its epoch counts, only Kafka knows: it does when the mark is at or behind it and names it as the last
/// replay of this history; it does not when the mark passed that number without one. A mark of another incarnation
/// (somebody moved the offsets, a topic was made anew), or one that has seen other replays since, cannot tell: the
/// letters stay, and say so.
pub fn replay_ending(replay: &Replaying, start: &Start, ledger: Option<&Ledger>) -> Option<Ending> {
    let MarkPlan::Keep(mark) = &start.mark else { return Some(Ending::Unclear) };
    if mark.incarnation != replay.incarnation {
        return Some(Ending::Unclear);
    }
    let epoch = replay.replayed.epoch;
    if mark.acknowledged.epoch >= epoch {
        return Some(match mark.acknowledged.replayed {
            Some(last) if last == replay.replayed => Ending::Gone,
            Some(last) if last.epoch >= epoch => Ending::Unclear,
            _ => Ending::Kept,
        });
    }
    let keeps_outbox = matches!(start.base, Base::Ledger | Base::DeliverFirst);
    let is_held = ledger.is_some_and(|ledger| {
        ledger.epochs.iter().any(|held| held.after.replayed == Some(replay.replayed) && held.after.epoch == epoch)
    });
    match (keeps_outbox && is_held) || is_pending(replay, mark) {
        true => None,
        // Never announced, and the epoch is dropped: an announced one stays in the mark until it is acknowledged.
        false => Some(Ending::Kept),
    }
}

fn is_pending(replay: &Replaying, mark: &Mark) -> bool {
    mark.pending.as_ref().is_some_and(|pending| {
        pending.flags & flag::REPLAY != 0
            && mark.acknowledged.epoch.next() == replay.replayed.epoch
            && names_hash(&mark.topics, &pending.replay) == replay.replayed.records
    })
}
