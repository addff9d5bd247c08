//! The inputs of one task: fetching, decoding, and the order between them.
//!
//! Owns positions and times of each input and hands out *passes*: rows in processing order, with the watermark of
//! each. One input: a pass is what was fetched. Several: a pass merges what is there, lowest event time first, and
//! its cut is written down, because it decides the interleaving. Never touches state and never commits.

use crate::codec::decode::{Decoded, Decoder};
use crate::codec::record::{Record, RecordBatch};
use crate::codec::rows::{BadRow, Field, Kind, RowMeta, Rows};
use crate::error::Result;
use crate::metrics::PipelineStats;
use crate::runtime::limits;
use crate::source::{FetchLimit, Fetched, Input};
use crate::state::ledger::{Cuts, Moment, Progress};
use std::sync::atomic::Ordering::Relaxed;

/// One pass, reused by all tasks of a worker: the memory of the hot path.
#[derive(Default)]
pub struct Pass {
    pub rows: Rows,
    /// Whose each row is; empty where all are the source's.
    pub owners: Vec<Owner>,
    /// The task's watermark before the first row, a rise by a change of the idle set included.
    pub watermark_before_ms: i64,
    /// One for each join with an `exact` table.
    pub table_lows: Vec<TableLow>,
    /// Payloads that could not be decoded: input, its record, why.
    pub broken: Vec<(usize, BadRow)>,
    pub tombstones: u64,
    /// Top-level fields that nothing names, of what was fetched.
    pub extra_fields: u64,
    pub records: u64,
    /// Per input: records and bytes fetched.
    pub read: Vec<(u64, u64)>,
    batch: RecordBatch,
    decoded: Decoded,
    /// Its records are not those of the queues: dead letters that are replayed.
    is_replay: bool,
}

/// Whose a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The source's.
    Left,
    /// Of the right side of this join, by its number among the joins.
    Right { join: u16, deletes: bool },
}

/// How far the table of an `exact` join has been read: the highest time less lateness.
pub struct TableLow {
    /// Its number among the joins.
    pub join: u16,
    /// Before the first row of the pass.
    pub before_ms: i64,
    /// Behind each row.
    pub behind_ms: Vec<i64>,
}

/// What `TaskInputs::next_pass` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The pass has records, or a position moved over markers.
    Pass,
    /// Nothing is there now.
    Nothing,
}

/// How far a pass may go.
#[derive(Clone, Copy, Debug)]
pub struct PassLimit<'a> {
    pub records: usize,
    pub bytes: usize,
    /// Per input: take nothing at or after this offset.
    pub offset_ends: Option<&'a [i64]>,
}

/// The times of a task: what pushes the watermark and what holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Times {
    pub watermark_ms: i64,
    /// Inputs set aside, one bit each.
    pub idle: u64,
    /// It never rises above this (re-reading state-only); `i64::MAX` otherwise.
    pub cap_ms: i64,
    /// The epoch's noted wall clock.
    pub note_ms: i64,
}

pub struct TaskInputs {
    inputs: Vec<TaskInput>,
    pub times: Times,
}

/// One topic's partition as the task sees it.
pub struct TaskInput {
    queue: Box<dyn Input>,
    decoder: Decoder,
    lateness_ms: i64,
    progress: Progress,
    /// Since when (boot clock) it has been at its log end with nothing held.
    at_end_since_ms: Option<u64>,
    /// Since when (boot clock) it has had nothing although its log goes on: its leader may be away.
    dry_since_ms: Option<u64>,
    held: Held,
}

/// Decoded and not yet processed (only with several inputs).
#[derive(Default)]
struct Held {
    records: Vec<Record>,
    rows: Rows,
    items: Vec<Item>,
    cursor: usize,
    /// Next offset to read behind all items.
    offset_next: i64,
}

/// A record's part in the merge.
#[derive(Clone, Debug)]
struct Item {
    time_ms: i64,
    offset: i64,
    kind: ItemKind,
}

#[derive(Clone, Debug)]
enum ItemKind {
    Row(u32),
    Broken(BadRow),
    Tombstone,
}

