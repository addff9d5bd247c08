//! What happens to rows between source and sink, one file per step.

pub mod dedup;
