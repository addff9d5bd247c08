//! What happens to a row that arrives: whom it meets, whether it stays.

use super::{Arrived, ArrivedKey, Batch, Event, Hit, Join, Key, Kind, Late, Output, Right, Sent, Side};
use crate::codec::rows::{BadRow, Rows};
use crate::error::Result;
use crate::state::StateStore;
use crate::state::buffer::{Arrival, Probe, Take};
use crate::state::versions::{Added, Valid};

impl Join {
    /// Hashes the keys of a batch and reads from the store what its rows will ask for; answers how many of the events can
    /// now be taken.
    pub(super) fn look_ahead(&mut self, store: &dyn StateStore, batch: &Batch<'_>, rows: &Rows) -> Result<usize> {
        let mut work = std::mem::take(&mut self.work);
        work.arrivals.clear();
        work.left_probes.clear();
        work.right_probes.clear();
        work.table_keys.clear();
        let lefts = batch.events.iter().filter(|event| event.side == Side::Left).count() as u64;
        let rights = batch.events.len() as u64 - lefts;
        // No key can come near its limit: nobody need be counted.
        let left_is_near = self.left.rows_per_key_max() + lefts >= self.rules.rows_per_key_max;
        let right_is_near = match &self.right {
            Right::Rows(right) => right.rows_per_key_max() + rights >= self.rules.rows_per_key_max,
            Right::Table(_) => false,
        };
        for &event in batch.events {
            let hasher = if event.side == Side::Left { &self.left_key } else { &self.right_key };
            let key = match hasher.hash(rows, event.row) {
                Ok(Key::Hash(key)) => ArrivedKey::Hash(key),
                Ok(Key::Missing) => ArrivedKey::Missing,
                Err(_) => ArrivedKey::Bad,
            };
            let time_ms = rows.meta[event.row as usize].time_ms;
            let watermark_ms = batch.clock.before_ms(event.place);
            let mut arrived = Arrived { event, key, time_ms, watermark_ms, opposite: None, own: None };
            if let ArrivedKey::Hash(key) = key {
                let (own, opposite, is_near) = match event.side {
                    Side::Left => (&mut work.left_probes, &mut work.right_probes, left_is_near),
                    Side::Right => (&mut work.right_probes, &mut work.left_probes, right_is_near),
                };
                if matches!(self.right, Right::Table(_)) {
                    work.table_keys.push(key);
                }
                arrived.opposite = add(opposite, self.opposite_probe(&arrived, key));
                arrived.own = add(own, is_near.then(|| self.own_probe(&arrived, key)));
            }
            work.arrivals.push(arrived);
        }
        let left_served = self.left.look_ahead(store, &work.left_probes, &mut work.left_ahead)?;
        let right_served = match &mut self.right {
            Right::Rows(right) => right.look_ahead(store, &work.right_probes, &mut work.right_ahead)?,
            Right::Table(table) => {
                table.forget();
                table.look_ahead(store, &work.table_keys)?;
                usize::MAX
            }
        };
        let is_served = |arrived: &&Arrived| {
            let (own, opposite) = match arrived.event.side {
                Side::Left => (left_served, right_served),
                Side::Right => (right_served, left_served),
            };
            arrived.own.is_none_or(|number| (number as usize) < own)
                && arrived.opposite.is_none_or(|number| (number as usize) < opposite)
        };
        let served = work.arrivals.iter().take_while(is_served).count();
        self.work = work;
        Ok(served)
    }

    /// Which stored rows of the other side the row asks for when it arrives.
    fn opposite_probe(&self, arrived: &Arrived, key: u128) -> Option<Probe> {
        let Arrived { event, time_ms, watermark_ms, .. } = *arrived;
        let (from_ms, to_ms) = self.rules.meets(event.side, time_ms);
        let take = match (self.rules.kind, event.side) {
            (Kind::Interval { .. }, _) => Take::All,
            (Kind::Table { .. }, Side::Left) => return None,
            // It waits for its time, or it is late.
            (Kind::Temporal { exact: true, .. }, Side::Left) if self.stays(arrived) => return None,
            (Kind::Temporal { .. }, Side::Left) => Take::Nearest { at_ms: time_ms },
            (_, Side::Right) if self.rules.is_exact() => return None,
            (_, Side::Right) => Take::All,
        };
        let opposite = if event.side == Side::Left { Side::Right } else { Side::Left };
        let from_ms = from_ms.max(self.rules.serves_from_ms(opposite, watermark_ms));
        Some(Probe { key, from_ms, to_ms, take })
    }

