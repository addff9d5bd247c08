//! The order between the inputs of a task: whose record is next, and who has to rest.
//!
//! Promises: the order of a pass is a function of its ranges, the noted clock and the idle set, so that the same cut
//! gives the same rows in the same order on every instance. An input that rests does so for the whole rest of its
//! pass: it has no record in the range that the others overtake.

use super::{Pass, PassLimit, TaskInputs};

impl TaskInputs {
    /// Merges the heads until nothing is held, enough records were taken, or an input that may have more runs dry.
    pub(super) fn merge(&mut self, pass: &mut Pass, limit: PassLimit) {
        self.begin_pass(pass);
        let mut resting = 0;
        while (pass.records as usize) < limit.records {
            let Some(index) = self.next_head(limit.offset_ends, resting) else { break };
            if self.is_far_ahead(index, limit) {
                resting |= 1 << index;
                continue;
            }
            self.take(index, pass);
            let input = &self.inputs[index];
            if input.holds_nothing() && input.may_have_more(limit.end_of(index)) {
                break;
            }
        }
        self.inputs.iter_mut().for_each(|input| input.settle_position());
    }

    /// Merges all that lies before these ends.
    pub(super) fn merge_exactly(&mut self, pass: &mut Pass, ends: &[i64]) {
        self.begin_pass(pass);
        while let Some(index) = self.next_head(Some(ends), 0) {
            self.take(index, pass);
        }
        for (input, end) in self.inputs.iter_mut().zip(ends) {
            input.progress.position = *end;
        }
    }

    /// Lowest event time first; at one time right sides in the order of the steps before the source, then topics as
    /// listed. What is no row has no time and holds up nobody.
    #[inline]
    fn next_head(&self, ends: Option<&[i64]>, resting: u64) -> Option<usize> {
        let note_ms = self.times.note_ms;
        let mut next: Option<(i64, u16, usize)> = None;
        for (index, input) in self.inputs.iter().enumerate() {
            let Some(head) = input.head() else { continue };
            if resting & 1 << index != 0 || ends.is_some_and(|ends| head.offset >= ends[index]) {
                continue;
            }
            let time_ms = head.time_ms.filter(|_| !input.is_ahead(head, note_ms)).unwrap_or(i64::MIN);
            let key = (time_ms, input.rank(), index);
            if next.is_none_or(|next| key < next) {
                next = Some(key);
            }
        }
        next.map(|(_, _, index)| index)
    }

    /// Whether the lowest head lies more than `max_skew` above where another input stands. One that holds records is
    /// not behind: its own head is no lower. Who is set aside, or has all that it is to give, holds nobody.
    fn is_far_ahead(&self, index: usize, limit: PassLimit) -> bool {
        let input = &self.inputs[index];
        let (Some(max_skew_ms), Some(head)) = (input.max_skew_ms(), input.head()) else { return false };
        let time_ms = head.time_ms.filter(|_| !input.is_ahead(head, self.times.note_ms)).unwrap_or(i64::MIN);
        let lowest_ms = time_ms.saturating_sub(max_skew_ms);
        self.inputs.iter().enumerate().any(|(other, slow)| {
            other != index
                && slow.counts()
                && self.times.idle & 1 << other == 0
                && slow.holds_nothing()
                && slow.reached() < limit.end_of(other)
                && slow.progress.high_ms < lowest_ms
        })
    }

    /// Moves the head of one input into the pass.
    #[inline]
    fn take(&mut self, index: usize, pass: &mut Pass) {
        self.leave_idle(index);
        let first_row = pass.rows.len();
        let input = &mut self.inputs[index];
        input.take(index, self.times.note_ms, self.has_joins, pass);
        let Some(meta) = pass.rows.meta.get(first_row) else { return };
        input.push_to(self.times.pushes_to(meta));
        self.raise();
        self.stamp(first_row, pass);
    }
}
