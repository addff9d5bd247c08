//! The definition of a join, one record after the other, keeping everything and looking through all of it.

use weir::step::join::{Kind, Late, Rules, Side};

/// What stands at one place of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// `None`: a record that was dropped before it came to the join.
    pub row: Option<Row>,
    /// The watermark behind it.
    pub watermark_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub side: Side,
    pub deletes: bool,
    pub key: Key,
    pub time_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    Number(u8),
    Null,
    /// Does not fit its cast.
    Unfit,
}

/// What comes out, by the places of the rows that went in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out {
    Row { left: Option<usize>, right: Option<usize>, time_ms: i64, watermark_ms: i64, cause: usize },
    Dead { row: usize, reason: &'static str },
}

#[derive(Clone, Debug)]
pub struct Oracle {
    rules: Rules,
    now_ms: i64,
    seen: Vec<Seen>,
    pub out: Vec<Out>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    place: usize,
    row: Row,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody was found for it yet.
    Waits,
    /// It has met somebody, or need not wait, and serves others.
    Serves,
    Gone,
}

impl Oracle {
    pub fn new(rules: Rules) -> Oracle {
        Oracle { rules, now_ms: i64::MIN, seen: vec![], out: vec![] }
    }

    pub fn take(&mut self, number: usize, place: &Place) {
        if let Some(row) = place.row {
            self.arrive(number, row);
        }
        if place.watermark_ms > self.now_ms {
            self.leave(number, place.watermark_ms, false);
            self.now_ms = place.watermark_ms;
        }
    }

    /// As if the watermark had reached the end of time.
    pub fn close(&mut self, number: usize) {
        self.leave(number, i64::MAX, true);
    }

    fn upper_ms(&self, row: &Row) -> i64 {
        row.time_ms
            + match (self.rules.kind, row.side) {
                (Kind::Interval { after_ms, .. }, Side::Left) => after_ms,
                (Kind::Interval { before_ms, .. }, Side::Right) => before_ms,
                (Kind::Temporal { within_ms, exact }, Side::Left) | (Kind::Table { within_ms, exact }, Side::Left) => {
                    if exact {
                        0
                    } else {
                        within_ms
                    }
                }
                (Kind::Temporal { within_ms, .. } | Kind::Table { within_ms, .. }, Side::Right) => within_ms,
            }
    }

    fn is_table(&self) -> bool {
        matches!(self.rules.kind, Kind::Table { .. })
    }

    fn is_exact(&self) -> bool {
        matches!(self.rules.kind, Kind::Temporal { exact: true, .. } | Kind::Table { exact: true, .. })
    }

    fn arrive(&mut self, place: usize, row: Row) {
        if row.key == Key::Unfit {
            return self.out.push(Out::Dead { row: place, reason: "key_does_not_fit" });
        }
        let of_table = self.is_table() && row.side == Side::Right;
        let serves = self.upper_ms(&row) >= self.now_ms;
        if !of_table && row.time_ms.max(self.upper_ms(&row)) < self.now_ms {
            match self.rules.late {
                Late::Join => {}
                Late::Drop => return,
                Late::DeadLetter => return self.out.push(Out::Dead { row: place, reason: "late" }),
            }
        }
        if row.key == Key::Null {
            return self.alone(place, place, &row);
        }
        match self.rules.kind {
            Kind::Interval { .. } => self.interval(place, row, serves),
            Kind::Temporal { .. } | Kind::Table { .. } if row.side == Side::Left => self.left(place, row, serves),
            Kind::Temporal { .. } => {
                if serves && self.is_full(&row) {
                    return self.out.push(Out::Dead { row: place, reason: "max_rows_per_key" });
                }
                if !self.is_exact() {
                    self.complete(place, row);
                }
                if serves {
                    self.seen.push(Seen { place, row, state: State::Serves });
                }
            }
            Kind::Table { .. } => self.version(place, row),
        }
    }

