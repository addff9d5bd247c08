//! What one go over some rows did, before it counts: the rows that fell, and the numbers.
//!
//! Owns nothing of the state. A run that is taken back is dropped, and leaves neither a letter nor a number behind.

use super::{Mode, Step};
use crate::codec::object::write_object;
use crate::codec::packed::NOT_OF_THIS_PASS;
use crate::codec::rows::{BadRow, RowMeta, Rows, Slot};
use crate::sink::BlockBuilder;
use crate::state::StateStore;
use crate::state::ledger::{Counts, StepCounts};
use crate::step::join::{Clock, Join, Joined, Side};

/// What a run did.
pub(super) struct Run {
    pub fallen: Vec<Fallen>,
    pub counts: Counts,
}

/// A row that became a dead letter in a run, and where.
pub(super) struct Fallen {
    pub place: Place,
    pub bad: BadRow,
    pub meta: RowMeta,
    /// Of a row whose record is not of this pass: the fields that are known of it, as JSON.
    pub known: Option<Vec<u8>>,
    /// The row of the pass that came here without having waited: it gives its keys back, those before joins too.
    pub back: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// By its number among all steps.
    Step(usize),
    Sink,
}

/// What lies behind some steps.
pub(super) enum Exit<'a> {
    Sink(&'a mut dyn BlockBuilder),
    Join(Door<'a>),
}

/// A side of a join.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    pub join: &'a Join,
    /// Among all steps.
    pub number: usize,
    pub side: Side,
    pub clock: Clock<'a>,
    /// Where each row stands: rows of the pass at their own number, later ones here.
    pub places: Places<'a>,
}

/// The places of rows.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// So many rows are of the pass.
    pub of_pass: u32,
    /// Those that a join has added, one behind the other.
    pub added: &'a [Joined],
}

/// What a run needs to know.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub store: &'a dyn StateStore,
    pub mode: Mode,
    /// How many steps there are, those of right sides included.
    pub steps: usize,
    /// How many rows the pass has, before joins add any.
    pub of_pass: u32,
    /// The fields of a row by name, as they are known here.
    pub names: &'a [(String, Slot)],
    /// See [`Fallen::back`].
    pub back: &'a dyn Fn(u32) -> Option<u32>,
}

impl Run {
    pub fn new(steps: usize) -> Run {
        let counts = Counts { steps: vec![StepCounts::default(); steps], ..Counts::default() };
        Run { fallen: vec![], counts }
    }

    /// A part of this run that stands.
    pub fn add(&mut self, part: Run) {
        self.fallen.extend(part.fallen);
        self.counts.unfit += part.counts.unfit;
        self.counts.written += part.counts.written;
        self.counts.steps.iter_mut().zip(&part.counts.steps).for_each(|(sum, step)| sum.add(step));
    }

    pub fn fell(&mut self, scene: &Scene<'_>, rows: &Rows, place: Place, bad: BadRow) {
        let meta = rows.meta[bad.row as usize];
        let is_stored = meta.record == NOT_OF_THIS_PASS && scene.mode != Mode::StateOnly;
        let known = is_stored.then(|| {
            let mut object = Vec::new();
            write_object(rows, bad.row, scene.names, &mut object);
            object
        });
        let back = (scene.back)(bad.row);
        self.fallen.push(Fallen { place, bad, meta, known, back });
    }
}

impl Places<'_> {
    pub fn of(&self, row: u32) -> u32 {
        if row < self.of_pass { row } else { self.added[(row - self.added[0].row) as usize].place }
    }
}

impl Door<'_> {
    /// Takes those out of `alive` that the join refuses whatever its state.
    pub fn refuse(&self, rows: &Rows, alive: &mut Vec<u32>, bad: &mut Vec<BadRow>) {
        alive.retain(|&row| {
            let watermark_ms = self.clock.before_ms(self.places.of(row));
            let refused = self.join.refuses(self.side, rows, row, watermark_ms);
            let stays = refused.is_none();
            bad.extend(refused);
            stays
        });
    }
}

impl Step {
    /// Whether it remembers rows.
    pub(super) fn has_state(&self) -> bool {
        matches!(self, Step::Dedup(_))
    }
}
