//! What only the connection shows: `check --connect`, tables that weir makes, dead letters and the outbox, against
//! the real broker and the real engine, through the binary.

mod checks;
mod letters;
mod outages;
mod stage;
mod starts;
#[path = "../support/mod.rs"]
mod support;
mod tables;
