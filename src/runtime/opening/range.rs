//! What is read before a task goes on as usual: how far back state is re-read, which tables come first.

use super::Opening;
use crate::error::Result;
use crate::runtime::compile::InputRoles;
use crate::runtime::recovery::{self, Case, Start};
use crate::source::Group;
use crate::state::ledger::{Mark, Moment};

impl Opening {
    /// Where re-reading begins, and the moment it ends with.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn reread_range(
        &mut self,
        group: &mut dyn Group,
        partition: i32,
        start: &Start,
        mark: &Mark,
        origin: &[i64],
        watermark_ms: Option<i64>,
        logs: &[(i64, i64)],
    ) -> Result<(Vec<i64>, Moment)> {
        let mut to = mark.acknowledged.clone();
        let mut watermark_ms = watermark_ms;
        if start.case == Case::Reset {
            // The Kafka timestamp at the new position stands in for the watermark: the earliest of the inputs'.
            // Tables are read from their beginning, whatever that time is.
            let mut earliest = None;
            let is_stream = |(topic, _): &(usize, i64)| !self.settings.roles.tables.contains(topic);
            for (topic, position) in to.positions().into_iter().enumerate().filter(is_stream) {
                let at = group.timestamp_at(topic, partition, position)?;
                earliest = earliest.into_iter().chain(at).min();
            }
            let at = earliest.unwrap_or_else(|| self.clock.wall_ms());
            // It says how far back to read, and no more: the watermark itself is what re-reading finds, for event
            // times may be much older than the records, and those would all be late.
            // Nobody noted a clock for what is re-read; without one every record would lie in the future.
            to.note_ms = self.clock.wall_ms();
            watermark_ms = Some(at);
        }
        let Some(reach_ms) = self.factory.reach_ms() else {
            return Ok((to.positions(), to));
        };
        let since_ms = recovery::reread_since_ms(watermark_ms, reach_ms, self.settings.roles.max_future_ms);
        let mut from = Vec::new();
        for (topic, end) in to.positions().into_iter().enumerate() {
            if self.settings.roles.tables.contains(&topic) {
                from.push(logs[topic].0.min(end));
                continue;
            }
            let earliest = origin.get(topic).copied().unwrap_or(end);
            let wanted = match since_ms {
                Some(since_ms) => group.offset_at(topic, partition, since_ms)?.max(earliest),
                None => earliest,
            };
            let short = wanted < logs[topic].0;
            if short && start.case != Case::Reset {
                self.stats.recovered("restore_short");
                tracing::warn!(
                    pipeline = self.settings.name,
                    partition,
                    topic = self.settings.topics[topic].0,
                    wanted,
                    first = logs[topic].0,
                    "the topic does not reach back far enough to restore the whole window: duplicates of what is \
                     gone will pass"
                );
            }
            from.push(wanted.max(logs[topic].0).min(end));
        }
        Ok((from, to))
    }
}

/// The tables that are read up to their ends before anything else, as (topic, end): all that are bootstrapped as long
/// as the source is at its origin, and one that nothing was read of yet (a join was added).
pub(super) fn tables_first(roles: &InputRoles, begins: &[i64], origin: &[i64], log_ends: &[i64]) -> Vec<(usize, i64)> {
    let is_new = |topic: &usize| begins.get(*topic) == origin.get(*topic);
    let left_is_new = roles.left.iter().all(is_new);
    let tables = roles.bootstrapped.iter().copied().filter(|table| left_is_new || is_new(table));
    tables.map(|table| (table, log_ends[table])).filter(|(table, end)| begins[*table] < *end).collect()
}

/// The last closing of windows that is behind where re-reading begins.
pub(super) fn closed_before(from: &Moment, to: &Moment) -> Option<Vec<i64>> {
    let closed = to.closed.as_ref()?;
    let is_behind = from.positions().iter().zip(closed).all(|(position, closed)| position > closed);
    if is_behind { to.closed.clone() } else { from.closed.clone() }
}

/// Re-reading state-only never raises the watermark above the mark's, where the mark knows one.
pub(super) fn watermark_cap_ms(to: &Moment) -> i64 {
    if to.has_times() { to.watermark_ms } else { i64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ledger::Progress;
    use crate::types::Incarnation;

    fn at(positions: &[i64], closed: Option<&[i64]>) -> Moment {
        let inputs = positions.iter().map(|&position| Progress { position, high_ms: 0 }).collect();
        let closed = closed.map(<[i64]>::to_vec);
        Moment { inputs, closed, ..recovery::beginning(Incarnation([1; 16]), &[]) }
    }

    fn roles() -> InputRoles {
        InputRoles { left: vec![0], tables: vec![1, 2], bootstrapped: vec![1], ..InputRoles::default() }
    }

    #[test]
    fn a_table_comes_first_as_long_as_the_source_is_at_its_origin() {
        let first = |begins: &[i64], ends: &[i64]| tables_first(&roles(), begins, &[5, 0, 0], ends);
        assert_eq!(first(&[5, 0, 0], &[9, 7, 7]), [(1, 7)], "one without bootstrap does not");
        assert_eq!(first(&[5, 3, 0], &[9, 8, 7]), [(1, 8)], "each start notes the ends anew");
        assert_eq!(first(&[5, 7, 0], &[9, 7, 7]), [], "it has been read");
        assert_eq!(first(&[6, 3, 0], &[9, 7, 7]), [], "later starts just go on");
    }

    #[test]
    fn a_table_that_a_plan_has_added_comes_first_although_the_source_has_moved() {
        assert_eq!(tables_first(&roles(), &[6, 0, 0], &[5, 0, 0], &[9, 7, 7]), [(1, 7)]);
    }

    #[test]
    fn a_closing_of_windows_is_made_again_unless_all_of_it_lies_behind() {
        let to = at(&[90, 90], Some(&[50, 60]));
        assert_eq!(closed_before(&at(&[51, 61], None), &to), to.closed);
        assert_eq!(closed_before(&at(&[10, 70], None), &to), None);
        let ours = at(&[10, 10], Some(&[5, 5]));
        assert_eq!(closed_before(&ours, &to), ours.closed);
        assert_eq!(closed_before(&at(&[1, 1], None), &at(&[9, 9], None)), None);
    }
}