    /// The rows of its own side and key that serve still.
    fn own_probe(&self, arrived: &Arrived, key: u128) -> Probe {
        let from_ms = self.rules.serves_from_ms(arrived.event.side, arrived.watermark_ms);
        Probe { key, from_ms, to_ms: i64::MAX, take: Take::Count }
    }

    /// Takes one row in.
    pub(super) fn arrive(
        &mut self,
        store: &dyn StateStore,
        arrived: Arrived,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let side = arrived.event.side;
        if arrived.key == ArrivedKey::Bad {
            let hasher = if side == Side::Left { &self.left_key } else { &self.right_key };
            out.bad.extend(hasher.hash(rows, arrived.event.row).err());
            return Ok(());
        }
        if self.is_late(&arrived) {
            self.counts.late += 1;
            match self.rules.late {
                Late::Join => {}
                Late::Drop => {
                    self.counts.dropped += (side == Side::Left) as u64;
                    self.counts.left_decided += (side == Side::Left) as u64;
                    return Ok(());
                }
                Late::DeadLetter => {
                    out.bad.push(late(arrived.event.row, arrived.time_ms, arrived.watermark_ms));
                    return Ok(());
                }
            }
        } else if self.may_have_missed_some(&arrived) {
            self.counts.late += 1;
        }
        let ArrivedKey::Hash(key) = arrived.key else {
            return self.leaves_alone(store, &arrived, rows, out);
        };
        match (self.rules.kind, side) {
            (Kind::Interval { .. }, _) => self.arrive_interval(store, &arrived, key, rows, out),
            (Kind::Temporal { exact: true, .. } | Kind::Table { exact: true, .. }, Side::Left)
                if self.stays(&arrived) =>
            {
                self.wait(&arrived, key, rows, out);
                Ok(())
            }
            (Kind::Temporal { .. }, Side::Left) => self.arrive_left(store, &arrived, key, rows, out),
            (Kind::Temporal { .. }, Side::Right) => self.arrive_right(store, &arrived, key, rows, out),
            (Kind::Table { .. }, Side::Left) => self.arrive_at_table(store, &arrived, key, rows, out),
            (Kind::Table { .. }, Side::Right) => self.arrive_in_table(store, &arrived, key, rows, out),
        }
    }

    /// What would become a dead letter as soon as it arrives at this watermark, whatever the state: a key that does not
    /// fit, a late row where that is asked for.
    pub fn refuses(&self, side: Side, rows: &Rows, row: u32, watermark_ms: i64) -> Option<BadRow> {
        let hasher = if side == Side::Left { &self.left_key } else { &self.right_key };
        if let Err(bad) = hasher.hash(rows, row) {
            return Some(bad);
        }
        let time_ms = rows.meta[row as usize].time_ms;
        let is_refused = self.rules.late == Late::DeadLetter && self.rules.is_late(side, time_ms, watermark_ms);
        is_refused.then(|| late(row, time_ms, watermark_ms))
    }

    fn is_late(&self, arrived: &Arrived) -> bool {
        !arrived.event.is_replayed && self.rules.is_late(arrived.event.side, arrived.time_ms, arrived.watermark_ms)
    }

    /// Whether rows that it would have met may be gone, though it is not late itself: it lies below the watermark, and
    /// their upper bounds may have passed. (Versions of a table go when a newer one is valid, not by age.)
    fn may_have_missed_some(&self, arrived: &Arrived) -> bool {
        let is_version = matches!(self.right, Right::Table(_)) && arrived.event.side == Side::Right;
        !arrived.event.is_replayed && !is_version && arrived.time_ms < arrived.watermark_ms
    }

    /// Whether it may meet rows that come later.
    fn stays(&self, arrived: &Arrived) -> bool {
        let serves_from_ms = self.rules.serves_from_ms(arrived.event.side, arrived.watermark_ms);
        !arrived.event.is_replayed && arrived.time_ms >= serves_from_ms
    }

    /// A row that found nobody as it came, and does not stay.
    fn leaves_alone(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let Event { side, row, place, .. } = arrived.event;
        let before = out.rows.len();
        self.meets_nobody(store, side, Sent::Row(row), place, rows, out)?;
        out.went_through(before, row);
        Ok(())
    }