impl TaskInput {
    pub fn new(queue: Box<dyn Input>, decoder: Decoder, lateness_ms: i64) -> TaskInput {
        let progress = Progress { position: 0, high_ms: i64::MIN };
        TaskInput {
            queue,
            decoder,
            lateness_ms,
            progress,
            at_end_since_ms: None,
            dry_since_ms: None,
            held: Held::default(),
        }
    }
}

impl TaskInputs {
    /// Begins where `moment` stands; the queues must begin there too.
    pub fn new(mut inputs: Vec<TaskInput>, moment: &Moment, cap_ms: i64) -> TaskInputs {
        for (input, progress) in inputs.iter_mut().zip(&moment.inputs) {
            input.progress = *progress;
            input.held.offset_next = progress.position;
        }
        let times = Times { watermark_ms: moment.watermark_ms, idle: moment.idle, cap_ms, note_ms: moment.note_ms };
        TaskInputs { inputs, times }
    }

    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    pub fn progress(&self) -> Vec<Progress> {
        self.inputs.iter().map(|input| input.progress).collect()
    }

    pub fn positions(&self) -> Vec<i64> {
        self.inputs.iter().map(|input| input.progress.position).collect()
    }

    /// Sets positions and times to what a re-read range is known to have ended with. Where its watermark is not known
    /// (somebody moved the offsets), the times that were found stand.
    pub fn set_progress(&mut self, moment: &Moment) {
        let is_known = moment.watermark_ms != i64::MIN;
        for (input, progress) in self.inputs.iter_mut().zip(&moment.inputs) {
            let high_ms = if is_known { progress.high_ms } else { input.progress.high_ms };
            input.progress = Progress { high_ms, ..*progress };
        }
        if is_known {
            self.times.watermark_ms = moment.watermark_ms;
        }
        self.times.idle = moment.idle;
        self.times.cap_ms = i64::MAX;
    }

