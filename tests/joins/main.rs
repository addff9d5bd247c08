//! The join step from outside: against the bare definition with everything cut at random, over both stores, and the
//! cases that have names.

mod cases;
mod oracle;
mod property;
mod stage;
