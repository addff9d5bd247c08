//! A join among the steps: its right side, the step itself, and the stretch behind it.
//!
//! Owns how rows come to a join in the order of their places and how its outputs go on, chunk by chunk, so that a key
//! with many rows does not fill the memory. Promises: at one place the right row comes before the left ones, what time
//! releases goes on before the next place, and the next join's watermark never runs ahead of the rows it is to get.

use super::Mode;
use super::run::{Door, Exit, Place, Places, Run, Scene};
use super::stretch::Stretch;
use super::times::Times;
use crate::codec::object::write_object;
use crate::codec::rows::{Kind, Rows, Slot};
use crate::error::Result;
use crate::runtime::compile::JoinPart;
use crate::sink::BlockBuilder;
use crate::state::StateStore;
use crate::state::buffer::SegmentSize;
use crate::state::ledger::StepCounts;
use crate::step::join::{Batch, Event, Join, JoinCounts, JoinParts, Joined, Output, Side};
use crate::types::TaskNo;

pub(super) struct Stage {
    /// Its place in the written list.
    pub number: usize,
    pub right: Stretch,
    /// What the right steps leave as one object, where it is asked for.
    object: Option<(Slot, Vec<(String, Slot)>)>,
    pub join: Join,
    pub behind: Stretch,
    /// The fields of a row behind the join, by name.
    names: Vec<(String, Slot)>,
    /// Rows of the right side in the run, and whether they delete.
    rights: Vec<(u32, bool)>,
    /// So many of them have come to the join.
    rights_taken: usize,
    out: Output,
}

/// A row on its way to a join's left side.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub row: u32,
    pub place: u32,
    /// The row of the pass that it is, or that went right through all joins so far.
    pub back: Option<u32>,
}

/// Which places are taken. Watermarks behind places before `until` are, rows at it may be.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub from: u32,
    pub until: u32,
}

/// What rows go through and end in.
pub(super) struct Flow<'a> {
    pub scene: Scene<'a>,
    pub sink: &'a mut dyn BlockBuilder,
    pub run: &'a mut Run,
}

impl Stage {
    /// The join with the state that its last stored epoch left. `right_numbers`: of the right steps.
    pub fn open(
        store: &dyn StateStore,
        task: TaskNo,
        part: JoinPart,
        right_numbers: impl Iterator<Item = usize>,
        behind: Stretch,
        segment: SegmentSize,
    ) -> Result<Stage> {
        let JoinPart { place, steps, object, rules, left_key, right_key, key_text, assembly, names, .. } = part;
        let parts = JoinParts { rules, left_key, right_key, key_text, assembly, segment };
        Ok(Stage {
            number: place as usize,
            right: Stretch::new(right_numbers.zip(steps).collect()),
            object,
            join: Join::open(store, task, place, parts)?,
            behind,
            names,
            rights: vec![],
            rights_taken: 0,
            out: Output::default(),
        })
    }

    /// Takes the rows of its right side to its door; those that delete go past the steps.
    pub fn take_rights(
        &mut self,
        scene: &Scene<'_>,
        times: &Times,
        rows: &mut Rows,
        list: &[u32],
        deletions: &[u32],
        run: &mut Run,
    ) -> Result<()> {
        let places = Places { of_pass: scene.of_pass, added: &[] };
        let door = Door { join: &self.join, number: self.number, side: Side::Right, clock: times.clock(), places };
        let mut survivors = Vec::new();
        self.right.through(scene, rows, list, &mut Exit::Join(door), &mut survivors, run)?;
        if let Some((slot, fields)) = &self.object {
            let mut object = Vec::new();
            for &row in &survivors {
                object.clear();
                write_object(rows, row, fields, &mut object);
                let field = rows.append(Kind::Object, &object);
                rows.set(row, *slot, field);
            }
        }
        self.rights.clear();
        self.rights.extend(survivors.iter().map(|&row| (row, false)).chain(deletions.iter().map(|&row| (row, true))));
        self.rights.sort_unstable();
        self.rights_taken = 0;
        Ok(())
    }

    /// The watermark of the rows behind it.
    pub fn watermark_behind_ms(&self) -> i64 {
        self.join.watermark_behind_ms(self.join.now_ms())
    }

    /// What comes to the join up to and with this place, in its order.
    fn events(&mut self, lefts: &[Left], until: u32, is_replayed: bool) -> Vec<Event> {
        let mut events = Vec::with_capacity(lefts.len() + self.rights.len() - self.rights_taken);
        let mut lefts = lefts.iter().peekable();
        let mut take_lefts = |before: Option<u32>, events: &mut Vec<Event>| {
            while let Some(left) = lefts.next_if(|left| before.is_none_or(|before| left.place < before)) {
                let Left { row, place, .. } = *left;
                events.push(Event { row, side: Side::Left, deletes: false, is_replayed, place });
            }
        };
        while let Some(&(row, deletes)) = self.rights.get(self.rights_taken).filter(|(row, _)| *row <= until) {
            take_lefts(Some(row), &mut events);
            events.push(Event { row, side: Side::Right, deletes, is_replayed, place: row });
            self.rights_taken += 1;
        }
        take_lefts(None, &mut events);
        events
    }

