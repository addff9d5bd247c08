//! The join step: rows of two sides with equal keys, near in time, become one.
//!
//! Owns what happens to each row of either side, and the order of what comes out. Promises: the rows that the
//! definition gives, each as often as it says, in an order that depends on nothing but the order of the records and
//! their watermarks; a row is never sent both matched and alone. What waits lies in `state/buffer.rs`, tables in
//! `state/versions.rs`. Never sees Kafka, a thread or a clock.
//!
//! A batch is a list of events in processing order. Each stands at a place; the clock tells the join's watermark
//! behind each place, also of places whose rows were dropped before they came here. A row is judged with the watermark
//! before its place; what that place's advance releases follows it.

mod arrive;
mod assembly;
mod release;
mod rules;

use crate::codec::key::{Key, KeyHasher};
use crate::codec::rows::{BadRow, Field, RowMeta, Rows};
use crate::error::{Error, Result};
use crate::state::buffer::{self, Ahead, Arrival, Buffer, Hit, Probe, SegmentSize};
use crate::state::versions::{self, Versions};
use crate::state::{StateStore, WriteBatch};
use crate::types::TaskNo;
use assembly::LeftPart;
pub use assembly::{Assembly, Either};
pub use rules::{Kind, Late, Rules, Side};

/// A row that reaches the join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub row: u32,
    pub side: Side,
    /// A row of a table that is deleted: only its key counts.
    pub deletes: bool,
    /// A left row of a replay: it meets what there is, is never late, and never stays.
    pub is_replayed: bool,
    /// Where its record stands in the pass. Events come in this order, at one place the right side first.
    pub place: u32,
}

/// The join's watermark around each place.
#[derive(Clone, Copy, Debug)]
pub struct Clock<'a> {
    /// Before the first place.
    pub start_ms: i64,
    /// Behind each place.
    pub after_ms: &'a [i64],
}

/// Events of a stretch of places, and how far they have come.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    clock: Clock<'a>,
    events: &'a [Event],
    /// The next place whose watermark is to be taken.
    place: u32,
    until: u32,
}

impl<'a> Batch<'a> {
    /// Everything at the places `from .. until`.
    pub fn new(clock: Clock<'a>, events: &'a [Event], from: u32, until: u32) -> Batch<'a> {
        Batch { clock, events, place: from, until }
    }

    /// The place that it has come to: more rows may come out at it, and none before it.
    pub fn place(&self) -> u32 {
        self.place
    }
}

/// What comes out of the join.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Joined rows, appended to the batch's rows, in order.
    pub rows: Vec<Joined>,
    pub bad: Vec<BadRow>,
    /// The size of the arena at which a call ends.
    arena_max: usize,
}

/// A row that comes out, and the place of the record that caused it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Joined {
    pub row: u32,
    pub place: u32,
    /// The row of the batch that went right through and left nothing behind in the join.
    pub through: Option<u32>,
}

/// What became of the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JoinCounts {
    /// Pairs.
    pub matched: u64,
    /// Rows sent alone.
    pub unmatched: u64,
    /// Left rows that met nothing in time and are not sent, and late ones where the plan says so.
    pub dropped: u64,
    /// Rows later than `lateness` allows: late by the definition, or so that partners may have been gone.
    pub late: u64,
    /// Left rows that met something, and those of which it is known (those among `dropped` included).
    pub left_matched: u64,
    pub left_decided: u64,
}

/// Rows that come out of one call, about: a key with many rows must not fill the memory.
const OUTPUT_ROWS_MAX: usize = 16 << 10;
/// And how much text they bring, about.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Fields point into the arena with 32 bits.
const ARENA_BYTES_MAX: usize = 3 << 30;

/// One join step of one task.
pub struct Join {
    rules: Rules,
    left_key: KeyHasher,
    right_key: KeyHasher,
    /// The key as it is written in the file.
    key_text: String,
    assembly: Assembly,
    left: Buffer,
    right: Right,
    /// The watermark up to which everything was released.
    now_ms: i64,
    counts: JoinCounts,
    work: Work,
}

enum Right {
    Rows(Buffer),
    Table(Versions),
}

