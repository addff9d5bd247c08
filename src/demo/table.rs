//! What the demo shows: a live table while it runs, and the proof at the end.
//!
//! On a terminal the table is drawn over itself; elsewhere every look is one plain line. Writes to what it is
//! given, reads no clock.

use super::generator::GroundTruth;
use crate::error::{Error, Result};
use std::io::Write;
use std::time::Duration;

/// The numbers of one look.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Snapshot {
    pub elapsed: Duration,
    pub produced: u64,
    pub read: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    pub written: u64,
    /// Records in Kafka that are not committed yet.
    pub lag: u64,
    pub records_per_second: f64,
    /// From the record's timestamp until ClickHouse had it; `None` before the first block.
    pub latency_p50: Option<Duration>,
    pub latency_p99: Option<Duration>,
    /// The generator is held back by the reader.
    pub waiting: bool,
}

impl Snapshot {
    /// Of what was read.
    pub fn duplicate_share(&self) -> f64 {
        if self.read == 0 { 0.0 } else { self.duplicates as f64 / self.read as f64 }
    }
}

/// Draws snapshots.
pub struct LiveTable<W> {
    out: W,
    over_itself: bool,
    lines_drawn: usize,
}

impl<W: Write> LiveTable<W> {
    /// `over_itself`: the output is a terminal.
    pub fn new(out: W, over_itself: bool) -> LiveTable<W> {
        LiveTable { out, over_itself, lines_drawn: 0 }
    }

    pub fn show(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        match self.over_itself {
            true => self.redraw(snapshot)?,
            false => writeln!(self.out, "{}", plain_line(snapshot))?,
        }
        self.out.flush()
    }

    fn redraw(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        if self.lines_drawn > 0 {
            write!(self.out, "\x1b[{}A", self.lines_drawn)?;
        }
        let rows = rows(snapshot);
        for (name, value, note) in &rows {
            writeln!(self.out, "\x1b[2K  {name:<20} {value:>14}  {note}")?;
        }
        self.lines_drawn = rows.len();
        Ok(())
    }
}

fn rows(snapshot: &Snapshot) -> [(&'static str, String, String); 6] {
    let held = if snapshot.waiting { "generator waits for the reader" } else { "" };
    let latency = |value: Option<Duration>| value.map_or("-".to_owned(), seconds);
    [
        ("produced", grouped(snapshot.produced), held.to_owned()),
        ("read", grouped(snapshot.read), format!("{} a second", grouped(snapshot.records_per_second as u64))),
        ("duplicates dropped", grouped(snapshot.duplicates), format!("{:.1} %", snapshot.duplicate_share() * 100.0)),
        ("written", grouped(snapshot.written), format!("{} dead letters", grouped(snapshot.dead_letters))),
        ("lag", grouped(snapshot.lag), "records".to_owned()),
        ("latency", latency(snapshot.latency_p50), format!("p99 {}", latency(snapshot.latency_p99))),
    ]
}

fn plain_line(snapshot: &Snapshot) -> String {
    let latency = |value: Option<Duration>| value.map_or("-".to_owned(), seconds);
    format!(
        "{:>4} s  produced {}  read {}  duplicates {} ({:.1} %)  written {}  lag {}  latency p50 {} p99 {}",
        snapshot.elapsed.as_secs(),
        snapshot.produced,
        snapshot.read,
        snapshot.duplicates,
        snapshot.duplicate_share() * 100.0,
        snapshot.written,
        snapshot.lag,
        latency(snapshot.latency_p50),
        latency(snapshot.latency_p99),
    )
}

/// What ClickHouse itself says about the result, beside what went in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    pub table: String,
    pub key: String,
    pub truth: GroundTruth,
    pub rows: u64,
    pub distinct_keys: u64,
}

impl Proof {
    /// Asks for `count()` and `uniqExact(key)`.
    pub async fn ask(client: &clickhouse::Client, table: &str, key: &str, truth: GroundTruth) -> Result<Proof> {
        let query = client
            .query("SELECT count(), uniqExact({key:Identifier}) FROM {table:Identifier}")
            .param("key", key)
            .param("table", table);
        let (rows, distinct_keys) = query
            .fetch_one::<(u64, u64)>()
            .await
            .map_err(|error| Error::stop("demo_proof", format!("cannot ask ClickHouse about {table}: {error}")))?;
        Ok(Proof { table: table.to_owned(), key: key.to_owned(), truth, rows, distinct_keys })
    }

    /// Every key that went in is there, once.
    pub fn holds(&self) -> bool {
        self.rows == self.truth.distinct_keys && self.distinct_keys == self.truth.distinct_keys
    }

    pub fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Proof { table, key, truth, rows, distinct_keys } = self;
        writeln!(out, "\nClickHouse says: SELECT count(), uniqExact({key}) FROM {table}")?;
        let lines = [
            ("rows", *rows),
            ("distinct keys", *distinct_keys),
            ("distinct keys produced", truth.distinct_keys),
            ("rows of a plain insert", truth.records),
            ("duplicates kept out", truth.records.saturating_sub(*rows)),
        ];
        for (name, number) in lines {
            writeln!(out, "  {name:<24} {:>14}", grouped(number))?;
        }
        match self.holds() {
            true => writeln!(out, "Every key is there exactly once."),
            false => writeln!(out, "NOT exactly once: please file this as a bug, with the seed."),
        }
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(3),
            produced: 12_500,
            read: 12_000,
            duplicates: 1_200,
            written: 10_800,
            lag: 500,
            records_per_second: 4000.0,
            latency_p50: Some(Duration::from_millis(1100)),
            ..Snapshot::default()
        }
    }

    #[test]
    fn without_a_terminal_every_look_is_one_plain_line() {
        let mut out = Vec::new();
        LiveTable::new(&mut out, false).show(&snapshot()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "   3 s  produced 12500  read 12000  duplicates 1200 (10.0 %)  written 10800  lag 500  latency p50 1.10 s \
             p99 -\n"
        );
    }

    #[test]
    fn on_a_terminal_the_second_look_is_drawn_over_the_first() {
        let mut out = Vec::new();
        let mut table = LiveTable::new(&mut out, true);
        table.show(&snapshot()).unwrap();
        table.show(&snapshot()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 12);
        assert_eq!(text.matches("\x1b[6A").count(), 1);
        assert!(text.contains("duplicates dropped            1,200  10.0 %"), "{text}");
    }

    #[test]
    fn the_proof_holds_only_when_every_key_is_there_once() {
        let truth = GroundTruth { records: 110, distinct_keys: 100 };
        let proof = |rows, distinct_keys| Proof { table: "t".into(), key: "k".into(), truth, rows, distinct_keys };
        assert!(proof(100, 100).holds());
        assert!(!proof(101, 100).holds() && !proof(99, 99).holds() && !proof(100, 99).holds());
        let mut out = Vec::new();
        proof(100, 100).show(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("Every key is there exactly once.\n"));
    }
}
