//! From payload bytes to typed fields: paths, JSON extraction, event time, expressions, keys.

pub mod decode;
pub mod expr;
pub mod extract;
pub mod key;
pub mod number;
pub mod object;
pub mod packed;
pub mod record;
pub mod rows;
pub mod scan;
pub mod scope;
pub mod time;
pub mod walk;
