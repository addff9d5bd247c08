//! `weir demo` as a person runs it: to its end, and stopped by Ctrl-C.

use crate::support::process::Process;
use crate::support::{PATIENCE, wait_for};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use weir::demo::scenarios::Scenario;

const PROOF: &str = "Every key is there exactly once.\n";

struct Run {
    folder: tempfile::TempDir,
    process: Process,
}

impl Run {
    fn start(arguments: &[&str]) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        std::fs::create_dir(temporary(folder.path())).unwrap();
        // A group of its own, as a terminal makes it.
        command.arg("demo").args(arguments).env("TMPDIR", temporary(folder.path())).process_group(0);
        let (out, log) = (folder.path().join("out"), folder.path().join("log"));
        Run { process: Process::start_apart("weir demo", command, &out, &log), folder }
    }

    fn out(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("out")).unwrap()
    }

    /// Waits for the end that is as it should be.
    #[track_caller]
    fn ends_well(mut self) {
        let status = self.process.wait(PATIENCE);
        let said = format!("{}\n{}", self.out(), self.process.log());
        assert!(status.success() && self.out().ends_with(PROOF), "{status}\n{said}");
        assert!(!said.contains("INFO"), "nothing comes between the lines of the table: {said}");
        let left: Vec<_> = std::fs::read_dir(temporary(self.folder.path())).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn temporary(folder: &Path) -> PathBuf {
    folder.join("tmp")
}

#[test]
fn each_scenario_proves_its_result_and_leaves_nothing_behind() {
    for scenario in Scenario::ALL {
        let arguments = ["--for", "5s", "--events-per-sec", "2000", "--seed", "7", "--scenario", scenario.name()];
        Run::start(&arguments).ends_well();
    }
}

#[test]
fn ctrl_c_proves_what_was_produced_until_then_and_leaves_nothing_behind() {
    let mut run = Run::start(&["--for", "1h", "--events-per-sec", "2000"]);
    wait_for("the demo to show what it does", PATIENCE, || {
        run.process.assert_running();
        run.out().contains("produced").then_some(())
    });
    // SAFETY: a plain system call; the process is not reaped yet, so the group is its.
    unsafe { libc::kill(-(run.process.id() as i32), libc::SIGINT) };
    run.ends_well();
}
