//! `weir version`: ours, and those of the engines inside.

use super::print;
use crate::{source, state};
use std::process::ExitCode;

/// Print the versions of weir, librdkafka and RocksDB
#[derive(clap::Args)]
pub struct Version {}

impl Version {
    pub fn run(self) -> ExitCode {
        let weir = env!("CARGO_PKG_VERSION");
        print(&format!("weir {weir}\nlibrdkafka {}\nrocksdb {}\n", source::client_version(), state::engine_version()));
        ExitCode::SUCCESS
    }
}
