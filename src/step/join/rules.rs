//! What a join means, in numbers: how long a row serves, when it is late, when it has waited long enough.
//!
//! Everything is decided by a row's time and the join's watermark before the record that brought it: so it does not
//! matter how records were cut into batches and epochs. (A record never pushes the watermark above its own time;
//! before it and after it, the watermark judges it alike.)

/// Which rows meet. Bounds are inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Every pair with −before ≤ t_right − t_left ≤ after; one of both may be negative, their sum is not.
    Interval { before_ms: i64, after_ms: i64 },
    /// Each left row once, with one right row of its key at most `within_ms` away.
    Temporal { within_ms: i64, exact: bool },
    /// Each left row once, with the version of its key that is valid at its time.
    Table { within_ms: i64, exact: bool },
}

/// What happens to a late row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Late {
    /// It meets what still serves, and is not kept.
    Join,
    Drop,
    DeadLetter,
}

/// The whole definition of a join but its keys and fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    pub kind: Kind,
    /// `left` or `full`: a left row that meets nothing is sent alone.
    pub keeps_left: bool,
    /// `right` or `full`.
    pub keeps_right: bool,
    pub late: Late,
    /// Rows of one key and side.
    pub rows_per_key_max: u64,
}

/// A side of a join.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    // At one time the right sides come first.
    Right,
    Left,
}

impl Rules {
    /// How far behind its time the upper bound of a row of this side lies. Below zero where an interval is shifted.
    pub fn reach_ms(&self, side: Side) -> i64 {
        match (self.kind, side) {
            (Kind::Interval { after_ms, .. }, Side::Left) => after_ms,
            (Kind::Interval { before_ms, .. }, Side::Right) => before_ms,
            (Kind::Temporal { exact: true, .. } | Kind::Table { exact: true, .. }, Side::Left) => 0,
            (Kind::Temporal { within_ms, .. } | Kind::Table { within_ms, .. }, _) => within_ms,
        }
    }

    /// How far the watermark behind the join is held back.
    pub fn wait_ms(&self) -> i64 {
        match self.kind {
            Kind::Interval { before_ms, after_ms } => before_ms.max(after_ms),
            Kind::Temporal { exact: true, .. } | Kind::Table { exact: true, .. } => 0,
            Kind::Temporal { within_ms, .. } | Kind::Table { within_ms, .. } => within_ms,
        }
    }

    /// The oldest time of a row of this side that still serves at this watermark.
    pub fn serves_from_ms(&self, side: Side, watermark_ms: i64) -> i64 {
        watermark_ms.saturating_sub(self.reach_ms(side))
    }

    /// Whether the later of its time and its upper bound lies below the watermark. Rows of a table never are late.
    pub fn is_late(&self, side: Side, time_ms: i64, watermark_ms: i64) -> bool {
        if matches!((self.kind, side), (Kind::Table { .. }, Side::Right)) {
            return false;
        }
        time_ms.max(time_ms.saturating_add(self.reach_ms(side))) < watermark_ms
    }

    pub fn is_exact(&self) -> bool {
        matches!(self.kind, Kind::Temporal { exact: true, .. } | Kind::Table { exact: true, .. })
    }

    pub fn keeps(&self, side: Side) -> bool {
        match side {
            Side::Left => self.keeps_left,
            Side::Right => self.keeps_right,
        }
    }

    /// From when to when a row of the other side may be to meet this one.
    pub(super) fn meets(&self, side: Side, time_ms: i64) -> (i64, i64) {
        let (back_ms, on_ms) = match (self.kind, side) {
            (Kind::Interval { before_ms, after_ms }, Side::Left) => (before_ms, after_ms),
            (Kind::Interval { before_ms, after_ms }, Side::Right) => (after_ms, before_ms),
            (Kind::Temporal { within_ms, exact: true }, Side::Left) => (within_ms, 0),
            (Kind::Temporal { within_ms, .. }, _) => (within_ms, within_ms),
            // A first version completes whoever waits.
            (Kind::Table { .. }, _) => return (i64::MIN, i64::MAX),
        };
        (time_ms.saturating_sub(back_ms), time_ms.saturating_add(on_ms))
    }
}
