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

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Judges `--log-level`. The filter itself takes any word for the name of a module, and then shows nothing else.
pub fn filter(text: &str) -> Result<String, String> {
    let is_level = |part: &str| LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
    if let Some(wrong) = text.split(',').map(str::trim).find(|part| !is_level(part) && !part.contains('=')) {
        let levels = LEVELS.join(", ");
        return Err(format!("`{wrong}` is no level: there are {levels}, or a filter such as info,weir::runtime=debug"));
    }
    EnvFilter::builder().parse(text).map(|_| text.to_string()).map_err(|error| error.to_string())
}

/// Starts logging for this process, at the level that was asked for.
pub fn start(global: &Global, usual_level: &str) {
    let filter = EnvFilter::builder().parse_lossy(global.log_level.as_deref().unwrap_or(usual_level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Text => lines.with_ansi(colour(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_the_known_words_or_a_filter() {
        for good in ["off", "error", "WARN", "info", "debug", "trace", "info,weir::runtime=debug", "weir=off"] {
            assert_eq!(filter(good).as_deref(), Ok(good));
        }
        for wrong in ["warning", "weir", "info,weir", "verbose,weir=debug", ""] {
            assert!(filter(wrong).unwrap_err().contains("is no level: there are off, error, warn"), "{wrong}");
        }
        assert!(filter("weir=warning").is_err());
    }
}
