//! `weir check`: everything that is wrong with the configuration, at once.

use super::{Format, Global, colour, print};
use crate::config::plan::Plan;
use crate::error::Finding;
use crate::runtime::compile;
use std::process::ExitCode;

/// Say everything that is wrong with the configuration
#[derive(clap::Args)]
pub struct Check {
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What the layers behind the configuration find in a plan that is whole (expressions, say). Each adds a line.
const JUDGES: &[fn(&Plan) -> Vec<Finding>] = &[compile::judge];

impl Check {
    pub fn run(self, global: &Global) -> ExitCode {
        let mut loaded = global.load();
        if let Some(plan) = &loaded.plan {
            loaded.report.extend(JUDGES.iter().flat_map(|judge| judge(plan)));
        }
        let report = loaded.report;
        match self.format {
            Format::Text => print(&report.text(colour(&std::io::stdout()))),
            Format::Json => print(&format!("{:#}\n", report.json())),
        }
        if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
