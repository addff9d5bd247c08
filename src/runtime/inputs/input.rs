//! One topic's partition as a task sees it: its queue, the sides it feeds, what it holds.
//!
//! Owns its position and the highest time it has pushed with. Never decides the order between inputs.

use super::held::{Head, Held};
use super::{Found, Pass, Times};
use crate::codec::decode::Decoder;
use crate::codec::record::{Record, RecordBatch};
use crate::error::{Kind, Result};
use crate::runtime::limits;
use crate::source::{FetchLimit, Fetched, Input};
use crate::state::ledger::Progress;

/// What a side of a pipeline is to its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feeds {
    /// The source.
    Left,
    /// The right side of a join, by its number among the joins.
    Right { join: u16 },
    /// A right side that is a table. `exact`: its join waits for it.
    Table { join: u16, exact: bool },
}

impl Feeds {
    /// At one time lower ones come first: right sides in the order of the steps, then the source.
    fn rank(self) -> u16 {
        match self {
            Feeds::Left => u16::MAX,
            Feeds::Right { join } | Feeds::Table { join, .. } => join,
        }
    }

    fn is_table(self) -> bool {
        matches!(self, Feeds::Table { .. })
    }
}

/// A side that a topic feeds.
pub struct InputSide {
    pub decoder: Decoder,
    pub feeds: Feeds,
    /// The same for all sides of one topic.
    pub lateness_ms: i64,
    /// How far ahead of the slowest input it may run; `None` where no join holds it back.
    pub max_skew_ms: Option<i64>,
}

/// What was fetched and not yet counted.
#[derive(Clone, Copy, Default)]
pub(super) struct FetchedCounts {
    pub records: u64,
    pub bytes: u64,
    pub extra_fields: u64,
}

pub struct TaskInput {
    queue: Box<dyn Input>,
    /// In the order in which a record's rows are processed.
    sides: Vec<InputSide>,
    lateness_ms: i64,
    max_skew_ms: Option<i64>,
    counts: bool,
    exact_table: Option<u16>,
    rank: u16,
    pub(super) progress: Progress,
    /// Where its time had come at the end of what is re-read state-only; `i64::MAX` otherwise.
    high_cap_ms: i64,
    /// Since when (boot clock) it has been at its log end with nothing held.
    at_end_since_ms: Option<u64>,
    /// Since when (boot clock) it has had nothing although its log goes on: its leader may be away.
    dry_since_ms: Option<u64>,
    /// When (boot clock) it was last asked for records.
    asked_ms: u64,
    held: Held,
    /// Next offset to read behind all that is held.
    offset_next: i64,
    fetched: FetchedCounts,
    said_unread_keys: bool,
}

impl TaskInput {
    /// A topic that feeds these sides, at least one.
    pub fn new(queue: Box<dyn Input>, mut sides: Vec<InputSide>) -> TaskInput {
        sides.sort_by_key(|side| side.feeds.rank());
        let exact = |side: &InputSide| match side.feeds {
            Feeds::Table { join, exact: true } => Some(join),
            _ => None,
        };
        TaskInput {
            queue,
            lateness_ms: sides[0].lateness_ms,
            max_skew_ms: sides.iter().filter_map(|side| side.max_skew_ms).min(),
            counts: sides.iter().any(|side| !side.feeds.is_table()),
            exact_table: sides.iter().find_map(exact),
            rank: sides[0].feeds.rank(),
            sides,
            progress: Progress { position: 0, high_ms: i64::MIN },
            high_cap_ms: i64::MAX,
            at_end_since_ms: None,
            dry_since_ms: None,
            asked_ms: 0,
            held: Held::default(),
            offset_next: 0,
            fetched: FetchedCounts::default(),
            said_unread_keys: false,
        }
    }

    pub(super) fn begin(&mut self, progress: Progress) {
        self.progress = progress;
        self.offset_next = progress.position;
    }

    pub(super) fn sides(&self) -> impl Iterator<Item = &InputSide> {
        self.sides.iter()
    }

    pub(super) fn sides_mut(&mut self) -> &mut [InputSide] {
        &mut self.sides
    }

    /// Whether it pushes and holds the watermark: what feeds only tables does not.
    #[inline]
    pub(super) fn counts(&self) -> bool {
        self.counts
    }

    /// The join that waits for its table.
    pub(super) fn exact_table(&self) -> Option<u16> {
        self.exact_table
    }

    pub(super) fn max_skew_ms(&self) -> Option<i64> {
        self.max_skew_ms
    }

    pub(super) fn rank(&self) -> u16 {
        self.rank
    }

    /// The highest time it has pushed with, less its lateness.
    #[inline]
    pub(super) fn low_ms(&self) -> i64 {
        self.progress.high_ms.saturating_sub(self.lateness_ms)
    }

    /// A record has this time, as far as it counts.
    #[inline]
    pub(super) fn push_to(&mut self, time_ms: i64) {
        self.progress.high_ms = self.progress.high_ms.max(time_ms.min(self.high_cap_ms));
    }

    pub(super) fn cap_high(&mut self, high_cap_ms: i64) {
        self.high_cap_ms = high_cap_ms;
    }

    /// From now on it has come that far.
    pub(super) fn lift_to(&mut self, low_ms: i64) {
        self.progress.high_ms = self.progress.high_ms.max(low_ms.saturating_add(self.lateness_ms));
    }

    pub(super) fn end(&self) -> i64 {
        self.queue.end()
    }