    fn interval(&mut self, place: usize, row: Row, serves: bool) {
        if serves && self.is_full(&row) {
            return self.out.push(Out::Dead { row: place, reason: "max_rows_per_key" });
        }
        let Kind::Interval { before_ms, after_ms } = self.rules.kind else { unreachable!() };
        let mut partners: Vec<Seen> = self.opposite(&row);
        partners.retain(|other| {
            let (left, right) = if row.side == Side::Left { (&row, &other.row) } else { (&other.row, &row) };
            let apart_ms = right.time_ms - left.time_ms;
            -before_ms <= apart_ms && apart_ms <= after_ms && self.upper_ms(&other.row) >= self.now_ms
        });
        partners.sort_by_key(|other| (other.row.time_ms, other.place));
        for other in &partners {
            let (left, right) = if row.side == Side::Left { (place, other.place) } else { (other.place, place) };
            self.send(place, Some(left), Some(right), row.time_ms.max(other.row.time_ms));
            self.set(other.place, State::Serves);
        }
        let is_kept = if row.side == Side::Left { self.rules.keeps_left } else { self.rules.keeps_right };
        if serves {
            let state = if partners.is_empty() && is_kept { State::Waits } else { State::Serves };
            self.seen.push(Seen { place, row, state });
        } else if partners.is_empty() {
            self.alone(place, place, &row);
        }
    }

    fn left(&mut self, place: usize, row: Row, serves: bool) {
        if self.is_exact() && row.time_ms >= self.now_ms {
            return self.wait(place, row);
        }
        let rights = self.valid_rights(&row, Some(self.now_ms));
        let newest = rights.iter().rev().find(|right| right.row.time_ms <= row.time_ms);
        let oldest = rights.iter().find(|right| right.row.time_ms > row.time_ms && !self.is_exact());
        match newest.or(oldest).copied() {
            Some(right) => self.pair(place, place, &row, &right),
            None if serves && !self.is_exact() => self.wait(place, row),
            None => self.alone(place, place, &row),
        }
    }

    fn wait(&mut self, place: usize, row: Row) {
        match self.is_full(&row) {
            true => self.out.push(Out::Dead { row: place, reason: "max_rows_per_key" }),
            false => self.seen.push(Seen { place, row, state: State::Waits }),
        }
    }

    fn version(&mut self, place: usize, row: Row) {
        let kept = self.valid_rights(&row, Some(self.now_ms));
        if kept.iter().any(|other| other.row.time_ms <= self.now_ms && other.row.time_ms > row.time_ms) {
            return;
        }
        if kept.is_empty() && !self.is_exact() {
            self.complete(place, row);
        }
        self.seen.push(Seen { place, row, state: State::Serves });
    }

    /// The left rows that wait for this right row.
    fn complete(&mut self, place: usize, row: Row) {
        let mut lefts = self.opposite(&row);
        lefts.retain(|left| left.state == State::Waits && self.upper_ms(&left.row) >= self.now_ms);
        if let Kind::Temporal { within_ms, .. } = self.rules.kind {
            lefts.retain(|left| (left.row.time_ms - row.time_ms).abs() <= within_ms);
        }
        lefts.sort_by_key(|left| (left.row.time_ms, left.place));
        for left in lefts {
            self.set(left.place, State::Gone);
            self.pair(place, left.place, &left.row, &Seen { place, row, state: State::Serves });
        }
    }

