//! The rows of one side of a join that still wait or may still be matched.
//!
//! Owns a side's rows in the order they came, an index by key for each stretch of them, and who of them still
//! waits. Promises: a probe finds every row of its key and time that was added and whose time has not passed, in
//! the order of (time, arrival); rows that wait are handed out in that order, too; when a row moves from memory
//! to the store, and how large a stretch is, changes no answer. Never reads a clock, never writes: what changed leaves with the
//! epoch.
//!
//! ```text
//! arrivals   0 ........ 65535 │ 65536 ........ 131071 │ 131072 ..... now
//!            stored segment   │ stored segment        │ open segment, in memory
//! ```
//! A row's bytes are written once, with its epoch, in pages of arrival order. When the open segment is full its index
//! is written beside them, cut into chunks by key, and a filter in memory tells most probes that they need not look. When
//! the newest row of a segment has passed, all of it goes with one deletion. Rows are never moved and never merged: a
//! join's rows die by age.

mod ahead;
mod filter;
mod layout;
mod postings;
mod segment;

use super::{StateStore, Table, WriteBatch};
use crate::error::Result;
use crate::types::TaskNo;
pub use ahead::Ahead;
use ahead::{Pages, nearest};
use filter::Filter;
use layout::{Manifest, PAGE_ROWS, Page, Part, Prefix, SegmentRecord, corrupt, number_of};
use segment::Segment;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What a row takes in memory beside its bytes, about.
const ROW_BYTES: usize = 128;

/// A row of the buffer: how many came before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Arrival(pub u64);

/// How large a stretch in memory becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSize {
    pub rows_max: u32,
    pub bytes_max: usize,
    /// Entries of an index chunk, about.
    pub chunk_rows: u32,
}

impl SegmentSize {
    /// For about so much memory.
    pub fn within(bytes_max: usize) -> SegmentSize {
        let rows_max = (bytes_max / 2 / ROW_BYTES).clamp(1 << 10, 1 << 17) as u32;
        SegmentSize { rows_max, bytes_max: bytes_max / 2, chunk_rows: 146 }
    }
}

/// A question: the rows of a key with `from_ms ≤ time ≤ to_ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    pub key: u128,
    pub from_ms: i64,
    pub to_ms: i64,
    pub take: Take,
}

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    All,
    /// All, and their bytes are not asked for.
    Count,
    /// The newest at or before `at_ms`, of equal times the later arrival; else the oldest after it, of equal times the
    /// earlier one.
    Nearest {
        at_ms: i64,
    },
}

/// A row that was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Hit {
    pub time_ms: i64,
    pub arrival: Arrival,
}

/// One side of one join of one task.
pub struct Buffer {
    prefix: Prefix,
    size: SegmentSize,
    /// By their first arrival; the last one is open.
    segments: Vec<Segment>,
    /// Rows before this one are in pages.
    paged: u64,
    /// Rows before this one that wait have been sent alone.
    closed: u64,
    /// How many wait.
    waiting: u64,
    /// Rows that wait, and some that do no more, of the segments that are due.
    deadlines: BinaryHeap<Reverse<Hit>>,
    /// The oldest row of the other segments.
    due_next_ms: i64,
    /// For each sealed epoch that is not stored: the segment that it flushed.
    sealed: VecDeque<Option<u64>>,
    has_changed: bool,
    /// Rows added since the last seal, in bytes.
    unstored_bytes: usize,
    pages: Pages,
    undo: Option<Undo>,
    marks: u64,
}

/// What was done since the mark.
struct Undo {
    mark: Mark,
    next: u64,
    closed: u64,
    waiting: u64,
    open: SegmentRecord,
    settled: Vec<Arrival>,
    popped: Vec<Hit>,
    /// Segments whose waiting rows joined the deadlines.
    loaded: Vec<u64>,
}

/// A moment to which a buffer can go back, until the next mark, seal or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