    /// What one call of the join brought out goes on through the stretch behind: to the sink, or to the next join, as
    /// its left rows.
    fn go_on(
        &mut self,
        flow: &mut Flow<'_>,
        next: Option<(&Stage, &Times)>,
        rows: &mut Rows,
        lefts: &[Left],
        counts_before: JoinCounts,
    ) -> Result<Vec<Left>> {
        let Flow { scene, sink, run } = flow;
        let of_pass = scene.of_pass;
        let left_of = |row: u32| lefts.binary_search_by_key(&row, |left| left.row).ok().map(|at| lefts[at]);
        let back_of_input = |row: u32| if row < of_pass { Some(row) } else { left_of(row).and_then(|left| left.back) };
        let step = &mut run.counts.steps[self.number];
        step.add(&counts_since(counts_before, self.join.counts()));
        step.rows_out += self.out.rows.len() as u64;
        step.dead_letters += self.out.bad.iter().filter(|bad| left_of(bad.row).is_some()).count() as u64;
        let at_join = Scene { back: &back_of_input, ..*scene };
        for bad in self.out.bad.drain(..) {
            run.fell(&at_join, rows, Place::Step(self.number), bad);
        }
        let added: &[Joined] = &self.out.rows;
        let first = added.first().map_or(0, |joined| joined.row);
        let joined_of = |row: u32| added[(row - first) as usize];
        let back_of_output = |row: u32| joined_of(row).through.and_then(back_of_input);
        let behind = Scene { back: &back_of_output, names: &self.names, ..*scene };
        let list: Vec<u32> = added.iter().map(|joined| joined.row).collect();
        let mut survivors = Vec::new();
        let mut exit = exit(next, Places { of_pass, added }, &mut **sink);
        self.behind.through(&behind, rows, &list, &mut exit, &mut survivors, run)?;
        let left = |row: u32| Left { row, place: joined_of(row).place, back: back_of_output(row) };
        Ok(survivors.into_iter().map(left).collect())
    }
}

/// The left side of the next join, or the sink.
pub(super) fn exit<'a>(
    next: Option<(&'a Stage, &'a Times)>,
    places: Places<'a>,
    sink: &'a mut dyn BlockBuilder,
) -> Exit<'a> {
    match next {
        None => Exit::Sink(sink),
        Some((stage, times)) => {
            let (join, number) = (&stage.join, stage.number);
            Exit::Join(Door { join, number, side: Side::Left, clock: times.clock(), places })
        }
    }
}

/// Takes left rows, in the order of their places, through the joins and what is behind each, into the sink. What the
/// joins have added to the rows is taken away again.
pub(super) fn onward(
    stages: &mut [Stage],
    times: &[Times],
    flow: &mut Flow<'_>,
    rows: &mut Rows,
    lefts: &[Left],
    range: Range,
) -> Result<()> {
    let (Some((stage, rest)), Some((time, times))) = (stages.split_first_mut(), times.split_first()) else {
        return Ok(());
    };
    let events = stage.events(lefts, range.until, flow.scene.mode == Mode::Replay);
    flow.run.counts.steps[stage.number].rows_in += lefts.len() as u64;
    let mut batch = Batch::new(time.clock(), &events, range.from, range.until);
    let mut from = range.from;
    loop {
        let counts = stage.join.counts();
        let extent = rows.extent();
        stage.out.clear();
        let done = stage.join.apply(flow.scene.store, &mut batch, rows, &mut stage.out)?;
        let until = if done { range.until } else { batch.place() };
        let lefts = stage.go_on(flow, rest.first().zip(times.first()), rows, lefts, counts)?;
        onward(rest, times, flow, rows, &lefts, Range { from, until })?;
        rows.cut(extent);
        from = until;
        if done {
            return Ok(());
        }
    }
}

/// Lets everything that waits out of one join after the other.
pub(super) fn close(stages: &mut [Stage], times: &[Times], flow: &mut Flow<'_>, rows: &mut Rows) -> Result<()> {
    let (Some((stage, rest)), Some((_, times))) = (stages.split_first_mut(), times.split_first()) else {
        return Ok(());
    };
    loop {
        let counts = stage.join.counts();
        let extent = rows.extent();
        stage.out.clear();
        let done = stage.join.close(flow.scene.store, 0, rows, &mut stage.out)?;
        let lefts = stage.go_on(flow, rest.first().zip(times.first()), rows, &[], counts)?;
        onward(rest, times, flow, rows, &lefts, Range { from: 0, until: 0 })?;
        rows.cut(extent);
        if done {
            return close(rest, times, flow, rows);
        }
    }
}

fn counts_since(before: JoinCounts, now: JoinCounts) -> StepCounts {
    StepCounts {
        dropped: now.dropped - before.dropped,
        late: now.late - before.late,
        matched: now.matched - before.matched,
        unmatched: now.unmatched - before.unmatched,
        left_matched: now.left_matched - before.left_matched,
        left_decided: now.left_decided - before.left_decided,
        ..StepCounts::default()
    }
}