/// What one batch needs; kept for the next.
#[derive(Default)]
struct Work {
    arrivals: Vec<Arrived>,
    left_probes: Vec<Probe>,
    right_probes: Vec<Probe>,
    left_ahead: Ahead,
    right_ahead: Ahead,
    /// Of left rows whose time has come.
    due_ahead: Ahead,
    table_keys: Vec<u128>,
    hits: Vec<Hit>,
    bytes: Vec<u8>,
    left_fields: Vec<Field>,
    right_fields: Vec<Field>,
}

/// An event with what is known before anything happens.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    event: Event,
    key: ArrivedKey,
    time_ms: i64,
    watermark_ms: i64,
    /// Its places among the probes of the other side and of its own.
    opposite: Option<u32>,
    own: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ArrivedKey {
    Hash(u128),
    Missing,
    Bad,
}

/// A row to be sent: of this pass, or stored.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Row(u32),
    Stored(Arrival),
    /// A version of a table; its bytes lie in `work.bytes`.
    Version,
}

/// A moment to which a step can go back, until the next `mark`, `seal` or `stored`.
#[derive(Clone, Copy, Debug)]
pub struct JoinMark {
    left: buffer::Mark,
    right: RightMark,
    now_ms: i64,
    counts: JoinCounts,
}

#[derive(Clone, Copy, Debug)]
enum RightMark {
    Rows(buffer::Mark),
    Table(versions::Mark),
}

/// What a join is made of beside its state.
pub struct JoinParts {
    pub rules: Rules,
    pub left_key: KeyHasher,
    pub right_key: KeyHasher,
    pub key_text: String,
    pub assembly: Assembly,
    /// Of each side.
    pub segment: SegmentSize,
}

impl Clock<'_> {
    /// The watermark that judges the rows at a place.
    pub fn before_ms(&self, place: u32) -> i64 {
        place.checked_sub(1).map_or(self.start_ms, |before| self.after_ms[before as usize])
    }
}

impl Join {
    /// The step at place `step` of the plan, with the state that its last stored epoch left.
    ///
    /// # Errors
    /// `corrupt` when the state is not what was written.
    pub fn open(store: &dyn StateStore, task: TaskNo, step: u16, parts: JoinParts) -> Result<Join> {
        let JoinParts { rules, left_key, right_key, key_text, assembly, segment } = parts;
        let left = Buffer::open(store, task, step, 0, segment)?;
        let right = match rules.kind {
            Kind::Table { .. } => Right::Table(Versions::new(task, step)),
            _ => Right::Rows(Buffer::open(store, task, step, 1, segment)?),
        };
        let (counts, work) = (JoinCounts::default(), Work::default());
        Ok(Join { rules, left_key, right_key, key_text, assembly, left, right, now_ms: i64::MIN, counts, work })
    }

    /// The watermark with which the stored state was left: nothing that it releases is there to be released.
    pub fn begin(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// Takes the events of a batch on, into `out`, which keeps what it had. True when the batch is done; else what came out
    /// is to be taken away before the next call.
    ///
    /// # Errors
    /// The store cannot be read; what was done so far stands.
    pub fn apply(
        &mut self,
        store: &dyn StateStore,
        batch: &mut Batch<'_>,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        out.arena_max = rows.bytes.len() + OUTPUT_BYTES_MAX;
        if !self.advance(store, batch.clock.before_ms(batch.place), batch.place, rows, out)? {
            return Ok(false);
        }
        let served = self.look_ahead(store, batch, rows)?;
        for number in 0..served {
            let arrived = self.work.arrivals[number];
            if !self.advance_to_place(store, batch, arrived.event.place, rows, out)? || out.is_full(rows) {
                return Ok(false);
            }
            batch.events = &batch.events[1..];
            self.arrive(store, arrived, rows, out)?;
        }
        Ok(batch.events.is_empty() && self.advance_to_place(store, batch, batch.until, rows, out)?)
    }

    /// Lets everything that waits out, as if the watermark had reached the end of time; the rest stays. True when it is done.
    pub fn close(&mut self, store: &dyn StateStore, place: u32, rows: &mut Rows, out: &mut Output) -> Result<bool> {
        out.arena_max = rows.bytes.len() + OUTPUT_BYTES_MAX;
        self.close_windows(store, place, rows, out)
    }

    /// Takes the watermarks of the places before this one. False when there is more to release than fits.
    fn advance_to_place(
        &mut self,
        store: &dyn StateStore,
        batch: &mut Batch<'_>,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        while batch.place < place {
            if !self.advance(store, batch.clock.after_ms[batch.place as usize], batch.place, rows, out)? {
                return Ok(false);
            }
            batch.place += 1;
        }
        Ok(true)
    }

