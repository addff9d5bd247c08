//! The filter: rows stay for which its expression is true.
//!
//! Promises: the order of rows is kept; a row for which the expression fails or gives no boolean becomes a dead
//! letter with the expression and the place.

use crate::codec::expr::{Expr, ExprError};
use crate::codec::rows::{BadRow, Rows};
use crate::codec::scope::Scope;

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    condition: Expr,
}

impl Filter {
    /// Reads the expression at this place of the pipeline.
    pub fn compile(text: &str, scope: &mut Scope) -> Result<Filter, ExprError> {
        Ok(Filter { condition: Expr::compile_condition(text, scope)? })
    }

    /// Takes the rows out of `alive` that do not pass; answers how many were filtered. Rows that fail are named in
    /// `bad`, are out as well, and do not count as filtered.
    pub fn apply(&mut self, rows: &mut Rows, alive: &mut Vec<u32>, bad: &mut Vec<BadRow>) -> u64 {
        let mut filtered = 0;
        alive.retain(|&row| match self.condition.holds(rows, row) {
            Ok(true) => true,
            Ok(false) => {
                filtered += 1;
                false
            }
            Err(fail) => {
                bad.push(BadRow { row, reason: fail.reason, message: self.condition.sentence(&fail) });
                false
            }
        });
        filtered
    }
}
