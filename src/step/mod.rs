//! What happens to rows between source and sink, one file per step.

pub mod dedup;
pub mod filter;
pub mod join;
pub mod select;
