//! The watermark of each join around the rows of a pass.
//!
//! The first join has the task's. Behind a join it is held back by the join's wait, and a join that waits for an
//! `exact` table is held by what has been read of that, and with it everything behind. It never goes back.

use super::stage::Stage;
use crate::runtime::inputs::Pass;
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

/// The watermarks of a pass.
pub(super) fn set(times: &mut [Times], stages: &[Stage], pass: &Pass) {
    for number in 0..stages.len() {
        let (before, rest) = times.split_at_mut(number);
        let own = &mut rest[0];
        let stage = &stages[number];
        let low = pass.table_lows.iter().find(|low| low.join as usize == number);
        // A table that was set aside and comes back does not take the watermark back.
        let mut now_ms = stage.join.now_ms();
        let mut held = |left_ms: i64, low_ms: Option<i64>| {
            now_ms = now_ms.max(low_ms.map_or(left_ms, |low_ms| left_ms.min(low_ms)));
            now_ms
        };
        let of_row = |row: usize| low.map(|low| low.behind_ms[row]);
        own.after_ms.clear();
        match before.last() {
            None => {
                own.start_ms = held(pass.watermark_before_ms, low.map(|low| low.before_ms));
                let lefts = pass.rows.meta.iter().map(|meta| meta.watermark_ms).enumerate();
                own.after_ms.extend(lefts.map(|(row, left_ms)| held(left_ms, of_row(row))));
            }
            Some(times) => {
                let behind = |watermark_ms: i64| stages[number - 1].join.watermark_behind_ms(watermark_ms);
                own.start_ms = held(behind(times.start_ms), low.map(|low| low.before_ms));
                let lefts = times.after_ms.iter().map(|&ms| behind(ms)).enumerate();
                own.after_ms.extend(lefts.map(|(row, left_ms)| held(left_ms, of_row(row))));
            }
        }
    }
}

/// Time stands still: a replay.
pub(super) fn stop(times: &mut [Times], stages: &[Stage], rows: usize) {
    for (times, stage) in times.iter_mut().zip(stages) {
        times.start_ms = stage.join.now_ms();
        times.after_ms.clear();
        times.after_ms.resize(rows, times.start_ms);
    }
}
