//! The watermark of each join around the rows of a pass.
//!
//! The first join has the task's. Behind a join it is held back by the join's wait, and a join that waits for an
//! `exact` table is held by what has been read of that, and with it everything behind. It never goes back.

use super::stage::Stage;
use crate::runtime::inputs::{Pass, TableLow};
use crate::step::join::Clock;

/// One join's.
#[derive(Default)]
pub(super) struct Times {
    /// Before the first row.
    start_ms: i64,
    /// Behind each row.
    after_ms: Vec<i64>,
}

impl Times {
    pub fn clock(&self) -> Clock<'_> {
        Clock { start_ms: self.start_ms, after_ms: &self.after_ms }
    }
}

/// What has risen before the first row of a pass (by a change of the idle set, say) is a place of its own, so that what
/// it releases from one join comes to the next before that one sees it. True where there is such a rise.
pub(super) fn rise(times: &mut [Times], stages: &[Stage], pass: &Pass) -> bool {
    let mut rises = false;
    let mut left_ms = pass.watermark_before_ms;
    for (number, (own, stage)) in times.iter_mut().zip(stages).enumerate() {
        own.start_ms = stage.join.now_ms();
        let to_ms = own.start_ms.max(held(left_ms, low_of(pass, number).map(|low| low.before_ms)));
        own.after_ms.clear();
        own.after_ms.push(to_ms);
        rises |= to_ms > own.start_ms;
        left_ms = stage.join.watermark_behind_ms(to_ms);
    }
    rises
}

/// The watermarks of a pass's rows; what has risen before them was taken.
pub(super) fn set(times: &mut [Times], stages: &[Stage], pass: &Pass) {
    for number in 0..stages.len() {
        let (before, rest) = times.split_at_mut(number);
        let own = &mut rest[0];
        let stage = &stages[number];
        let low = low_of(pass, number);
        // A table that was set aside and comes back does not take the watermark back.
        let mut now_ms = stage.join.now_ms();
        own.start_ms = now_ms;
        let mut onto = |row: usize, left_ms: i64| {
            now_ms = now_ms.max(held(left_ms, low.map(|low| low.behind_ms[row])));
            now_ms
        };
        own.after_ms.clear();
        match before.last() {
            None => {
                let lefts = pass.rows.meta.iter().map(|meta| meta.watermark_ms).enumerate();
                own.after_ms.extend(lefts.map(|(row, left_ms)| onto(row, left_ms)));
            }
            Some(times) => {
                let behind = |watermark_ms: i64| stages[number - 1].join.watermark_behind_ms(watermark_ms);
                let lefts = times.after_ms.iter().map(|&ms| behind(ms)).enumerate();
                own.after_ms.extend(lefts.map(|(row, left_ms)| onto(row, left_ms)));
            }
        }
    }
}

fn low_of(pass: &Pass, join: usize) -> Option<&TableLow> {
    pass.table_lows.iter().find(|low| low.join as usize == join)
}

fn held(left_ms: i64, low_ms: Option<i64>) -> i64 {
    low_ms.map_or(left_ms, |low_ms| left_ms.min(low_ms))
}

/// Time stands still: a replay.
pub(super) fn stop(times: &mut [Times], stages: &[Stage], rows: usize) {
    for (times, stage) in times.iter_mut().zip(stages) {
        times.start_ms = stage.join.now_ms();
        times.after_ms.clear();
        times.after_ms.resize(rows, times.start_ms);
    }
}