impl Probe {
    fn may_hit(&self, segment: &Segment) -> bool {
        let record = &segment.record;
        self.from_ms <= record.newest_ms
            && record.oldest_ms <= self.to_ms
            && segment.filter.as_ref().is_none_or(|filter| filter.may_hold(self.key))
    }
}

impl Buffer {
    /// The buffer of this side as its last stored epoch left it.
    ///
    /// # Errors
    /// `corrupt` when it is not what was written.
    pub fn open(store: &dyn StateStore, task: TaskNo, step: u16, side: u8, size: SegmentSize) -> Result<Buffer> {
        let prefix = Prefix::new(task, step, side);
        let manifest = match store.get(Table::Buffer, &prefix.manifest())? {
            Some(bytes) => Manifest::decode(&bytes)?,
            None => Manifest::default(),
        };
        let mut buffer = Buffer {
            prefix,
            size,
            segments: vec![],
            paged: manifest.next,
            closed: manifest.closed,
            waiting: 0,
            deadlines: BinaryHeap::new(),
            due_next_ms: i64::MAX,
            sealed: VecDeque::new(),
            has_changed: false,
            unstored_bytes: 0,
            pages: Pages::default(),
            undo: None,
            marks: 0,
        };
        for record in &manifest.segments {
            let filter = store.get(Table::Buffer, &prefix.key(record.first, Part::Filter, 0))?;
            let filter = filter.as_deref().and_then(Filter::from_bytes).ok_or_else(corrupt)?;
            buffer.load(store, Segment::stored(*record, Some(filter)))?;
        }
        let open = buffer.read_open(store, manifest.open)?;
        buffer.load(store, open)?;
        if buffer.next() != manifest.next {
            return Err(corrupt());
        }
        buffer.due_next_ms = buffer.oldest_not_due_ms();
        Ok(buffer)
    }

    /// The rows of the segment that was open.
    fn read_open(&self, store: &dyn StateStore, first: u64) -> Result<Segment> {
        let mut segment = Segment::open(first);
        let (from, to) = self.prefix.part_range(first, Part::Page);
        let mut is_whole = true;
        store.scan(Table::Buffer, &from, &to, &mut |key, value| {
            let page = Page::decode(value.to_vec()).filter(|page| {
                number_of(key) == Some(segment.record.len.div_ceil(PAGE_ROWS))
                    && segment.record.len.is_multiple_of(PAGE_ROWS)
                    && page.len() > 0
            });
            let Some(page) = page else {
                is_whole = false;
                return false;
            };
            (0..page.len()).for_each(|row| segment.push(page.head(row).time_ms, page.head(row).key, page.row(row)));
            true
        })?;
        if is_whole { Ok(segment) } else { Err(corrupt()) }
    }

    /// Takes in a segment with its waiting bits.
    fn load(&mut self, store: &dyn StateStore, mut segment: Segment) -> Result<()> {
        let (from, to) = self.prefix.part_range(segment.record.first, Part::Waiting);
        let mut is_whole = self.segments.last().is_none_or(|last| last.end() <= segment.record.first);
        store.scan(Table::Buffer, &from, &to, &mut |key, value| {
            is_whole &= number_of(key).and_then(|number| segment.load_bits(number, value)).is_some();
            is_whole
        })?;
        if !is_whole {
            return Err(corrupt());
        }
        let from = self.closed.saturating_sub(segment.record.first).min(u32::MAX as u64) as u32;
        self.waiting += segment.waiting_rows(from).count() as u64;
        if let (true, Some(resident)) = (segment.is_due, &segment.resident) {
            let hit =
                |row| Hit { time_ms: resident.row(row).0.time_ms, arrival: Arrival(segment.record.first + row as u64) };
            self.deadlines.extend(segment.waiting_rows(from).map(hit).map(Reverse));
        }
        self.segments.push(segment);
        Ok(())
    }

    // --- probes --------------------------------------------------------------------------------------------

