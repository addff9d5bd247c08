//! Steps that follow one another up to a join or the sink, each with its number among all steps of the pipeline.
//!
//! Owns them. Promises: rows that fall are named with their place, and a row that falls behind a step with state gives
//! its key back, as if the rows had come one by one.

use super::run::{Exit, Place, Run, Scene};
use super::{Mode, Step};
use crate::codec::rows::{BadRow, Rows};
use crate::error::Result;
use crate::sink::BuilderMark;
use crate::state::StateStore;
use crate::state::ledger::StepCounts;
use crate::step::dedup::{Dedup, DedupMark};
use crate::step::join::Side;
use crate::types::TaskNo;

pub(super) struct Stretch {
    steps: Vec<(usize, Step)>,
    /// The number of the first step whose state a later dead letter has to give back.
    first_with_state: Option<usize>,
    alive: Vec<u32>,
    bad: Vec<BadRow>,
}

/// Where a redo goes back to.
struct Mark {
    dedups: Vec<DedupMark>,
    builder: Option<BuilderMark>,
    survivors: usize,
}

impl Stretch {
    pub fn new(steps: Vec<(usize, Step)>) -> Stretch {
        let first_with_state = steps.iter().find(|(_, step)| step.has_state()).map(|(number, _)| *number);
        Stretch { steps, first_with_state, alive: vec![], bad: vec![] }
    }

    pub fn has_state(&self) -> bool {
        self.first_with_state.is_some()
    }

    /// Takes rows, which ascend, through the steps to the exit. Those that get to a join are added to `survivors`.
    pub fn through(
        &mut self,
        scene: &Scene<'_>,
        rows: &mut Rows,
        list: &[u32],
        exit: &mut Exit<'_>,
        survivors: &mut Vec<u32>,
        run: &mut Run,
    ) -> Result<()> {
        let (mut at, mut size) = (0, list.len());
        while at < list.len() {
            let end = list.len().min(at + size);
            let done = self.take(scene, rows, &list[at..end], exit, survivors, run)?;
            at += done;
            size = if at == end { done * 2 } else { 1 };
        }
        Ok(())
    }

    /// Takes as many of the rows as can be decided together, at least one; answers how many. If one falls behind a step
    /// with state, what was done is taken back, and the rows before it are taken again (they are decided as before).
    fn take(
        &mut self,
        scene: &Scene<'_>,
        rows: &mut Rows,
        list: &[u32],
        exit: &mut Exit<'_>,
        survivors: &mut Vec<u32>,
        run: &mut Run,
    ) -> Result<usize> {
        let mark = self.mark(exit, survivors);
        let part = self.run(scene, rows, list, exit, survivors)?;
        let first =
            part.fallen.iter().filter(|fallen| self.gives_back(fallen.place)).map(|fallen| fallen.bad.row).min();
        let Some(first) = first else {
            run.add(part);
            return Ok(list.len());
        };
        self.rollback(&mark, exit, survivors);
        let before = list.partition_point(|&row| row < first);
        if before > 0 {
            return self.take(scene, rows, &list[..before], exit, survivors, run);
        }
        // The first row itself: alone it falls again, and takes its traces with it.
        let part = self.run(scene, rows, &list[..1], exit, survivors)?;
        self.rollback(&mark, exit, survivors);
        run.add(part);
        Ok(1)
    }

    fn gives_back(&self, place: Place) -> bool {
        match (place, self.first_with_state) {
            // What is left of it in the builder has to go, too.
            (Place::Sink, _) => true,
            (Place::Step(_), None) => false,
            (Place::Step(step), Some(first)) => step > first || !self.steps.iter().any(|(number, _)| *number == step),
        }
    }

