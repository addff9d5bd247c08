//! What the user writes, and what it means.

pub mod plan;
