//! `weir check`: everything that is wrong with the configuration, at once; with `--connect` also what Kafka and
//! ClickHouse say about it.
//!
//! Promises: nothing is changed anywhere without `--fix`, and then only what was printed before, after a yes.

use super::{Format, Global, colour, print};
use crate::config::Loaded;
use crate::config::plan::Plan;
use crate::config::report::Report;
use crate::runtime::compile;
use crate::runtime::inspect::{self, Fix};
use std::io::{BufRead, Write};
use std::process::ExitCode;

/// Say everything that is wrong with the configuration
#[derive(clap::Args)]
pub struct Check {
    /// Also ask Kafka and ClickHouse: topics, partitions, tables, windows, grants, columns
    #[arg(long)]
    connect: bool,

    /// Run the statements that mend what was found, after asking
    #[arg(long, requires = "connect")]
    fix: bool,

    /// With --fix: do not ask
    #[arg(long, requires = "fix")]
    yes: bool,

    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Check {
    pub fn run(self, global: &Global) -> ExitCode {
        let (report, plan) = judged(global);
        // What does not fit together here is not asked about elsewhere.
        let Some(plan) = plan.filter(|_| self.connect && !report.has_errors()) else {
            self.show(&report, &[]);
            return exit_code(&report);
        };
        match self.connected(global, report, &plan) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn connected(&self, global: &Global, mut report: Report, plan: &Plan) -> std::io::Result<ExitCode> {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let seen = inspect::inspect(plan, tokio.handle());
        report.extend(seen.findings);
        if !self.fix || seen.fixes.is_empty() {
            self.show(&report, &[]);
            return Ok(exit_code(&report));
        }
        if self.format == Format::Text {
            self.show(&report, &[]);
        }
        if !self.yes && !agreed(&seen.fixes)? {
            if self.format == Format::Json {
                self.show(&report, &[]);
            }
            return Ok(exit_code(&report));
        }
        let mended = self.mend(&seen.fixes, tokio.handle());
        // What is right now is seen by looking again.
        let (mut report, _) = judged(global);
        report.extend(inspect::inspect(plan, tokio.handle()).findings);
        self.show(&report, &mended);
        Ok(exit_code(&report))
    }

    /// Runs the statements; answers those that worked.
    fn mend(&self, fixes: &[Fix], tokio: &tokio::runtime::Handle) -> Vec<String> {
        let mut mended = Vec::new();
        for fix in fixes {
            match inspect::mend(fix, tokio) {
                Ok(()) => {
                    eprintln!("done: {}", fix.sql);
                    mended.push(fix.sql.clone());
                }
                Err(error) => eprintln!("failed: {}\n  {error}", fix.sql),
            }
        }
        mended
    }

    fn show(&self, report: &Report, mended: &[String]) {
        match self.format {
            Format::Text => print(&report.text(colour(&std::io::stdout()))),
            Format::Json => {
                let mut object = report.json();
                if self.fix {
                    object["fixed"] = mended.into();
                }
                print(&format!("{object:#}\n"));
            }
        }
    }
}

/// The file with all that can be found without a connection.
pub(super) fn judged(global: &Global) -> (Report, Option<Plan>) {
    let Loaded { plan, drafts, mut report } = global.load();
    report.extend(compile::judge(&drafts));
    report.extend(plan.iter().flat_map(compile::judge_plan));
    (report, plan)
}

/// Shows the statements and asks; only a yes is a yes.
fn agreed(fixes: &[Fix]) -> std::io::Result<bool> {
    let mut err = std::io::stderr().lock();
    writeln!(err, "\nto be run:")?;
    for fix in fixes {
        writeln!(err, "  {}", fix.sql.replace('\n', "\n  "))?;
    }
    write!(err, "run {}? [y/N] ", if fixes.len() == 1 { "it" } else { "them" })?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn exit_code(report: &Report) -> ExitCode {
    if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
