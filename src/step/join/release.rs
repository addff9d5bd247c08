//! What time brings out, and how rows leave.

use super::{
    ARENA_BYTES_MAX, Assembly, Field, Hit, Join, Joined, Kind, LeftPart, Output, Right, RowMeta, Sent, Side,
    StateStore, corrupt, too_much,
};
use crate::codec::packed::Packing;
use crate::codec::rows::Rows;
use crate::error::Result;
use crate::state::buffer::{Buffer, Probe, Take};
use crate::state::versions::Valid;

/// Left rows of an exact join that look for their right rows together.
const DECIDED_TOGETHER_MAX: usize = 1024;

/// A left row of an exact join whose time has come.
struct Due {
    hit: Hit,
    key: u128,
}

impl Join {
    /// Takes the watermark on: whoever has waited long enough leaves, in the order of (time, right side first,
    /// arrival). False when more is to leave than fits; then the watermark has not been taken.
    pub(super) fn advance(
        &mut self,
        store: &dyn StateStore,
        to_ms: i64,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        if to_ms <= self.now_ms {
            return Ok(true);
        }
        let left_below_ms = self.rules.serves_from_ms(Side::Left, to_ms);
        let right_below_ms = self.rules.serves_from_ms(Side::Right, to_ms);
        let done = match self.rules.is_exact() {
            true => self.decide_lefts(store, left_below_ms, true, place, rows, out)?,
            false => self.release(store, left_below_ms, right_below_ms, place, rows, out)?,
        };
        if done {
            self.now_ms = to_ms;
        }
        Ok(done)
    }

    /// Rows older than these leave alone.
    fn release(
        &mut self,
        store: &dyn StateStore,
        left_below_ms: i64,
        right_below_ms: i64,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        while let Some((side, hit)) = self.first_due(store, left_below_ms, right_below_ms)? {
            if out.is_full(rows) {
                return Ok(false);
            }
            self.waiting_mut(side).take_due();
            self.meets_nobody(store, side, Sent::Stored(hit.arrival), place, rows, out)?;
        }
        Ok(true)
    }

    /// See [`Join::close`].
    pub(super) fn close_windows(
        &mut self,
        store: &dyn StateStore,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        if self.rules.is_exact() {
            return self.decide_lefts(store, i64::MAX, self.rules.keeps_left, place, rows, out);
        }
        let below_ms = |keeps: bool| if keeps { i64::MAX } else { i64::MIN };
        let (left_below_ms, right_below_ms) = (below_ms(self.rules.keeps_left), below_ms(self.rules.keeps_right));
        let is_interval = matches!(self.rules.kind, Kind::Interval { .. });
        while let Some((side, hit)) = self.first_due(store, left_below_ms, right_below_ms)? {
            if out.is_full(rows) {
                return Ok(false);
            }
            // A row of an interval join that met somebody stays for others; one that leaves now must not be found.
            match is_interval {
                true => self.waiting_mut(side).take_closed(),
                false => self.waiting_mut(side).take_due(),
            }
            self.meets_nobody(store, side, Sent::Stored(hit.arrival), place, rows, out)?;
        }
        for side in [Side::Left, Side::Right] {
            if is_interval && self.rules.keeps(side) {
                self.waiting_mut(side).close();
            }
        }
        Ok(true)
    }

    /// The first row that is to leave, the right side first at one time.
    fn first_due(
        &mut self,
        store: &dyn StateStore,
        left_below_ms: i64,
        right_below_ms: i64,
    ) -> Result<Option<(Side, Hit)>> {
        let left = match self.left.due_next_ms() < left_below_ms {
            true => self.left.due(store, left_below_ms)?.map(|hit| (hit.time_ms, Side::Left, hit)),
            false => None,
        };
        let right = match &mut self.right {
            Right::Rows(right) if right.due_next_ms() < right_below_ms => {
                right.due(store, right_below_ms)?.map(|hit| (hit.time_ms, Side::Right, hit))
            }
            _ => None,
        };
        Ok(left.into_iter().chain(right).min().map(|(_, side, hit)| (side, hit)))
    }

    fn waiting_mut(&mut self, side: Side) -> &mut Buffer {
        match (side, &mut self.right) {
            (Side::Left, _) => &mut self.left,
            (Side::Right, Right::Rows(right)) => right,
            (Side::Right, Right::Table(_)) => unreachable!("nothing waits in a table"),
        }
    }

