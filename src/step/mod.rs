//! The steps: what happens to rows between the decoder and the sink.
//!
//! A step works on a batch: it shortens the list of rows that are still in, and may write fields. It never sees
//! Kafka, ClickHouse, threads, files or clocks.

pub mod filter;
pub mod select;