    /// Reads from the store what these probes need; answers how many of them, from the first on, can now be asked.
    /// They can be asked until the epoch is sealed.
    pub fn look_ahead(&mut self, store: &dyn StateStore, probes: &[Probe], ahead: &mut Ahead) -> Result<usize> {
        self.pages.tidy();
        ahead.look(store, self.prefix, &self.segments, probes, &mut self.pages)
    }

    /// What the probe finds now, in the order of (time, arrival); `number` is its place among those looked ahead for.
    pub fn find(&self, ahead: &Ahead, number: usize, probe: &Probe, hits: &mut Vec<Hit>) {
        hits.clear();
        let mut sources = 0;
        for (first, chunk) in ahead.chunks_of(number) {
            let found = chunk.between(probe.key, probe.from_ms, probe.to_ms);
            sources += self.take(probe.take, first, found, hits) as usize;
        }
        for segment in self.segments.iter().rev() {
            let Some(resident) = segment.resident.as_ref().filter(|_| probe.may_hit(segment)) else { continue };
            let found = resident.postings.between(probe.key, probe.from_ms, probe.to_ms).iter().copied();
            sources += self.take(probe.take, segment.record.first, found, hits) as usize;
        }
        if sources > 1 {
            hits.sort_unstable();
            if let Take::Nearest { at_ms } = probe.take {
                let newest = hits.iter().rposition(|hit| hit.time_ms <= at_ms).unwrap_or(0);
                hits.swap(0, newest);
                hits.truncate(1);
            }
        }
    }

    /// Adds what one segment has; true when that is something.
    fn take(&self, take: Take, first: u64, found: impl Iterator<Item = (i64, u32)>, hits: &mut Vec<Hit>) -> bool {
        let before = hits.len();
        let hit = |(time_ms, row): (i64, u32)| Hit { time_ms, arrival: Arrival(first + row as u64) };
        match take {
            Take::All | Take::Count => hits.extend(found.map(hit).filter(|hit| !self.is_gone(hit.arrival))),
            Take::Nearest { at_ms } => hits.extend(nearest(found, at_ms).map(hit)),
        }
        hits.len() > before
    }

    /// A row's time and key; its bytes are appended.
    pub fn row(&mut self, store: &dyn StateStore, arrival: Arrival, bytes: &mut Vec<u8>) -> Result<(i64, u128)> {
        let (at, row) = self.place(arrival);
        let segment = &self.segments[at];
        if let Some(resident) = &segment.resident {
            let (head, row) = resident.row(row);
            bytes.extend_from_slice(row);
            return Ok((head.time_ms, head.key));
        }
        let page = self.pages.page(store, self.prefix, segment.record.first, row)?;
        let row = (row % PAGE_ROWS) as usize;
        if row >= page.len() {
            return Err(corrupt());
        }
        let head = page.head(row);
        bytes.extend_from_slice(page.row(row));
        Ok((head.time_ms, head.key))
    }

    /// No key has more rows here than this.
    pub fn rows_per_key_max(&self) -> u64 {
        let most = |segment: &Segment| match &segment.resident {
            Some(resident) => resident.postings.most() as u64,
            None => segment.record.rows_per_key as u64,
        };
        self.segments.iter().map(most).sum()
    }

    /// Which segment, and which row of it.
    fn place(&self, Arrival(arrival): Arrival) -> (usize, u32) {
        let at = self.segments.partition_point(|segment| segment.record.first <= arrival);
        let segment = at.checked_sub(1).map(|at| &self.segments[at]).filter(|segment| arrival < segment.end());
        let segment = segment.expect("a row is asked for while it is in the buffer");
        (at - 1, (arrival - segment.record.first) as u32)
    }

    // --- changes -------------------------------------------------------------------------------------------

    /// Adds a row; if it `waits`, it will be handed out when its time comes, unless it is settled before.
    pub fn append(&mut self, key: u128, time_ms: i64, bytes: &[u8], waits: bool) -> Arrival {
        let open = self.segments.last_mut().expect("one segment is open");
        let arrival = Arrival(open.end());
        open.push(time_ms, key, bytes);
        if waits {
            open.set_waiting(open.record.len - 1, true);
            self.waiting += 1;
            self.deadlines.push(Reverse(Hit { time_ms, arrival }));
        }
        self.has_changed = true;
        self.unstored_bytes += bytes.len() + ROW_BYTES;
        arrival
    }