    /// The watermark that the next step sees.
    pub fn watermark_behind_ms(&self, watermark_ms: i64) -> i64 {
        watermark_ms.saturating_sub(self.rules.wait_ms())
    }

    /// The watermark up to which everything was released; `i64::MIN` before time begins.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub fn counts(&self) -> JoinCounts {
        self.counts
    }

    /// Left rows of which it is not known yet whether they meet somebody.
    pub fn left_waiting(&self) -> u64 {
        self.left.waiting()
    }

    /// Rows that wait for a match.
    pub fn waiting(&self) -> u64 {
        let right = match &self.right {
            Right::Rows(rows) => rows.waiting(),
            Right::Table(_) => 0,
        };
        self.left.waiting() + right
    }

    /// The time of the oldest row that waits, or earlier.
    pub fn oldest_waiting_ms(&self) -> Option<i64> {
        let right = match &self.right {
            Right::Rows(rows) => rows.due_next_ms(),
            Right::Table(_) => i64::MAX,
        };
        (self.waiting() > 0).then(|| self.left.due_next_ms().min(right))
    }

    /// Changes that wait in memory for the next store, about.
    pub fn unstored_bytes(&self) -> usize {
        let right = match &self.right {
            Right::Rows(rows) => rows.unstored_bytes(),
            Right::Table(table) => table.bytes(),
        };
        self.left.unstored_bytes() + right
    }

    pub fn mark(&mut self) -> JoinMark {
        let right = match &mut self.right {
            Right::Rows(rows) => RightMark::Rows(rows.mark()),
            Right::Table(table) => RightMark::Table(table.mark()),
        };
        JoinMark { left: self.left.mark(), right, now_ms: self.now_ms, counts: self.counts }
    }

    /// Forgets the rows since the mark, which must be the latest one.
    pub fn rollback(&mut self, mark: JoinMark) {
        self.left.rollback(mark.left);
        match (&mut self.right, mark.right) {
            (Right::Rows(rows), RightMark::Rows(mark)) => rows.rollback(mark),
            (Right::Table(table), RightMark::Table(mark)) => table.rollback(mark),
            _ => unreachable!("a mark is of the step that made it"),
        }
        (self.now_ms, self.counts) = (mark.now_ms, mark.counts);
    }

    /// Ends the epoch: its changes go into the write.
    pub fn seal(&mut self, batch: &mut WriteBatch) {
        self.left.seal(self.rules.serves_from_ms(Side::Left, self.now_ms), batch);
        match &mut self.right {
            Right::Rows(rows) => rows.seal(self.rules.serves_from_ms(Side::Right, self.now_ms), batch),
            Right::Table(table) => table.seal(batch),
        }
    }

    /// The oldest sealed epoch is stored.
    pub fn stored(&mut self) {
        self.left.stored();
        match &mut self.right {
            Right::Rows(rows) => rows.stored(),
            Right::Table(table) => table.stored(),
        }
    }
}

impl Output {
    pub fn clear(&mut self) {
        self.rows.clear();
        self.bad.clear();
    }

    fn is_full(&self, rows: &Rows) -> bool {
        self.rows.len() >= OUTPUT_ROWS_MAX || rows.bytes.len() >= self.arena_max
    }

    /// What came out since is of this row, which left nothing behind.
    fn went_through(&mut self, since: usize, row: u32) {
        self.rows[since..].iter_mut().for_each(|joined| joined.through = Some(row));
    }
}

/// One row meets so many others that what comes out does not fit.
#[cold]
fn too_much() -> Error {
    Error::stop(
        "join_too_large",
        "one record meets so many rows of a join that what comes out has more than 3 GiB: lower `max_rows_per_key`, or \
         select fewer fields",
    )
}

/// A row that does not come back as it went in.
#[cold]
fn corrupt() -> Error {
    Error::stop(
        "corrupt",
        "the join state holds a row that weir did not write; the state directory is damaged or belongs to another plan",
    )
}