    /// Left rows of an exact join older than this take the newest right row at or before their time. One that finds none goes
    /// the way of its type, or, unless it `leaves_alone`, waits on.
    fn decide_lefts(
        &mut self,
        store: &dyn StateStore,
        below_ms: i64,
        leaves_alone: bool,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<bool> {
        let mut stay = Vec::new();
        let mut done = true;
        while self.left.due_next_ms() < below_ms {
            if out.is_full(rows) {
                done = false;
                break;
            }
            let group = self.take_group(store, below_ms)?;
            if group.is_empty() {
                break;
            }
            let (probes, served) = self.look_for_rights(store, &group)?;
            group[served..].iter().for_each(|due| self.left.wait_on(due.hit));
            for (number, due) in group[..served].iter().enumerate() {
                let found = match &self.right {
                    Right::Rows(rights) => {
                        let mut hits = std::mem::take(&mut self.work.hits);
                        rights.find(&self.work.due_ahead, number, &probes[number], &mut hits);
                        let found = hits.first().map(|hit| Sent::Stored(hit.arrival));
                        self.work.hits = hits;
                        found
                    }
                    Right::Table(table) => {
                        let valid =
                            table.valid_at(store, due.key, due.hit.time_ms, None, false, &mut self.work.bytes)?;
                        (valid == Valid::Row).then_some(Sent::Version)
                    }
                };
                let left = Sent::Stored(due.hit.arrival);
                match found {
                    Some(right) => {
                        self.left.settle(due.hit.arrival);
                        self.counts.matched += 1;
                        self.left_matched();
                        self.send(store, Some(left), Some(right), place, rows, out)?;
                    }
                    None if leaves_alone => {
                        self.left.settle(due.hit.arrival);
                        self.meets_nobody(store, Side::Left, left, place, rows, out)?;
                    }
                    None => stay.push(due.hit),
                }
            }
        }
        stay.into_iter().for_each(|hit| self.left.wait_on(hit));
        Ok(done)
    }

    /// Some left rows that are due, with their keys, out of the deadlines.
    fn take_group(&mut self, store: &dyn StateStore, below_ms: i64) -> Result<Vec<Due>> {
        let mut group = Vec::new();
        while group.len() < DECIDED_TOGETHER_MAX
            && let Some(hit) = self.left.due(store, below_ms)?
        {
            self.left.take_closed();
            self.work.bytes.clear();
            let (_, key) = self.left.row(store, hit.arrival, &mut self.work.bytes)?;
            group.push(Due { hit, key });
        }
        Ok(group)
    }

    /// What the rows of the group ask for, and how many of them are served.
    fn look_for_rights(&mut self, store: &dyn StateStore, group: &[Due]) -> Result<(Vec<Probe>, usize)> {
        let probe = |due: &Due| {
            let (from_ms, to_ms) = self.rules.meets(Side::Left, due.hit.time_ms);
            Probe { key: due.key, from_ms, to_ms, take: Take::Nearest { at_ms: due.hit.time_ms } }
        };
        let probes: Vec<Probe> = group.iter().map(probe).collect();
        let served = match &mut self.right {
            Right::Rows(right) => right.look_ahead(store, &probes, &mut self.work.due_ahead)?,
            Right::Table(table) => {
                let keys: Vec<u128> = group.iter().map(|due| due.key).collect();
                table.look_ahead(store, &keys)?;
                group.len()
            }
        };
        Ok((probes, served))
    }

    /// A row that found nobody goes the way of the join's type.
    pub(super) fn meets_nobody(
        &mut self,
        store: &dyn StateStore,
        side: Side,
        row: Sent,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        self.counts.left_decided += (side == Side::Left) as u64;
        if !self.rules.keeps(side) {
            self.counts.dropped += (side == Side::Left) as u64;
            return Ok(());
        }
        self.counts.unmatched += 1;
        match side {
            Side::Left => self.send(store, Some(row), None, place, rows, out),
            Side::Right => self.send(store, None, Some(row), place, rows, out),
        }
    }

    /// Adds a joined row to the batch.
    pub(super) fn send(
        &mut self,
        store: &dyn StateStore,
        left: Option<Sent>,
        right: Option<Sent>,
        place: u32,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        if rows.bytes.len() >= ARENA_BYTES_MAX {
            return Err(too_much());
        }
        let right_meta = match right {
            None => None,
            Some(Sent::Row(row)) => {
                self.assembly.right_of(rows, row, &mut self.work.right_fields);
                Some(rows.meta[row as usize])
            }
            Some(Sent::Version) => {
                let origin =
                    Assembly::unpack(&self.assembly.right, &self.work.bytes, rows, &mut self.work.right_fields);
                // Nobody asks when a version was.
                Some(origin.ok_or_else(corrupt)?.meta(i64::MIN, 0))
            }
            Some(Sent::Stored(arrival)) => {
                let Right::Rows(stored) = &mut self.right else { unreachable!("a table has no stored rows") };
                self.work.bytes.clear();
                let (time_ms, _) = stored.row(store, arrival, &mut self.work.bytes)?;
                let (packing, bytes, fields) = (&self.assembly.right, &self.work.bytes, &mut self.work.right_fields);
                Some(unpacked(packing, bytes, time_ms, rows, fields)?)
            }
        };
        let (part, left_meta) = match left {
            None => (LeftPart::Nothing, None),
            Some(Sent::Row(row)) => (LeftPart::Row(row), Some(rows.meta[row as usize])),
            Some(Sent::Stored(arrival)) => {
                self.work.bytes.clear();
                let (time_ms, _) = self.left.row(store, arrival, &mut self.work.bytes)?;
                let (packing, bytes, fields) = (&self.assembly.left, &self.work.bytes, &mut self.work.left_fields);
                let meta = unpacked(packing, bytes, time_ms, rows, fields)?;
                (LeftPart::Stored(&self.work.left_fields), Some(meta))
            }
            Some(Sent::Version) => unreachable!("only a right row is a version"),
        };
        let origin = left_meta.or(right_meta).expect("a row has at least one side");
        let time_ms = match (self.rules.kind, right_meta) {
            (Kind::Interval { .. }, Some(right)) => origin.time_ms.max(right.time_ms),
            _ => origin.time_ms,
        };
        // From before the advance: a row that is released is not late for the next step.
        let watermark_ms = self.now_ms.saturating_sub(self.rules.wait_ms());
        let right_fields = right.is_some().then_some(self.work.right_fields.as_slice());
        let row = self.assembly.add(rows, part, right_fields, RowMeta { time_ms, watermark_ms, ..origin });
        out.rows.push(Joined { row, place, through: None });
        Ok(())
    }
}

/// A stored row's fields, its texts in the arena.
fn unpacked(
    packing: &Packing,
    bytes: &[u8],
    time_ms: i64,
    rows: &mut Rows,
    fields: &mut Vec<Field>,
) -> Result<RowMeta> {
    Ok(Assembly::unpack(packing, bytes, rows, fields).ok_or_else(corrupt)?.meta(time_ms, 0))
}