    /// Whether it waits still.
    pub fn is_waiting(&self, arrival: Arrival) -> bool {
        let (at, row) = self.place(arrival);
        arrival.0 >= self.closed && self.segments[at].is_waiting(row)
    }

    /// Whether it was sent alone when windows were closed.
    fn is_gone(&self, arrival: Arrival) -> bool {
        if arrival.0 >= self.closed {
            return false;
        }
        let (at, row) = self.place(arrival);
        self.segments[at].is_waiting(row)
    }

    /// It waits no longer.
    pub fn settle(&mut self, arrival: Arrival) {
        if !self.is_waiting(arrival) {
            return;
        }
        let (at, row) = self.place(arrival);
        self.segments[at].set_waiting(row, false);
        self.waiting -= 1;
        self.has_changed = true;
        if let Some(undo) = &mut self.undo {
            undo.settled.push(arrival);
        }
    }

    /// No row that waits is older than this.
    pub fn due_next_ms(&self) -> i64 {
        let first = self.deadlines.peek().map_or(i64::MAX, |Reverse(hit)| hit.time_ms);
        first.min(self.due_next_ms)
    }

    /// The first, in the order of (time, arrival), of the rows that wait and are older than `below_ms`.
    pub fn due(&mut self, store: &dyn StateStore, below_ms: i64) -> Result<Option<Hit>> {
        loop {
            let first = self.deadlines.peek().map(|Reverse(hit)| *hit);
            let first_ms = first.map_or(i64::MAX, |hit| hit.time_ms);
            if self.due_next_ms < below_ms && self.due_next_ms <= first_ms {
                self.load_deadlines(store)?;
                continue;
            }
            match first {
                Some(hit) if hit.time_ms >= below_ms => return Ok(None),
                Some(hit) if self.is_waiting(hit.arrival) => return Ok(Some(hit)),
                Some(_) => self.pop_deadline(),
                None => return Ok(None),
            }
        }
    }

    /// The row that `due` told is sent: it waits no longer.
    pub fn take_due(&mut self) {
        let Reverse(hit) = *self.deadlines.peek().expect("`due` has just told it");
        self.settle(hit.arrival);
        self.pop_deadline();
    }

    /// The row that `due` told is sent alone because windows are closed: nothing finds it from `close` on.
    pub fn take_closed(&mut self) {
        self.pop_deadline();
    }

    /// A row that was taken with `take_closed` waits on after all.
    pub fn wait_on(&mut self, hit: Hit) {
        self.deadlines.push(Reverse(hit));
        // Or a rollback would let it wait twice.
        let popped = self.undo.as_mut().map(|undo| &mut undo.popped);
        if let Some((popped, at)) =
            popped.and_then(|popped| popped.iter().rposition(|one| *one == hit).map(|at| (popped, at)))
        {
            popped.swap_remove(at);
        }
    }

    /// All rows that wait have been taken with `take_closed`: they are gone.
    pub fn close(&mut self) {
        self.closed = self.next();
        self.waiting = 0;
        self.has_changed = true;
    }

    fn pop_deadline(&mut self) {
        let popped = self.deadlines.pop();
        if let (Some(undo), Some(Reverse(hit))) = (&mut self.undo, popped) {
            undo.popped.push(hit);
        }
    }

