//! A running weir: its signals, its end, its numbers.

use crate::support::disk::limit_files;
use crate::support::process::Process;
use crate::support::{PATIENCE, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

pub struct Weir {
    process: Process,
    port: u16,
    /// What it wrote to stdout.
    output: PathBuf,
    started: Instant,
}

impl Weir {
    pub fn start(
        name: &str,
        config: &Path,
        port: u16,
        log: &Path,
        arguments: &[&str],
        file_bytes_max: Option<u64>,
    ) -> Weir {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("run").arg("--config").arg(config).args(arguments);
        command.args(["--log-level", "weir=debug,warn"]);
        if let Some(bytes) = file_bytes_max {
            limit_files(&mut command, bytes);
        }
        let output = log.with_extension("out");
        let started = Instant::now();
        let process = Process::start_apart(&format!("weir ({name})"), command, &output, log);
        Weir { process, port, output, started }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and the end it makes.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(PATIENCE)
    }

    /// SIGTERM; it has to end with 0.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "weir ended with {status} after SIGTERM:\n{}", self.log());
    }

    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    pub fn wait(&mut self, wait: Duration) -> ExitStatus {
        self.process.wait(wait)
    }

    pub fn has_ended(&mut self) -> bool {
        !self.process.is_running()
    }

    pub fn assert_running(&mut self) {
        self.process.assert_running();
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        self.process.log_end()
    }

    /// All it said, former starts of this instance included.
    pub fn whole_log(&self) -> String {
        self.process.log()
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// The sum of a metric's samples whose labels contain `labels`; `None` while it does not answer.
    pub fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics")?;
        (status == 200).then(|| {
            let sample = |line: &str| -> Option<f64> {
                let rest = line.strip_prefix(name)?;
                let is_it = rest.starts_with(['{', ' ']) && rest.contains(labels);
                is_it.then(|| rest.rsplit(' ').next()?.parse().ok()).flatten()
            };
            text.lines().filter_map(sample).sum()
        })
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = ureq::Agent::from(config.timeout_global(Some(Duration::from_secs(5))).build());
        let mut answer = agent.get(format!("http://127.0.0.1:{}{path}", self.port)).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// Waits until a metric is at least that, and says how long after the start that was.
    pub fn wait_for_metric(&mut self, name: &str, labels: &str, least: f64) -> Duration {
        let mut last = None;
        let begun = Instant::now();
        loop {
            self.process.assert_running();
            last = self.metric(name, labels).or(last);
            if last.is_some_and(|value| value >= least) {
                return self.started.elapsed();
            }
            let log = || self.log();
            assert!(
                begun.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for weir's {name}{{{labels}}} to reach {least}; it is {last:?}:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many tasks have begun in that way since the start; of all ways with an empty name.
    pub fn recoveries(&self, case: &str) -> f64 {
        let labels = if case.is_empty() { String::new() } else { format!("case=\"{case}\"") };
        self.metric("weir_recoveries_total", &labels).expect("a running weir tells its metrics")
    }

    /// How many lines of its log, former starts of this instance included, have one of these texts.
    pub fn lines_with(&self, texts: &[&str]) -> usize {
        self.process.log().lines().filter(|line| texts.iter().any(|text| line.contains(text))).count()
    }

    /// Waits until it has said that.
    pub fn wait_for_log(&mut self, text: &str) {
        let process = &self.process;
        wait_for(&format!("weir to say `{text}`"), PATIENCE, || process.log().contains(text).then_some(()));
    }
}