    /// Every stored row in reach is a pair; then the row stays as long as it may meet others.
    fn arrive_interval(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let Arrived { event, time_ms, .. } = *arrived;
        let stays = self.stays(arrived);
        if stays && self.is_over_limit(arrived, key) {
            out.bad.push(self.over_limit(event.row));
            return Ok(());
        }
        let hits = self.opposite_hits(arrived, key);
        for hit in &hits {
            let (row, stored) = (Some(Sent::Row(event.row)), Some(Sent::Stored(hit.arrival)));
            let (left, right) = if event.side == Side::Left { (row, stored) } else { (stored, row) };
            self.send(store, left, right, event.place, rows, out)?;
            self.settle_opposite(event.side, hit.arrival);
        }
        let is_alone = hits.is_empty();
        self.counts.matched += hits.len() as u64;
        if event.side == Side::Left && !is_alone {
            self.left_matched();
        }
        self.work.hits = hits;
        if stays {
            // A left row of an inner join waits, too: it is counted when it met nobody.
            let waits = is_alone && (event.side == Side::Left || self.rules.keeps_right);
            self.store_row(event.side, event.row, key, time_ms, waits, rows);
        } else if is_alone && (event.side == Side::Left || self.rules.keeps_right) {
            self.leaves_alone(store, arrived, rows, out)?;
        }
        Ok(())
    }

    /// A left row of a temporal join takes the right row that is nearest by its rule, or waits.
    fn arrive_left(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let event = arrived.event;
        let hits = self.opposite_hits(arrived, key);
        let found = hits.first().copied();
        self.work.hits = hits;
        if let Some(hit) = found {
            self.counts.matched += 1;
            self.left_matched();
            let (left, right) = (Some(Sent::Row(event.row)), Some(Sent::Stored(hit.arrival)));
            let before = out.rows.len();
            self.send(store, left, right, event.place, rows, out)?;
            out.went_through(before, event.row);
            return Ok(());
        }
        self.wait_or_leave(store, arrived, key, rows, out)
    }

    /// A right row of a temporal join completes the left rows that wait for one, and stays.
    fn arrive_right(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let Arrived { event, time_ms, .. } = *arrived;
        let stays = self.stays(arrived);
        if stays && self.is_over_limit(arrived, key) {
            out.bad.push(self.over_limit(event.row));
            return Ok(());
        }
        self.complete(store, arrived, key, rows, out)?;
        if stays {
            self.store_row(Side::Right, event.row, key, time_ms, false, rows);
        }
        Ok(())
    }

    /// A left row takes the version valid at its time; without any it waits.
    fn arrive_at_table(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let event = arrived.event;
        let Right::Table(table) = &self.right else { unreachable!("a table join has a table") };
        let (kept_at_ms, or_oldest) = (Some(arrived.watermark_ms), !self.rules.is_exact());
        match table.valid_at(store, key, arrived.time_ms, kept_at_ms, or_oldest, &mut self.work.bytes)? {
            Valid::Nothing if or_oldest => self.wait_or_leave(store, arrived, key, rows, out),
            Valid::Nothing | Valid::Deleted => self.leaves_alone(store, arrived, rows, out),
            Valid::Row => {
                self.counts.matched += 1;
                self.left_matched();
                let before = out.rows.len();
                self.send(store, Some(Sent::Row(event.row)), Some(Sent::Version), event.place, rows, out)?;
                out.went_through(before, event.row);
                Ok(())
            }
        }
    }

    /// A new version; the first one of its key completes whoever waits.
    fn arrive_in_table(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let Arrived { event, time_ms, watermark_ms, .. } = *arrived;
        let mut bytes = std::mem::take(&mut self.work.bytes);
        bytes.clear();
        self.assembly.right.pack(rows, event.row, &mut bytes);
        let row = (!event.deletes).then_some(bytes.as_slice());
        let Right::Table(table) = &mut self.right else { unreachable!("a table join has a table") };
        let added = table.add(store, key, time_ms, row, watermark_ms)?;
        self.work.bytes = bytes;
        match added {
            Added::First if !self.rules.is_exact() => self.complete(store, arrived, key, rows, out),
            Added::First | Added::Further | Added::Outdated => Ok(()),
        }
    }

    /// The left rows of this key that wait, in the order of (time, arrival), meet the right row.
    fn complete(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        let event = arrived.event;
        let hits = self.opposite_hits(arrived, key);
        for hit in &hits {
            if !self.left.is_waiting(hit.arrival) {
                continue;
            }
            self.left.settle(hit.arrival);
            let left = Sent::Stored(hit.arrival);
            if event.deletes {
                self.meets_nobody(store, Side::Left, left, event.place, rows, out)?;
                continue;
            }
            self.counts.matched += 1;
            self.left_matched();
            self.send(store, Some(left), Some(Sent::Row(event.row)), event.place, rows, out)?;
        }
        self.work.hits = hits;
        Ok(())
    }

