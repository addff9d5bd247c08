//! What the demo shows while it runs: a live table.
//!
//! On a terminal the table is drawn over itself; elsewhere every look is one plain line, and one for the newest
//! aggregates where there are any. Writes to what it is given, reads no clock.

use super::proof::Aggregate;
use std::io::Write;
use std::time::Duration;

/// The numbers of one look.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    pub elapsed: Duration,
    pub produced: u64,
    pub read: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// `None` without a join.
    pub joined: Option<Joined>,
    pub written: u64,
    /// Records in Kafka that are not committed yet.
    pub lag: u64,
    pub records_per_second: f64,
    /// From the record's timestamp until ClickHouse had it; `None` before the first block.
    pub latency_p50: Option<Duration>,
    pub latency_p99: Option<Duration>,
    /// The generator is held back by the reader.
    pub waiting: bool,
    /// What ClickHouse has made of the rows so far, the newest first; empty without aggregates.
    pub aggregates: Vec<Aggregate>,
}

/// What became of a join's left rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    /// Those that found a match, of those decided.
    pub matched: u64,
    pub decided: u64,
    pub waiting: u64,
}

impl Joined {
    /// The share that found a match.
    pub fn rate(&self) -> f64 {
        if self.decided == 0 { 0.0 } else { self.matched as f64 / self.decided as f64 }
    }
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
        // Never fewer than before, or the last ones would stay.
        for _ in rows.len()..self.lines_drawn {
            writeln!(self.out, "\x1b[2K")?;
        }
        self.lines_drawn = rows.len().max(self.lines_drawn);
        Ok(())
    }
}

type Row = (String, String, String);

fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let held = if snapshot.waiting { "generator waits for the reader" } else { "" };
    let duplicates = format!("{:.1} %", snapshot.duplicate_share() * 100.0);
    let mut rows = vec![
        row("produced", grouped(snapshot.produced), held.to_owned()),
        row("read", grouped(snapshot.read), format!("{} a second", grouped(snapshot.records_per_second as u64))),
        row("duplicates dropped", grouped(snapshot.duplicates), duplicates),
    ];
    rows.extend(snapshot.joined.map(|joined| {
        let rate = format!("join rate {:.1} %, {} waiting", joined.rate() * 100.0, grouped(joined.waiting));
        row("joined", grouped(joined.matched), rate)
    }));
    rows.extend([
        row("written", grouped(snapshot.written), format!("{} dead letters", grouped(snapshot.dead_letters))),
        row("lag", grouped(snapshot.lag), "records".to_owned()),
        row("latency", latency(snapshot.latency_p50), format!("p99 {}", latency(snapshot.latency_p99))),
    ]);
    rows.extend(snapshot.aggregates.iter().map(|aggregate| {
        let Aggregate { at, of, many, much } = aggregate;
        row(&format!("{at} {of}"), grouped(*many), format!("revenue {much}"))
    }));
    rows
}

fn row(name: &str, value: String, note: String) -> Row {
    (name.to_owned(), value, note)
}

fn plain_line(snapshot: &Snapshot) -> String {
    let joined = snapshot.joined.map_or(String::new(), |joined| {
        format!("  join rate {:.1} % ({} waiting)", joined.rate() * 100.0, joined.waiting)
    });
    let mut line = format!(
        "{:>4} s  produced {}  read {}  duplicates {} ({:.1} %){joined}  written {}  lag {}  latency p50 {} p99 {}",
        snapshot.elapsed.as_secs(),
        snapshot.produced,
        snapshot.read,
        snapshot.duplicates,
        snapshot.duplicate_share() * 100.0,
        snapshot.written,
        snapshot.lag,
        latency(snapshot.latency_p50),
        latency(snapshot.latency_p99),
    );
    let Some(newest) = snapshot.aggregates.first() else { return line };
    let of_newest = snapshot.aggregates.iter().filter(|aggregate| aggregate.at == newest.at);
    let told: Vec<String> = of_newest.map(|Aggregate { of, many, much, .. }| format!("{of} {many} ({much})")).collect();
    line += &format!("\n        {} {}", newest.at, told.join(", "));
    line
}

fn latency(value: Option<Duration>) -> String {
    value.map_or("-".to_owned(), |duration| format!("{:.2} s", duration.as_secs_f64()))
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
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

    fn with_join_and_aggregates(minutes: &[&str]) -> Snapshot {
        let aggregate = |at: &&str| {
            let of = |of: &str| Aggregate { at: (*at).into(), of: of.into(), many: 1200, much: "99.50".into() };
            [of("DE"), of("FR")]
        };
        Snapshot {
            joined: Some(Joined { matched: 970, decided: 1000, waiting: 12 }),
            aggregates: minutes.iter().flat_map(aggregate).collect(),
            ..snapshot()
        }
    }

    #[test]
    fn a_join_has_its_rate_and_aggregates_their_newest_minute_in_a_line_of_their_own() {
        let mut out = Vec::new();
        LiveTable::new(&mut out, false).show(&with_join_and_aggregates(&["10:31", "10:30"])).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("  join rate 97.0 % (12 waiting)  written"), "{text}");
        assert!(text.ends_with("\n        10:31 DE 1200 (99.50), FR 1200 (99.50)\n"), "{text}");
    }

    #[test]
    fn aggregates_that_become_fewer_leave_nothing_behind() {
        let mut out = Vec::new();
        let mut table = LiveTable::new(&mut out, true);
        table.show(&with_join_and_aggregates(&["10:31", "10:30"])).unwrap();
        table.show(&with_join_and_aggregates(&["10:32"])).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 22, "eleven lines, twice");
        assert!(text.ends_with("10:32 FR                      1,200  revenue 99.50\n\x1b[2K\n\x1b[2K\n"), "{text:?}");
        assert!(text.contains("joined                          970  join rate 97.0 %, 12 waiting"), "{text:?}");
    }
}
