//! The steps that change or drop rows.

pub mod dedup;