    fn wait_or_leave(
        &mut self,
        store: &dyn StateStore,
        arrived: &Arrived,
        key: u128,
        rows: &mut Rows,
        out: &mut Output,
    ) -> Result<()> {
        if self.stays(arrived) {
            self.wait(arrived, key, rows, out);
            return Ok(());
        }
        self.leaves_alone(store, arrived, rows, out)
    }

    fn wait(&mut self, arrived: &Arrived, key: u128, rows: &Rows, out: &mut Output) {
        match self.is_over_limit(arrived, key) {
            true => out.bad.push(self.over_limit(arrived.event.row)),
            false => self.store_row(Side::Left, arrived.event.row, key, arrived.time_ms, true, rows),
        }
    }

    fn opposite_hits(&mut self, arrived: &Arrived, key: u128) -> Vec<Hit> {
        let mut hits = std::mem::take(&mut self.work.hits);
        hits.clear();
        if let (Some(number), Some(probe)) = (arrived.opposite, self.opposite_probe(arrived, key)) {
            match (arrived.event.side, &self.right) {
                (Side::Right, _) => self.left.find(&self.work.left_ahead, number as usize, &probe, &mut hits),
                (Side::Left, Right::Rows(right)) => {
                    right.find(&self.work.right_ahead, number as usize, &probe, &mut hits)
                }
                (Side::Left, Right::Table(_)) => {}
            }
        }
        hits
    }

    /// Whether as many rows of its key and side wait as may.
    fn is_over_limit(&mut self, arrived: &Arrived, key: u128) -> bool {
        let Some(number) = arrived.own else { return false };
        let probe = self.own_probe(arrived, key);
        let mut hits = std::mem::take(&mut self.work.hits);
        let is_over = match (arrived.event.side, &self.right) {
            (Side::Right, Right::Table(_)) => false,
            (Side::Right, Right::Rows(right)) => {
                right.find(&self.work.right_ahead, number as usize, &probe, &mut hits);
                hits.len() as u64 >= self.rules.rows_per_key_max
            }
            (Side::Left, _) => {
                self.left.find(&self.work.left_ahead, number as usize, &probe, &mut hits);
                // Where each left row comes out once, those that did are no longer here.
                let is_here =
                    |hit: &&Hit| matches!(self.rules.kind, Kind::Interval { .. }) || self.left.is_waiting(hit.arrival);
                hits.iter().filter(is_here).count() as u64 >= self.rules.rows_per_key_max
            }
        };
        self.work.hits = hits;
        is_over
    }

    fn settle_opposite(&mut self, side: Side, arrival: Arrival) {
        match (side, &mut self.right) {
            (Side::Left, Right::Rows(right)) => right.settle(arrival),
            (Side::Left, Right::Table(_)) => {}
            (Side::Right, _) => {
                if self.left.is_waiting(arrival) {
                    self.left_matched();
                    self.left.settle(arrival);
                }
            }
        }
    }

    pub(super) fn left_matched(&mut self) {
        self.counts.left_matched += 1;
        self.counts.left_decided += 1;
    }

    fn store_row(&mut self, side: Side, row: u32, key: u128, time_ms: i64, waits: bool, rows: &Rows) {
        let mut bytes = std::mem::take(&mut self.work.bytes);
        bytes.clear();
        match (side, &mut self.right) {
            (Side::Left, _) => {
                self.assembly.left.pack(rows, row, &mut bytes);
                self.left.append(key, time_ms, &bytes, waits);
            }
            (Side::Right, Right::Rows(right)) => {
                self.assembly.right.pack(rows, row, &mut bytes);
                right.append(key, time_ms, &bytes, waits);
            }
            (Side::Right, Right::Table(_)) => unreachable!("rows of a table are versions"),
        }
        self.work.bytes = bytes;
    }

    #[cold]
    fn over_limit(&self, row: u32) -> BadRow {
        let message = format!(
            "{} rows with the same join key `{}` wait already; max_rows_per_key raises the limit",
            self.rules.rows_per_key_max, self.key_text
        );
        BadRow { row, reason: "max_rows_per_key", message }
    }
}

fn add(probes: &mut Vec<Probe>, probe: Option<Probe>) -> Option<u32> {
    probes.push(probe?);
    Some(probes.len() as u32 - 1)
}

#[cold]
fn late(row: u32, time_ms: i64, watermark_ms: i64) -> BadRow {
    let message = format!(
        "the record's time {time_ms} ms, with the join's window, lies before the watermark {watermark_ms} ms: it is late"
    );
    BadRow { row, reason: "late", message }
}
