//! Expressions: CEL with our rules for null and numbers.
//!
//! Owns compiling (once, against a [`Scope`]) and evaluating (per row). Promises: numbers compare by value across
//! int, uint and double; arithmetic mixes int and double as double; absent is null, which `==` and `!=` take, while
//! order and arithmetic with it fail; a name, key or index that is not there gives null, and so is a member that is null
//! the same as none. A field that is given twice fails where it is looked at, and no `||` makes up for that. Never
//! reads a clock.
//!
//! JSON numbers: one with a point or an exponent is a double, any other an int (a uint beyond the ints). One with more
//! digits than those hold keeps its text: it compares by its exact value, except with a double, and computes as one.

mod compile;
mod eval;
mod function;
mod node;
mod value;

#[cfg(test)]
mod tests;

pub use compile::ExprError;
pub use eval::Fail;
pub use value::Value;

use crate::codec::rows::{Field, Kind, Rows};
use crate::codec::scan::fits_in_a_row;
use crate::codec::scope::Scope;
use eval::Refusal;
use node::{Node, NodeKind, Type};
use value::{RowView, write_field};

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expr {
    text: String,
    root: Node,
    path: Option<String>,
}

impl Expr {
    /// Reads an expression. What can be known before there is a row is an error here.
    pub fn compile(text: &str, scope: &mut Scope) -> Result<Expr, ExprError> {
        let compiled = compile::compile(text, scope)?;
        Ok(Expr { text: text.to_owned(), root: compiled.root, path: compiled.path })
    }

    /// The same for a condition: one that can give no boolean is an error.
    pub fn compile_condition(text: &str, scope: &mut Scope) -> Result<Expr, ExprError> {
        let expr = Expr::compile(text, scope)?;
        match expr.root.type_of() {
            Type::Any | Type::Bool => Ok(expr),
            other => Err(ExprError {
                message: format!("a condition gives true or false, this gives {}", other.name()),
                start: 0,
                len: text.chars().count() as u32,
            }),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The path, where the expression is nothing but one.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref().filter(|_| matches!(self.root.kind, NodeKind::Path(_)))
    }

    /// Whether the row meets the condition.
    #[inline]
    pub fn holds(&self, rows: &Rows, row: u32) -> Result<bool, Box<Fail>> {
        self.root.truth(RowView { bytes: &rows.bytes, fields: rows.row(row) }, &mut Vec::new())
    }

    /// The value for a row.
    pub fn value<'a>(&'a self, rows: &'a Rows, row: u32) -> Result<Value<'a>, Box<Fail>> {
        self.root.value(RowView { bytes: &rows.bytes, fields: rows.row(row) }, &mut Vec::new())
    }

    /// The value for a row as a field; what is new is written to the arena as JSON text. `scratch` is only memory.
    pub fn field(&self, rows: &mut Rows, row: u32, scratch: &mut Vec<u8>) -> Result<Field, Box<Fail>> {
        scratch.clear();
        let value = self.value(rows, row)?;
        let kind = write_field(&value, scratch).or_else(|message| self.root.refuse(message))?;
        // What comes from the payload as it was lies inside of it; what is put together can be deeper.
        if matches!(value, Value::List(_) | Value::Map(_)) && !fits_in_a_row(scratch) {
            return self.root.refuse(Refusal::too_deep());
        }
        Ok(match kind {
            Kind::Null => Field::NULL,
            Kind::True | Kind::False => Field::bool(kind == Kind::True),
            kind => rows.append(kind, scratch),
        })
    }

    /// The sentence for a dead letter: the expression, the place in it, and what went wrong there.
    pub fn sentence(&self, fail: &Fail) -> String {
        let part: String = self.text.chars().skip(fail.start as usize).take(fail.len as usize).collect();
        let place = if part == self.text.trim() {
            String::new()
        } else {
            format!(" at character {}, `{part}`", fail.start + 1)
        };
        format!("the expression `{}` failed{place}: {}", self.text, fail.message)
    }
}