    /// The rows that wait in the segment with the oldest row join the deadlines.
    fn load_deadlines(&mut self, store: &dyn StateStore) -> Result<()> {
        let oldest_ms = self.due_next_ms;
        let is_next = |segment: &Segment| !segment.is_due && segment.record.oldest_ms == oldest_ms;
        let at = self.segments.iter().position(is_next).expect("some segment has the oldest row");
        let first = self.segments[at].record.first;
        let from = self.closed.saturating_sub(first).min(u32::MAX as u64) as u32;
        let rows: Vec<u32> = self.segments[at].waiting_rows(from).collect();
        for row in rows {
            let time_ms = match &self.segments[at].resident {
                Some(resident) => resident.row(row).0.time_ms,
                None => {
                    let page = self.pages.page(store, self.prefix, first, row)?;
                    let in_page = (row % PAGE_ROWS) as usize;
                    if in_page >= page.len() {
                        return Err(corrupt());
                    }
                    page.head(in_page).time_ms
                }
            };
            self.deadlines.push(Reverse(Hit { time_ms, arrival: Arrival(first + row as u64) }));
        }
        self.segments[at].is_due = true;
        self.due_next_ms = self.oldest_not_due_ms();
        if let Some(undo) = &mut self.undo {
            undo.loaded.push(first);
        }
        Ok(())
    }

    fn oldest_not_due_ms(&self) -> i64 {
        let of_segment = |segment: &Segment| {
            let waits = !segment.is_due && segment.waiting_rows(0).next().is_some();
            if waits { segment.record.oldest_ms } else { i64::MAX }
        };
        self.segments.iter().map(of_segment).min().unwrap_or(i64::MAX)
    }

    fn next(&self) -> u64 {
        self.segments.last().expect("one segment is open").end()
    }

