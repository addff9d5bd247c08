//! The whole system with nothing installed: an in-process Kafka, an embedded ClickHouse, generated traffic.
//!
//! Owns the parts that `weir demo` and the tests start, and what they show. Promises: every part listens on the
//! loopback address only and ends with the process that started it. Never used by `weir run`.

pub mod broker;
pub mod clickhouse;
pub mod generator;
pub mod proof;
pub mod scenarios;
pub mod table;