    /// The last known readable end of each input; -1 before it is known.
    pub fn ends(&self) -> impl Iterator<Item = i64> + '_ {
        self.inputs.iter().map(|input| input.queue.end())
    }

    /// The inputs that have been at their log end for their `idle` time, one bit each.
    pub fn idle_now(&self, idle_after_ms: &[u64], boot_ms: u64) -> u64 {
        let is_idle = |index: usize| {
            let since = self.inputs[index].at_end_since_ms;
            since.is_some_and(|since| boot_ms.saturating_sub(since) >= idle_after_ms[index])
        };
        (0..self.inputs.len()).filter(|&index| is_idle(index)).fold(0, |set, index| set | 1 << index)
    }

    /// Takes the next pass. `cuts` gets this pass's cut when there are several inputs.
    pub fn next_pass(&mut self, pass: &mut Pass, limit: PassLimit, boot_ms: u64, cuts: &mut Cuts) -> Result<Found> {
        pass.clear();
        pass.watermark_before_ms = self.times.watermark_ms;
        match self.inputs.as_mut_slice() {
            [input] => next_of_one(input, &mut self.times, pass, limit),
            _ => self.next_of_many(pass, limit, boot_ms, cuts),
        }
    }

    /// Takes exactly the pass that advances each input by `advance`; `Nothing` until all of it has arrived.
    pub fn exact_pass(&mut self, pass: &mut Pass, advance: &[u64], boot_ms: u64) -> Result<Found> {
        pass.clear();
        let ends: Vec<i64> =
            self.inputs.iter().zip(advance).map(|(input, by)| input.progress.position + *by as i64).collect();
        let mut complete = true;
        for (index, (input, end)) in self.inputs.iter_mut().zip(&ends).enumerate() {
            let limit = FetchLimit { records: usize::MAX, bytes: usize::MAX, offset_end: *end };
            if input.held.offset_next < *end {
                input.fetch(index, pass, limit, self.times.note_ms, boot_ms)?;
            }
            complete &= input.held.offset_next >= *end;
        }
        if !complete {
            return Ok(Found::Nothing);
        }
        self.merge(pass, usize::MAX, Some(&ends), |_| false);
        for (input, end) in self.inputs.iter_mut().zip(&ends) {
            input.progress.position = *end;
        }
        Ok(Found::Pass)
    }

    /// Makes a pass of one input's dead letters that are replayed. Positions, times and the watermark stay.
    pub fn replay_pass(&mut self, pass: &mut Pass, input: usize, letters: &RecordBatch) {
        pass.clear();
        pass.is_replay = true;
        pass.batch.bytes.extend_from_slice(&letters.bytes);
        pass.batch.records.extend_from_slice(&letters.records);
        pass.records = letters.records.len() as u64;
        let decoder = &mut self.inputs[input].decoder;
        decoder.decode(&mut pass.batch, self.times.note_ms, &mut pass.rows, &mut pass.decoded);
        pass.tombstones = pass.decoded.tombstones;
        pass.broken.extend(pass.decoded.broken.drain(..).map(|bad| (input, bad)));
        pass.rows.meta.iter_mut().for_each(|meta| meta.watermark_ms = self.times.watermark_ms);
    }

    fn next_of_many(&mut self, pass: &mut Pass, limit: PassLimit, boot_ms: u64, cuts: &mut Cuts) -> Result<Found> {
        let before = self.positions();
        let each = FetchLimit { records: limit.records, bytes: limit.bytes, offset_end: i64::MAX };
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let end = limit.offset_ends.map_or(i64::MAX, |ends| ends[index]);
            if input.held.is_empty() && input.held.offset_next < end {
                input.fetch(index, pass, FetchLimit { offset_end: end, ..each }, self.times.note_ms, boot_ms)?;
            }
        }
        // What has not arrived cannot be waited for; what is on its way is, for a while: a partition without a leader
        // must not stop the others. (It still holds the watermark. Where the range is given, all of it is waited for.)
        let on_its_way = |index: usize, input: &TaskInput| {
            let end = limit.offset_ends.map_or(i64::MAX, |ends| ends[index]);
            let waited_ms = input.dry_since_ms.map_or(0, |since| boot_ms.saturating_sub(since));
            let is_late = limit.offset_ends.is_none() && waited_ms >= limits::INPUT_WAIT_MS;
            input.held.is_empty() && input.at_end_since_ms.is_none() && input.held.offset_next < end && !is_late
        };
        let waits: Vec<bool> = self.inputs.iter().enumerate().map(|(index, input)| on_its_way(index, input)).collect();
        if waits.iter().all(|waits| !waits) {
            let ends = limit.offset_ends.map(<[i64]>::to_vec);
            self.merge(pass, limit.records, None, |input| {
                let end = ends.as_ref().map_or(i64::MAX, |ends| ends[input.0]);
                input.1.at_end_since_ms.is_none() && input.1.held.offset_next < end
            });
        }
        let after = self.positions();
        if before == after {
            return Ok(Found::Nothing);
        }
        cuts.0.extend(before.iter().zip(&after).map(|(before, after)| (after - before) as u64));
        Ok(Found::Pass)
    }

    /// Merges the heads until nothing is held, `records` were taken, or an input that `may_have_more` runs dry.
    fn merge(
        &mut self,
        pass: &mut Pass,
        records: usize,
        ends: Option<&[i64]>,
        may_have_more: impl Fn((usize, &TaskInput)) -> bool,
    ) {
        let width = self.inputs.iter().map(|input| input.held.rows.width).max().unwrap_or(0);
        pass.rows.clear(width);
        for _ in 0..records {
            let head = |index: usize, input: &TaskInput| {
                let item = input.held.items.get(input.held.cursor)?;
                (ends.is_none_or(|ends| item.offset < ends[index])).then_some((item.time_ms, index))
            };
            let lowest = self.inputs.iter().enumerate().filter_map(|(index, input)| head(index, input)).min();
            let Some((_, index)) = lowest else { break };
            self.take(index, pass);
            let input = &self.inputs[index];
            if input.held.is_empty() && may_have_more((index, input)) {
                break;
            }
        }
        for input in &mut self.inputs {
            input.progress.position = input.held.position();
        }
    }

    /// Moves the head of one input into the pass.
    fn take(&mut self, index: usize, pass: &mut Pass) {
        let input = &mut self.inputs[index];
        let item = input.held.items[input.held.cursor].clone();
        input.held.cursor += 1;
        pass.records += 1;
        self.times.idle &= !(1 << index);
        match item.kind {
            ItemKind::Tombstone => pass.tombstones += 1,
            ItemKind::Broken(bad) => pass.broken.push((index, bad)),
            ItemKind::Row(row) => {
                copy_row(&input.held.rows, row, &mut pass.rows);
                let meta = pass.rows.meta.last_mut().expect("a row was just copied");
                input.progress.high_ms = input.progress.high_ms.max(self.times.pushes_to(meta));
                let lows = self.inputs.iter().enumerate().filter(|(index, _)| self.times.idle & 1 << index == 0);
                let low = lows.map(|(_, input)| input.progress.high_ms.saturating_sub(input.lateness_ms)).min();
                self.times.rise_to(low.unwrap_or(i64::MIN));
                meta.watermark_ms = self.times.watermark_ms;
            }
        }
    }

    /// Counts what the pass read, per topic.
    pub fn count_read(&self, pass: &Pass, stats: &PipelineStats) {
        for (topic, (records, bytes)) in stats.topics.iter().zip(&pass.read) {
            topic.records.fetch_add(*records, Relaxed);
            topic.bytes.fetch_add(*bytes, Relaxed);
        }
    }

    /// A record of this pass as it came, for its dead letter: the record and the arena its spans point into.
    pub fn raw<'a>(&'a self, pass: &'a Pass, input: usize, record: u32) -> (&'a Record, &'a [u8]) {
        match self.inputs.len() {
            _ if pass.is_replay => (&pass.batch.records[record as usize], &pass.rows.bytes),
            1 => (&pass.batch.records[record as usize], &pass.rows.bytes),
            _ => (&self.inputs[input].held.records[record as usize], &self.inputs[input].held.rows.bytes),
        }
    }
}