    // --- epochs --------------------------------------------------------------------------------------------

    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        let mark = Mark(self.marks);
        let open = self.segments.last().expect("one segment is open").record;
        let (next, closed, waiting) = (self.next(), self.closed, self.waiting);
        self.undo = Some(Undo { mark, next, closed, waiting, open, settled: vec![], popped: vec![], loaded: vec![] });
        mark
    }

    /// Takes back everything since the mark, which must be the latest one; the mark stays.
    pub fn rollback(&mut self, mark: Mark) {
        let mut undo = self.undo.take().filter(|undo| undo.mark == mark).expect("rollback goes to the latest mark");
        for arrival in undo.settled.drain(..) {
            let (at, row) = self.place(arrival);
            self.segments[at].set_waiting(row, true);
        }
        self.deadlines.extend(undo.popped.drain(..).map(Reverse));
        self.deadlines.retain(|Reverse(hit)| hit.arrival.0 < undo.next);
        // What had been settled when its segment was loaded waits again, and is not among the deadlines.
        for first in undo.loaded.drain(..) {
            let segment = self.segments.iter_mut().find(|segment| segment.record.first == first);
            let segment = segment.expect("no segment goes between a mark and its rollback");
            segment.is_due = false;
            let of_segment = segment.record.first..segment.end();
            self.deadlines.retain(|Reverse(hit)| !of_segment.contains(&hit.arrival.0));
        }
        self.due_next_ms = self.oldest_not_due_ms();
        let open = self.segments.last_mut().expect("one segment is open");
        while open.end() > undo.next {
            open.pop();
        }
        open.record = undo.open;
        (self.closed, self.waiting) = (undo.closed, undo.waiting);
        self.undo = Some(undo);
    }

    /// Ends the epoch: its changes go into a write. Rows older than `keep_from_ms` serve nobody any more.
    pub fn seal(&mut self, keep_from_ms: i64, batch: &mut WriteBatch) {
        self.undo = None;
        self.unstored_bytes = 0;
        self.pages.tidy();
        let mut flushed = None;
        if self.has_changed {
            self.write_rows(batch);
            let open = self.segments.last().expect("one segment is open");
            let bytes = open.resident.as_ref().map_or(0, segment::Resident::row_bytes);
            if open.record.len >= self.size.rows_max || bytes >= self.size.bytes_max {
                flushed = Some(open.record.first);
                self.flush(batch);
            }
        }
        self.expire(keep_from_ms, batch);
        if std::mem::take(&mut self.has_changed) {
            batch.put(Table::Buffer, self.prefix.manifest(), self.manifest().encode());
        }
        self.sealed.push_back(flushed);
    }

    /// The store has the oldest sealed epoch.
    pub fn stored(&mut self) {
        self.undo = None;
        let flushed = self.sealed.pop_front().expect("an epoch is sealed before it is stored");
        let segment = self.segments.iter_mut().find(|segment| Some(segment.record.first) == flushed);
        if let Some(segment) = segment {
            segment.resident = None;
        }
    }

    /// Rows that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Rows of the open epoch, about.
    pub fn unstored_bytes(&self) -> usize {
        self.unstored_bytes
    }

    /// Memory, about.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::bytes).sum::<usize>() + self.deadlines.capacity() * size_of::<Hit>()
    }

    /// New pages, the last one of the epoch before again if it was not full, and waiting bits that changed.
    fn write_rows(&mut self, batch: &mut WriteBatch) {
        let prefix = self.prefix;
        for segment in &mut self.segments {
            let first = segment.record.first;
            for (number, block) in segment.take_changed_bits() {
                batch.put(Table::Buffer, prefix.key(first, Part::Waiting, number), block);
            }
        }
        let open = self.segments.last().expect("one segment is open");
        let resident = open.resident.as_ref().expect("the open segment is in memory");
        let from = self.paged.saturating_sub(open.record.first) as u32 / PAGE_ROWS;
        if self.paged < open.end() {
            for number in from..open.record.len.div_ceil(PAGE_ROWS) {
                batch.put(Table::Buffer, prefix.key(open.record.first, Part::Page, number), resident.page(number));
            }
        }
        self.paged = open.end();
    }

    /// The open segment gets its index and is open no more.
    fn flush(&mut self, batch: &mut WriteBatch) {
        let open = self.segments.last_mut().expect("one segment is open");
        let resident = open.resident.as_ref().expect("the open segment is in memory");
        let first = open.record.first;
        open.record.chunks = open.record.len.div_ceil(self.size.chunk_rows);
        open.record.rows_per_key = resident.postings.most();
        let (index, filter) = resident.index(open.record.chunks);
        for (number, chunk) in index.into_iter().enumerate() {
            batch.put(Table::Buffer, self.prefix.key(first, Part::Index, number as u32), chunk);
        }
        batch.put(Table::Buffer, self.prefix.key(first, Part::Filter, 0), filter.to_bytes());
        open.filter = Some(filter);
        open.is_due = false;
        let next = open.end();
        self.deadlines.retain(|Reverse(hit)| hit.arrival.0 < first);
        self.segments.push(Segment::open(next));
        self.due_next_ms = self.oldest_not_due_ms();
    }

    /// Segments that serve nobody any more go as a whole.
    fn expire(&mut self, keep_from_ms: i64, batch: &mut WriteBatch) {
        let next = self.next();
        let has_passed = |segment: &Segment| segment.record.len > 0 && segment.record.newest_ms < keep_from_ms;
        for segment in self.segments.iter().filter(|segment| has_passed(segment)) {
            let (from, to) = self.prefix.segment_range(segment.record.first);
            batch.delete_range(Table::Buffer, from, to);
            self.has_changed = true;
        }
        let segments = self.segments.len();
        self.segments.retain(|segment| !has_passed(segment));
        if self.segments.last().is_none_or(|last| last.filter.is_some()) {
            self.segments.push(Segment::open(next));
        }
        if self.segments.len() < segments {
            // What waited in them was sent; what is left of it in the deadlines has no row to ask any more.
            let of_segment = |hit: &Hit| {
                self.segments.iter().any(|segment| (segment.record.first..segment.end()).contains(&hit.arrival.0))
            };
            self.deadlines.retain(|Reverse(hit)| of_segment(hit));
            self.due_next_ms = self.oldest_not_due_ms();
        }
    }

    fn manifest(&self) -> Manifest {
        let open = self.segments.last().expect("one segment is open");
        let stored = &self.segments[..self.segments.len() - 1];
        Manifest {
            next: open.end(),
            closed: self.closed,
            open: open.record.first,
            segments: stored.iter().map(|segment| segment.record).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
