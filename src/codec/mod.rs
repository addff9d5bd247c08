//! From payload bytes to typed fields: paths, JSON extraction, event time, expressions, keys.

pub mod record;
pub mod rows;
