//! ClickHouse: rows, the window of tokens, and inserts that are on their way.
//!
//! An attempt is a request in the network until somebody decides how it ends. A hanging insert was given up by its
//! client and is applied all the same, later.

use crate::rows::RowId;
use crate::world::topic;
use std::collections::{BTreeMap, BTreeSet};
use weir::runtime::task::TaskId;
use weir::sink::Block;
use weir::types::Epoch;

/// An insert on its way.
#[derive(Clone)]
pub struct Request {
    /// The life of the process that waits for the answer; nobody does for a hanging one.
    pub life: Option<u64>,
    pub task: TaskId,
    pub epoch: Epoch,
    pub output: u16,
    pub token: String,
    pub block: Block,
    /// A hanging one is applied at this time.
    pub applied_at_ms: u64,
}

/// Both tables, told apart by their rows.
#[derive(Default)]
pub struct Table {
    window: BTreeSet<String>,
    pub under_way: Vec<Request>,
    /// Each row with the incarnations under which it came, in their order.
    pub rows: BTreeMap<RowId, Vec<String>>,
    pub blocks: u64,
    /// It has no columns that tell where its rows come from.
    pub hides_places: bool,
}

/// The parts of a token that say whose block it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenParts {
    pub partition: i32,
    pub incarnation: String,
    pub epoch: u64,
}

pub fn parts(token: &str) -> TokenParts {
    let parts: Vec<&str> = token.split('/').collect();
    TokenParts {
        partition: parts[2].parse().unwrap(),
        incarnation: parts[3].to_owned(),
        epoch: parts[4].parse().unwrap(),
    }
}

impl Table {
    /// Inserts a block, if its token is new. The row that came twice under one incarnation, if there is one.
    pub fn apply(&mut self, token: &str, block: &Block) -> Result<(), RowId> {
        if !self.window.insert(token.to_owned()) {
            return Ok(());
        }
        self.blocks += 1;
        let incarnation = parts(token).incarnation;
        let mut twice = None;
        for row in RowId::all_of(block) {
            let came = self.rows.entry(row).or_default();
            if came.contains(&incarnation) {
                twice = Some(row);
            }
            came.push(incarnation.clone());
        }
        twice.map_or(Ok(()), Err)
    }

    /// How many rows of these ranges of offsets there are; dead letters lie in a table of their own. `None`: it cannot
    /// tell.
    pub fn held(&self, letters: bool, partition: i32, ranges: &[(String, i64, i64)]) -> Option<u64> {
        if self.hides_places {
            return None;
        }
        let is_meant = |row: &RowId| {
            let of_it = row.is_letter == letters && row.partition == partition;
            let inside =
                |(name, from, to): &(String, i64, i64)| *name == topic(row.input) && (*from..*to).contains(&row.offset);
            of_it && ranges.iter().any(inside)
        };
        Some(self.rows.iter().filter(|(row, _)| is_meant(row)).map(|(_, came)| came.len() as u64).sum())
    }

    /// More time has passed than any token is remembered.
    pub fn forget_all(&mut self) {
        self.window.clear();
    }

    /// The window moves on over every token that nobody may use again: what Kafka knows as acknowledged and is
    /// not on its way any more.
    pub fn forget(&mut self, is_acknowledged: impl Fn(&TokenParts) -> bool) {
        let under_way: BTreeSet<&str> = self.under_way.iter().map(|request| request.token.as_str()).collect();
        self.window.retain(|token| under_way.contains(token.as_str()) || !is_acknowledged(&parts(token)));
    }
}
