//! What the benchmark says: a table on stdout, the same as JSON in `target/bench/`.

use crate::measure::Measured;
use serde_json::json;
use std::path::Path;

/// One line: a shape on a sink, with all its runs.
pub struct Line {
    pub name: String,
    pub runs: Vec<Run>,
}

/// A run and the bare consumer's events per CPU-second beside it: the mean of the run before and the one after.
pub struct Run {
    pub measured: Measured,
    pub bare_per_cpu_second: f64,
}

impl Run {
    fn ratio(&self) -> f64 {
        self.measured.per_cpu_second() / self.bare_per_cpu_second
    }
}

impl Line {
    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }

    fn worst(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).fold(0.0, f64::max)
    }

    pub fn ratio(&self) -> f64 {
        self.median(Run::ratio)
    }

    fn text(&self) -> String {
        let first = &self.runs[0].measured;
        format!(
            "{:<32} {:>11} {:>11} {:>8.2} {:>8.2} {:>9.0} {:>9.0} {:>12.0} {:>7.1} %\n",
            self.name,
            first.events,
            first.written,
            self.median(|run| run.measured.cost.wall.as_secs_f64()),
            self.median(|run| run.measured.cost.cpu.as_secs_f64()),
            self.worst(|run| run.measured.cost.memory_peak_bytes as f64) / (1 << 20) as f64,
            self.worst(|run| run.measured.state_bytes as f64) / (1 << 20) as f64,
            self.median(|run| run.measured.per_cpu_second()),
            self.ratio() * 100.0,
        )
    }

    fn json(&self) -> serde_json::Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "events": run.measured.events,
                "written": run.measured.written,
                "wall_seconds": run.measured.cost.wall.as_secs_f64(),
                "cpu_seconds": run.measured.cost.cpu.as_secs_f64(),
                "memory_peak_bytes": run.measured.cost.memory_peak_bytes,
                "state_bytes": run.measured.state_bytes,
                "events_per_cpu_second": run.measured.per_cpu_second(),
                "bare_events_per_cpu_second": run.bare_per_cpu_second,
                "ratio": run.ratio(),
                "summary": run.measured.summary,
            })
        });
        json!({ "name": self.name, "ratio_median": self.ratio(), "runs": runs.collect::<Vec<_>>() })
    }
}

/// The whole result.
#[derive(Default)]
pub struct Report {
    pub lines: Vec<Line>,
    /// Name, events a second, and p50 and p99 of the processing time in seconds.
    pub latencies: Vec<(String, u64, (f64, f64))>,
    pub payload_bytes_mean: f64,
}

impl Report {
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{:<32} {:>11} {:>11} {:>8} {:>8} {:>9} {:>9} {:>12} {:>9}\n",
            "", "events", "written", "wall s", "cpu s", "peak MiB", "disk MiB", "ev/cpu-s", "of bare"
        );
        self.lines.iter().for_each(|line| text += &line.text());
        for (name, per_second, (p50, p99)) in &self.latencies {
            text += &format!(
                "{name}: processing at {per_second} events/s: p50 {:.1} ms, p99 {:.1} ms\n",
                p50 * 1000.0,
                p99 * 1000.0
            );
        }
        if self.payload_bytes_mean > 0.0 {
            text += &format!("mean payload of the events {:.0} bytes; ", self.payload_bytes_mean);
        }
        text + "medians, peak memory and disk the worst\n"
    }

    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let latencies = self.latencies.iter().map(|(name, per_second, (p50, p99))| {
            json!({ "name": name, "events_per_second": per_second, "processing_seconds": { "p50": p50, "p99": p99 } })
        });
        let all = json!({
            "payload_bytes_mean": self.payload_bytes_mean,
            "lines": self.lines.iter().map(Line::json).collect::<Vec<_>>(),
            "latencies": latencies.collect::<Vec<_>>(),
        });
        std::fs::write(folder.join("end_to_end.json"), format!("{all:#}\n"))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    (low + high) / 2.0
}
