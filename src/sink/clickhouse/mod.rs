//! ClickHouse: from rows to acknowledged blocks.
//!
//! `schema` and `table` read the table and judge it, `mapping` binds fields to columns, `encode` writes Native
//! blocks, `insert` sends one under its token, `errors` says what an answer means, `create` makes tables.

pub mod client;
pub mod create;
pub mod encode;
pub mod errors;
pub mod frames;
pub mod insert;
pub mod mapping;
pub mod schema;
pub mod table;
pub mod types;
