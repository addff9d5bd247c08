//! Log lines: sentences with fields, on stderr.

use super::{Global, colour};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object per line
    Json,
}

/// Judges `--log-level`.
pub fn filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map(|_| text.to_string()).map_err(|error| error.to_string())
}

/// Starts logging for this process.
pub fn start(global: &Global) {
    let filter = EnvFilter::builder().parse_lossy(&global.log_level);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => lines.with_ansi(colour(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