/// The hot path: one input, no copies.
fn next_of_one(input: &mut TaskInput, times: &mut Times, pass: &mut Pass, limit: PassLimit) -> Result<Found> {
    let offset_end = limit.offset_ends.map_or(i64::MAX, |ends| ends[0]);
    if input.progress.position >= offset_end {
        return Ok(Found::Nothing);
    }
    let fetch = FetchLimit { records: limit.records, bytes: limit.bytes, offset_end };
    let fetched = input.fill(&mut pass.batch, fetch)?;
    let moved = fetched.offset_next.min(offset_end) > input.progress.position;
    if !moved {
        return Ok(Found::Nothing);
    }
    input.progress.position = fetched.offset_next.min(offset_end);
    pass.records = pass.batch.records.len() as u64;
    pass.read.push((pass.records, pass.batch.bytes.len() as u64));
    input.decoder.decode(&mut pass.batch, times.note_ms, &mut pass.rows, &mut pass.decoded);
    pass.tombstones = pass.decoded.tombstones;
    pass.extra_fields = pass.decoded.extra_fields;
    pass.broken.extend(pass.decoded.broken.drain(..).map(|bad| (0, bad)));
    for meta in &mut pass.rows.meta {
        let high_ms = input.progress.high_ms.max(times.pushes_to(meta));
        input.progress.high_ms = high_ms;
        times.rise_to(high_ms.saturating_sub(input.lateness_ms));
        meta.watermark_ms = times.watermark_ms;
    }
    Ok(Found::Pass)
}

impl Times {
    /// A record pushes the watermark no further than its own Kafka timestamp and the noted wall clock.
    #[inline]
    fn pushes_to(&self, meta: &RowMeta) -> i64 {
        let known = if meta.timestamp_ms >= 0 { meta.timestamp_ms.min(self.note_ms) } else { self.note_ms };
        meta.time_ms.min(known)
    }

    #[inline]
    fn rise_to(&mut self, low_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(low_ms.min(self.cap_ms));
    }
}

impl TaskInput {
    /// What the client gets over by itself (a broker that is away, a leader that moves) is no more than nothing new.
    fn fill(&mut self, batch: &mut RecordBatch, limit: FetchLimit) -> Result<Fetched> {
        match self.queue.fill(batch, limit) {
            Err(error) if error.kind == crate::error::Kind::Retry => {
                tracing::debug!(code = error.code, "{error}");
                Ok(Fetched { records: 0, offset_next: i64::MIN, at_end: false })
            }
            filled => filled,
        }
    }