    fn run(
        &mut self,
        scene: &Scene<'_>,
        rows: &mut Rows,
        list: &[u32],
        exit: &mut Exit<'_>,
        survivors: &mut Vec<u32>,
    ) -> Result<Run> {
        let mut part = Run::new(scene.steps);
        let alive = &mut self.alive;
        alive.clear();
        alive.extend_from_slice(list);
        for (number, step) in &mut self.steps {
            let rows_in = alive.len() as u64;
            let (mut late, mut unjudged) = (0, 0);
            match step {
                Step::Filter(filter) => _ = filter.apply(rows, alive, &mut self.bad),
                Step::Select(select) => select.apply(rows, alive, &mut self.bad),
                // A replay changes no state: whoever restores this task later knows nothing of it.
                Step::Dedup(_) if scene.mode == Mode::Replay => {}
                Step::Dedup(dedup) => {
                    let before = dedup.counts();
                    dedup.apply(scene.store, rows, alive, &mut self.bad)?;
                    let now = dedup.counts();
                    (late, unjudged) = (now.late - before.late, now.dropped - before.dropped);
                }
            }
            let (rows_out, dead_letters) = (alive.len() as u64, self.bad.len() as u64);
            let dropped = rows_in - rows_out - dead_letters - unjudged;
            part.counts.steps[*number] =
                StepCounts { rows_in, rows_out, dropped, unjudged, dead_letters, late, ..StepCounts::default() };
            self.bad.drain(..).for_each(|bad| part.fell(scene, rows, Place::Step(*number), bad));
        }
        match exit {
            Exit::Sink(builder) => {
                builder.append(rows, alive, &mut self.bad);
                part.counts.unfit = self.bad.len() as u64;
                part.counts.written = alive.len() as u64 - part.counts.unfit;
                self.bad.drain(..).for_each(|bad| part.fell(scene, rows, Place::Sink, bad));
            }
            // Only a key that is to be given back asks for it this early.
            Exit::Join(door) if self.first_with_state.is_some() && scene.mode != Mode::Replay => {
                door.refuse(rows, alive, &mut self.bad);
                if door.side == Side::Left {
                    let refused = self.bad.len() as u64;
                    let join = &mut part.counts.steps[door.number];
                    (join.rows_in, join.dead_letters) = (refused, refused);
                }
                self.bad.drain(..).for_each(|bad| part.fell(scene, rows, Place::Step(door.number), bad));
                survivors.extend_from_slice(alive);
            }
            Exit::Join(_) => survivors.extend_from_slice(alive),
        }
        Ok(part)
    }

    fn mark(&mut self, exit: &mut Exit<'_>, survivors: &[u32]) -> Mark {
        let builder = match exit {
            Exit::Sink(builder) => Some(builder.mark()),
            Exit::Join(_) => None,
        };
        Mark { dedups: self.dedup_marks(), builder, survivors: survivors.len() }
    }

    fn rollback(&mut self, mark: &Mark, exit: &mut Exit<'_>, survivors: &mut Vec<u32>) {
        self.rollback_dedups(&mark.dedups);
        if let (Exit::Sink(builder), Some(mark)) = (exit, mark.builder) {
            builder.rollback(mark);
        }
        survivors.truncate(mark.survivors);
    }

    pub fn dedup_marks(&mut self) -> Vec<DedupMark> {
        self.dedups_mut().map(|(_, dedup)| dedup.mark()).collect()
    }

    pub fn rollback_dedups(&mut self, marks: &[DedupMark]) {
        self.dedups_mut().zip(marks).for_each(|((_, dedup), mark)| dedup.rollback(*mark));
    }

    pub fn forget_marks(&mut self) {
        self.dedups_mut().for_each(|(_, dedup)| dedup.forget_marks());
    }

    pub fn dedups(&self) -> impl Iterator<Item = (usize, &Dedup)> {
        self.steps.iter().filter_map(|(number, step)| match step {
            Step::Dedup(dedup) => Some((*number, &**dedup)),
            Step::Filter(_) | Step::Select(_) => None,
        })
    }

    pub fn dedups_mut(&mut self) -> impl Iterator<Item = (usize, &mut Dedup)> {
        self.steps.iter_mut().filter_map(|(number, step)| match step {
            Step::Dedup(dedup) => Some((*number, &mut **dedup)),
            Step::Filter(_) | Step::Select(_) => None,
        })
    }

    /// The store that held what was sealed with this watermark is durable.
    pub fn stored(&mut self, store: &dyn StateStore, task: TaskNo, watermark_ms: i64) {
        for (number, dedup) in self.dedups_mut() {
            dedup.stored();
            if let Some(horizon_ms) = dedup.seen().horizon_ms(watermark_ms) {
                store.set_horizon(task, number as u16, horizon_ms);
            }
        }
    }
}
