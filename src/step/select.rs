//! The select: from here on a row has the selected fields and no others.
//!
//! Promises: plain paths are not copied, exact numbers keep their text; an absent field becomes null. A row for
//! which an expression fails becomes a dead letter with the expression and the place.

use crate::codec::expr::{Expr, ExprError};
use crate::codec::rows::{BadRow, Rows, Slot};
use crate::codec::scope::{Derivations, Derive, Scope, Selected, absent_to_null};

/// A compiled select.
#[derive(Clone, Debug)]
pub struct Select {
    /// Slots of plain paths.
    plain: Vec<Slot>,
    computed: Vec<(Slot, Expr)>,
    derivations: Derivations,
    derive: Option<Derive>,
    scratch: Vec<u8>,
}

/// Which field's expression is wrong, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelectError {
    /// The index of the field in the list.
    pub field: usize,
    pub error: ExprError,
}

impl Select {
    /// Reads the fields (name and expression) at this place of the pipeline and closes the scope to their names.
    pub fn compile<'t>(
        fields: impl IntoIterator<Item = (&'t str, &'t str)>,
        scope: &mut Scope,
    ) -> Result<Select, SelectError> {
        let mut plain = Vec::new();
        let mut computed = Vec::new();
        let mut selected = Vec::new();
        for (field, (name, text)) in fields.into_iter().enumerate() {
            let expr = Expr::compile(text, scope).map_err(|error| SelectError { field, error })?;
            match expr.path() {
                Some(path) => {
                    plain.push(scope.resolve(path).expect("the expression has just resolved it"));
                    selected.push((name.to_owned(), Selected::Path(path.to_owned())));
                }
                None => {
                    let slot = scope.computed();
                    selected.push((name.to_owned(), Selected::Computed(slot)));
                    computed.push((slot, expr));
                }
            }
        }
        let derivations = scope.close(selected).expect("every selected path was resolved");
        Ok(Select { plain, computed, derivations, derive: None, scratch: Vec::new() })
    }

    /// Writes the fields of every row in `alive`. Rows that fail are named in `bad` and are out. Filters nothing,
    /// so the answer is 0; it is there because all steps have one shape.
    pub fn apply(&mut self, rows: &mut Rows, alive: &mut Vec<u32>, bad: &mut Vec<BadRow>) -> u64 {
        let derive = self.derive.get_or_insert_with(|| self.derivations.extractors());
        alive.retain(|&row| {
            let written = write_row(&self.plain, &self.computed, derive, &mut self.scratch, rows, row);
            if let Err((reason, message)) = written {
                bad.push(BadRow { row, reason, message });
                return false;
            }
            true
        });
        0
    }
}

fn write_row(
    plain: &[Slot],
    computed: &[(Slot, Expr)],
    derive: &mut Derive,
    scratch: &mut Vec<u8>,
    rows: &mut Rows,
    row: u32,
) -> Result<(), (&'static str, String)> {
    for (slot, expr) in computed {
        let field = expr.field(rows, row, scratch).map_err(|fail| ("expression_failed", expr.sentence(&fail)))?;
        rows.set(row, *slot, field);
    }
    for slot in plain {
        absent_to_null(rows, row, *slot);
    }
    derive.run(rows, row).map_err(|fault| (fault.reason, format!("in a selected field: {}", fault.what)))
}
