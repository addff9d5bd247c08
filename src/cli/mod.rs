//! The command line: what a person types, one file per subcommand.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 something is wrong, 2 wrong command line.

mod ask;
mod check;
mod completions;
mod dead_letters;
mod demo;
mod explain;
mod healthcheck;
mod logging;
mod observe;
mod outbox;
mod run;
mod schema;
mod signals;
mod version;

use crate::config::{self, Loaded};
use clap::{Args, Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Kafka to ClickHouse, exactly once: deduplicated and joined on the way, in one binary.
#[derive(Parser)]
#[command(name = "weir", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Adding a subcommand is a line here, a line in `run`, and a file.
#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Demo(demo::Demo),
    Check(check::Check),
    Explain(explain::Explain),
    DeadLetters(dead_letters::DeadLetters),
    Outbox(outbox::Outbox),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Healthcheck(healthcheck::Healthcheck),
    Version(version::Version),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is said while the demo draws its table is drawn over.
    let usual_level = if matches!(cli.command, Command::Demo(_)) { "warn" } else { "info" };
    logging::start(&cli.global, usual_level);
    match cli.command {
        Command::Run(run) => run.run(&cli.global),
        Command::Demo(demo) => demo.run(&cli.global),
        Command::Check(check) => check.run(&cli.global),
        Command::Explain(explain) => explain.run(&cli.global),
        Command::DeadLetters(letters) => letters.run(&cli.global),
        Command::Outbox(outbox) => outbox.run(&cli.global),
        Command::Schema(schema) => schema.run(),
        Command::Completions(completions) => completions.run(),
        Command::Healthcheck(healthcheck) => healthcheck.run(&cli.global),
        Command::Version(version) => version.run(),
    }
}

/// What every command takes.
#[derive(Args)]
pub struct Global {
    /// The configuration [default: ./weir.yaml, else ./config/weir.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "WEIR_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,

    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = logging::LogFormat::Text)]
    log_format: logging::LogFormat,

    /// Which log lines: off, error, warn, info, debug, trace, or a filter such as info,weir::runtime=debug
    /// [default: info; of the demo: warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = logging::filter)]
    log_level: Option<String>,
}

impl Global {
    /// The file that is meant: as told, else the first of the usual places that is there.
    pub fn config_path(&self) -> PathBuf {
        const USUAL: [&str; 2] = ["weir.yaml", "config/weir.yaml"];
        let told = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        told.unwrap_or_else(|| {
            let there = USUAL.into_iter().find(|path| Path::new(path).exists());
            there.unwrap_or(USUAL[0]).into()
        })
    }

    /// Reads that file, with all findings.
    pub fn load(&self) -> Loaded {
        config::load_all(&self.config_path())
    }
}

/// How a command prints its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Writes data to stdout. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Whether to colour what goes to this stream: only on a terminal, and not with `NO_COLOR`.
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