    /// Fetches and decodes behind what is held.
    fn fetch(&mut self, index: usize, pass: &mut Pass, limit: FetchLimit, note_ms: i64, boot_ms: u64) -> Result<()> {
        if self.held.is_empty() {
            self.held.clear();
        }
        pass.batch.clear();
        let fetched = self.fill(&mut pass.batch, limit)?;
        self.held.offset_next = self.held.offset_next.max(fetched.offset_next.min(limit.offset_end));
        if fetched.records > 0 {
            pass.count(index, fetched.records);
            (self.at_end_since_ms, self.dry_since_ms) = (None, None);
            let mut rows = Rows::default();
            self.decoder.decode(&mut pass.batch, note_ms, &mut rows, &mut pass.decoded);
            pass.extra_fields += pass.decoded.extra_fields;
            self.held.append(&pass.batch.records, rows, &mut pass.decoded);
        } else if !fetched.at_end {
            self.at_end_since_ms = None;
            self.dry_since_ms.get_or_insert(boot_ms);
        } else {
            self.at_end_since_ms.get_or_insert(boot_ms);
            self.dry_since_ms = None;
        }
        Ok(())
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.cursor == self.items.len()
    }

    /// Next offset to process.
    fn position(&self) -> i64 {
        self.items.get(self.cursor).map_or(self.offset_next, |item| item.offset)
    }

    fn clear(&mut self) {
        self.records.clear();
        self.rows.clear(self.rows.width);
        self.items.clear();
        self.cursor = 0;
    }

    /// Adds a decoded batch: each record is a row, broken, or a tombstone.
    fn append(&mut self, records: &[Record], rows: Rows, decoded: &mut Decoded) {
        let first_record = self.records.len() as u32;
        let (bytes_before, rows_before) = (self.rows.bytes.len() as u32, self.rows.len() as u32);
        let moved = |span: crate::types::Span| crate::types::Span { start: span.start + bytes_before, ..span };
        let mut row = 0;
        let mut broken = decoded.broken.drain(..).peekable();
        for (index, record) in records.iter().enumerate() {
            let at = first_record + index as u32;
            let is_row = rows.meta.get(row).is_some_and(|meta| meta.record == index as u32);
            let (time_ms, kind) = if is_row {
                row += 1;
                (rows.meta[row - 1].time_ms, ItemKind::Row(rows_before + row as u32 - 1))
            } else if let Some(bad) = broken.next_if(|bad| bad.row == index as u32) {
                (record.timestamp_ms, ItemKind::Broken(BadRow { row: at, ..bad }))
            } else {
                (record.timestamp_ms, ItemKind::Tombstone)
            };
            self.items.push(Item { time_ms, offset: record.offset, kind });
            self.records.push(Record {
                key: record.key.map(moved),
                value: record.value.map(moved),
                headers: moved(record.headers),
                ..*record
            });
        }
        self.rows.width = rows.width;
        let fields = rows.fields.iter().map(|field| match field.kind {
            Kind::Number | Kind::Text | Kind::Escaped | Kind::Array | Kind::Object => {
                Field::text(field.kind, moved(field.span()))
            }
            _ => *field,
        });
        self.rows.fields.extend(fields);
        self.rows.meta.extend(rows.meta.iter().map(|meta| RowMeta { record: first_record + meta.record, ..*meta }));
        self.rows.bytes.extend_from_slice(&rows.bytes);
    }
}

/// Copies one row with the text of its fields.
fn copy_row(from: &Rows, row: u32, to: &mut Rows) {
    for field in from.row(row) {
        let copy = match field.kind {
            Kind::Number | Kind::Text | Kind::Escaped | Kind::Array | Kind::Object => {
                to.append(field.kind, from.text(*field))
            }
            _ => *field,
        };
        to.fields.push(copy);
    }
    to.meta.push(from.meta[row as usize]);
}

impl Pass {
    fn clear(&mut self) {
        self.batch.clear();
        self.rows.clear(self.rows.width);
        self.owners.clear();
        self.table_lows.clear();
        self.broken.clear();
        self.decoded = Decoded::default();
        self.tombstones = 0;
        self.extra_fields = 0;
        self.records = 0;
        self.read.clear();
        self.is_replay = false;
    }

    fn count(&mut self, input: usize, records: usize) {
        if self.read.len() <= input {
            self.read.resize(input + 1, (0, 0));
        }
        self.read[input].0 += records as u64;
        self.read[input].1 += self.batch.bytes.len() as u64;
    }
}