    /// Right rows that may be valid for a row of their key, oldest first: of a table the versions kept at a watermark, else
    /// those within reach that serve at it.
    fn valid_rights(&self, row: &Row, at_ms: Option<i64>) -> Vec<Seen> {
        let is_right = |other: &&Seen| other.row.side == Side::Right && other.row.key == row.key;
        let mut rights: Vec<Seen> = self.seen.iter().filter(is_right).copied().collect();
        rights.sort_by_key(|right| (right.row.time_ms, right.place));
        match self.rules.kind {
            Kind::Table { .. } => {
                let at_ms = at_ms.unwrap_or(i64::MIN);
                let valid = rights.iter().rposition(|right| right.row.time_ms <= at_ms);
                rights.split_off(valid.unwrap_or(0))
            }
            Kind::Temporal { within_ms, .. } => {
                rights.retain(|right| (right.row.time_ms - row.time_ms).abs() <= within_ms);
                rights.retain(|right| at_ms.is_none_or(|at_ms| self.upper_ms(&right.row) >= at_ms));
                rights
            }
            Kind::Interval { .. } => unreachable!(),
        }
    }

    /// Stored rows of the other side with this key.
    fn opposite(&self, row: &Row) -> Vec<Seen> {
        let meets =
            |other: &&Seen| other.row.side != row.side && other.row.key == row.key && other.state != State::Gone;
        self.seen.iter().filter(meets).copied().collect()
    }

    fn is_full(&self, row: &Row) -> bool {
        let is_interval = matches!(self.rules.kind, Kind::Interval { .. });
        let counts = |other: &&Seen| {
            let is_here = match other.state {
                State::Waits => true,
                State::Serves => is_interval || row.side == Side::Right,
                State::Gone => false,
            };
            other.row.side == row.side
                && other.row.key == row.key
                && is_here
                && self.upper_ms(&other.row) >= self.now_ms
        };
        self.seen.iter().filter(counts).count() as u64 >= self.rules.rows_per_key_max
    }

    /// Those whose upper bound a watermark passes.
    fn leave(&mut self, cause: usize, watermark_ms: i64, is_close: bool) {
        let mut due: Vec<Seen> = self.seen.iter().filter(|one| one.state == State::Waits).copied().collect();
        due.retain(|one| is_close || self.upper_ms(&one.row) < watermark_ms);
        due.sort_by_key(|one| (one.row.time_ms, one.row.side, one.place));
        for one in due {
            let found = match self.is_exact() {
                true => {
                    let rights = self.valid_rights(&one.row, None);
                    rights.into_iter().rev().find(|right| right.row.time_ms <= one.row.time_ms)
                }
                false => None,
            };
            match found {
                Some(right) if !(right.row.deletes && is_close && !self.rules.keeps_left) => {
                    self.set(one.place, State::Gone);
                    self.pair(cause, one.place, &one.row, &right);
                }
                // An inner join has nothing to send at the close: what waits there, waits on.
                _ if is_close && !self.rules.keeps_left && one.row.side == Side::Left => {}
                _ => {
                    self.set(one.place, State::Gone);
                    self.alone(cause, one.place, &one.row);
                }
            }
        }
    }

    fn pair(&mut self, cause: usize, left: usize, row: &Row, right: &Seen) {
        match right.row.deletes {
            true => self.alone(cause, left, row),
            false => self.send(cause, Some(left), Some(right.place), row.time_ms),
        }
    }

    fn alone(&mut self, cause: usize, place: usize, row: &Row) {
        match row.side {
            Side::Left if self.rules.keeps_left => self.send(cause, Some(place), None, row.time_ms),
            Side::Right if self.rules.keeps_right => self.send(cause, None, Some(place), row.time_ms),
            _ => {}
        }
    }

    fn send(&mut self, cause: usize, left: Option<usize>, right: Option<usize>, time_ms: i64) {
        let wait_ms = match self.rules.kind {
            Kind::Interval { before_ms, after_ms } => before_ms.max(after_ms),
            _ if self.is_exact() => 0,
            Kind::Temporal { within_ms, .. } | Kind::Table { within_ms, .. } => within_ms,
        };
        let watermark_ms = self.now_ms.saturating_sub(wait_ms);
        self.out.push(Out::Row { left, right, time_ms, watermark_ms, cause });
    }

    fn set(&mut self, place: usize, state: State) {
        let one = self.seen.iter_mut().find(|one| one.place == place).expect("it was seen");
        one.state = state;
    }
}