    /// For how long it has been at its log end, as far as is known: who was not asked for a while (the task had no room,
    /// the process slept) may have got records meanwhile.
    pub(super) fn at_end_for_ms(&self, boot_ms: u64) -> Option<u64> {
        let since = self.at_end_since_ms.filter(|_| !self.was_left_alone(boot_ms))?;
        Some(boot_ms.saturating_sub(since))
    }

    /// For how long it has had nothing although its log goes on.
    pub(super) fn dry_for_ms(&self, boot_ms: u64) -> u64 {
        self.dry_since_ms.map_or(0, |since| boot_ms.saturating_sub(since))
    }

    fn was_left_alone(&self, boot_ms: u64) -> bool {
        boot_ms.saturating_sub(self.asked_ms) > limits::INPUT_ALONE_MS
    }

    #[inline]
    pub(super) fn head(&self) -> Option<Head> {
        self.held.head()
    }

    #[inline]
    pub(super) fn holds_nothing(&self) -> bool {
        self.held.head().is_none()
    }

    /// Next offset to read behind all that is held.
    pub(super) fn reached(&self) -> i64 {
        self.offset_next
    }

    /// Whether there may be records before `offset_end` that were not fetched.
    pub(super) fn may_have_more(&self, offset_end: i64) -> bool {
        self.at_end_since_ms.is_none() && self.offset_next < offset_end
    }

    /// Whether a head's time is too far ahead for an epoch with this noted clock.
    #[inline]
    pub(super) fn is_ahead(&self, head: Head, note_ms: i64) -> bool {
        head.time_ms.is_some_and(|time_ms| self.sides[0].decoder.is_ahead(time_ms, head.timestamp_ms, note_ms))
    }

    /// Moves the head into the pass.
    pub(super) fn take(&mut self, index: usize, note_ms: i64, has_joins: bool, pass: &mut Pass) {
        self.held.take(&self.sides, index, note_ms, has_joins, pass);
    }

    /// The position is that of the head, or behind what was fetched.
    pub(super) fn settle_position(&mut self) {
        self.progress.position = self.held.head().map_or(self.offset_next, |head| head.offset);
    }

    pub(super) fn raw(&self, record: u32) -> (&Record, &[u8]) {
        self.held.raw(record)
    }

    pub(super) fn take_fetched(&mut self) -> FetchedCounts {
        std::mem::take(&mut self.fetched)
    }

    /// What the client gets over by itself (a broker that is away, a leader that moves) is no more than nothing new.
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        match self.queue.fill(batch, limit) {
            Err(error) if error.kind == Kind::Retry => {
                tracing::debug!(code = error.code, "{error}");
                Ok(Fetched { records: 0, offset_next: i64::MIN, at_end: false })
            }
            filled => filled,
        }
    }

    /// The only input of a pipeline without joins: what is there goes into the pass as it is.
    pub(super) fn next_pass(&mut self, times: &mut Times, pass: &mut Pass, limit: FetchLimit) -> Result<Found> {
        if self.progress.position >= limit.offset_end {
            return Ok(Found::Nothing);
        }
        let fetched = self.fill(&mut pass.batch, limit)?;
        let position = fetched.offset_next.min(limit.offset_end);
        if position <= self.progress.position {
            return Ok(Found::Nothing);
        }
        self.progress.position = position;
        pass.records = pass.batch.records.len() as u64;
        pass.read.push((pass.records, pass.batch.bytes.len() as u64));
        self.sides[0].decoder.decode(&mut pass.batch, times.note_ms, &mut pass.rows, &mut pass.decoded);
        pass.tombstones = pass.decoded.tombstones;
        pass.extra_fields = pass.decoded.extra_fields;
        pass.broken.extend(pass.decoded.broken.drain(..).map(|bad| (0, bad)));
        for meta in &mut pass.rows.meta {
            let high_ms = self.progress.high_ms.max(times.pushes_to(meta));
            self.progress.high_ms = high_ms;
            times.rise_to(high_ms.saturating_sub(self.lateness_ms));
            meta.watermark_ms = times.watermark_ms;
        }
        Ok(Found::Pass)
    }

    /// Fetches and decodes behind what is held.
    pub(super) fn fetch(&mut self, pass: &mut Pass, limit: FetchLimit, boot_ms: u64) -> Result<()> {
        pass.batch.clear();
        if self.was_left_alone(boot_ms) {
            (self.at_end_since_ms, self.dry_since_ms) = (None, None);
        }
        self.asked_ms = boot_ms;
        let fetched = self.fill(&mut pass.batch, limit)?;
        self.offset_next = self.offset_next.max(fetched.offset_next.min(limit.offset_end));
        if fetched.records > 0 {
            (self.at_end_since_ms, self.dry_since_ms) = (None, None);
            self.fetched.records += fetched.records as u64;
            self.fetched.bytes += pass.batch.bytes.len() as u64;
            self.held.add(&mut self.sides, &mut pass.batch, &mut pass.decoded);
            self.fetched.extra_fields += pass.decoded.extra_fields;
            if pass.decoded.unread_keys > 0 && !std::mem::replace(&mut self.said_unread_keys, true) {
                self.say_unread_keys();
            }
        } else if !fetched.at_end {
            self.at_end_since_ms = None;
            self.dry_since_ms.get_or_insert(boot_ms);
        } else {
            self.at_end_since_ms.get_or_insert(boot_ms);
            self.dry_since_ms = None;
        }
        Ok(())
    }

    #[cold]
    fn say_unread_keys(&self) {
        tracing::warn!(
            topic = self.sides[0].decoder.topic(),
            "a tombstone of a table deletes nothing: its record key is neither the join key's text or number nor a \
             JSON object with its fields; such tombstones are skipped and counted"
        );
    }
}
