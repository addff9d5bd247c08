//! weir: Kafka to ClickHouse, exactly once.

pub mod api;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod demo;
pub mod error;
pub mod metrics;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod state;
pub mod step;
pub mod types;
