//! `weir schema`: the JSON schema of the configuration, for editors.

use super::print;
use crate::config::schema;
use std::process::ExitCode;

/// Print the JSON schema of the configuration
#[derive(clap::Args)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> ExitCode {
        print(&schema::text());
        ExitCode::SUCCESS
    }
}
