//! The steps in words, those of right sides below their join: what passes, what meets, what is kept and for how long.

use super::{Words, bytes, counted};
use crate::config::plan::{
    DedupPlan, JoinLate, JoinPlan, Keep, KeyCast, KeyPlan, Late, Matching, MissingKey, StepPlan, TimePlan, TimeUnit,
};
use crate::runtime::inspect::duration;

/// What a key of the dedup table takes on disk: hash, time, and what RocksDB adds.
const KEY_BYTES: u64 = 40;
/// With the hash of the compared fields.
const CHANGES_KEY_BYTES: u64 = 60;
/// On disk, of a kept row of a join: measured with six short fields (docs/performance.md), its index included.
const JOIN_ROW_BYTES: u64 = 150;

impl Words<'_> {
    pub(super) fn steps(&mut self) {
        self.head("does");
        if self.pipeline.steps.is_empty() {
            self.line("nothing to the rows: every record becomes a row");
        }
        let pipeline = self.pipeline;
        for (place, step) in pipeline.steps.iter().enumerate() {
            self.step("", &place.to_string(), step, &pipeline.source.inputs);
        }
    }

    /// One step; `inputs` are those whose rows come to it.
    fn step(&mut self, indent: &str, name: &str, step: &StepPlan, inputs: &[usize]) {
        let below = format!("{indent}{}", " ".repeat(name.len() + 2));
        match step {
            StepPlan::Filter(text) => {
                self.line(format!("{indent}{name}  filter: keeps rows where {}; no state", text.text));
            }
            StepPlan::Select(fields) => {
                let names: Vec<String> = fields.iter().map(|(name, text)| format!("{name} = {}", text.text)).collect();
                self.line(format!("{indent}{name}  select: {}; no state", names.join(", ")));
            }
            StepPlan::Dedup(dedup) => {
                for (number, line) in dedup_lines(dedup, self.rate(inputs)).iter().enumerate() {
                    match number {
                        0 => self.line(format!("{indent}{name}  {line}")),
                        _ => self.line(format!("{below}{line}")),
                    }
                }
            }
            StepPlan::Join(join) => self.join(&below, name, join),
        }
    }

    fn join(&mut self, below: &str, name: &str, join: &JoinPlan) {
        let pipeline = self.pipeline;
        let topic = |input: &usize| pipeline.topics[*input].name.as_str();
        let topics: Vec<&str> = join.with.inputs.iter().map(topic).collect();
        let pairs = join.left_key.iter().zip(&join.right_key);
        let key: Vec<String> = pairs.map(|(left, right)| format!("{} = {}", key_text(left), key_text(right))).collect();
        self.line(format!("{name}  join: adds `{}` from {} by {}", join.name, topics.join(", "), key.join(", ")));
        self.line(format!("{below}its {}", time_text(&join.with.time)));
        for (inner, step) in join.steps.iter().enumerate() {
            self.step(below, &format!("{name}.{inner}"), step, &join.with.inputs);
        }
        let lines = [meets(join.matching), alone(join), late(join), limits(join), self.join_state(join)];
        lines.into_iter().for_each(|line| self.line(format!("{below}{line}")));
    }

    /// What a join keeps, and for how long.
    fn join_state(&self, join: &JoinPlan) -> String {
        let kept_ms = match join.matching {
            Matching::Table { .. } => {
                return format!(
                    "state: every key of the table × about {JOIN_ROW_BYTES} bytes of disk, and its newer versions"
                );
            }
            // A left row stays as long as right rows may come for it, and the other way round.
            Matching::Interval { before_ms, after_ms } => before_ms.max(after_ms),
            Matching::Temporal { within_ms, .. } => within_ms,
        };
        let kept_ms = kept_ms.saturating_add(join.with.time.lateness_ms.max(self.pipeline.source.time.lateness_ms));
        let rates = [&self.pipeline.source.inputs, &join.with.inputs].map(|inputs| self.rate(inputs));
        if rates == [None, None] {
            let size = bytes((kept_ms / 1000) as u64 * 1_000 * JOIN_ROW_BYTES);
            let seconds = kept_ms / 1000;
            return format!(
                "state: rows per second of both sides × {seconds} s × about {JOIN_ROW_BYTES} bytes ({size} at 1,000/s)"
            );
        }
        let rate: f64 = rates.iter().flatten().sum();
        let rows = rate * kept_ms as f64 / 1000.0;
        let size = bytes((rows * JOIN_ROW_BYTES as f64) as u64);
        let (rows, kept) = (counted(rows), duration(kept_ms));
        format!("state: about {rows} rows, {size} of disk: both sides, {rate:.0}/s, {kept} each")
    }

    /// Of these inputs together, as far as it is known.
    fn rate(&self, inputs: &[usize]) -> Option<f64> {
        self.seen.topics.as_ref().and_then(|topics| topics.rate_of(inputs))
    }
}

/// Which right rows a left one meets.
fn meets(matching: Matching) -> String {
    match matching {
        Matching::Interval { before_ms, after_ms } => format!(
            "every pair whose right row lies at most {} before and {} after the left one",
            signed_duration(before_ms),
            signed_duration(after_ms)
        ),
        Matching::Temporal { within_ms, exact: false } => {
            let within = duration(within_ms);
            format!(
                "each left row once: with the newest right row at or before it, {within} back at most, at once; where there \
                 is none, with the oldest after it, {within} on at most; else it waits for the first that comes"
            )
        }
        Matching::Temporal { within_ms, exact: true } => format!(
            "each left row once: it waits until the watermark has passed it, then takes the newest right row at or before \
             it, {} back at most",
            duration(within_ms)
        ),
        Matching::Table { within_ms, exact: false, bootstrap } => format!(
            "each left row once: with the version of its key that is valid then, at once; older than every version, with \
             the oldest one; where its key has none, it waits for the first, {} at most{}",
            duration(within_ms),
            read_first(bootstrap)
        ),
        Matching::Table { exact: true, bootstrap, .. } => format!(
            "each left row once: it waits until the table's time has passed it, then takes the version of its key that is \
             valid then{}",
            read_first(bootstrap)
        ),
    }
}

fn read_first(bootstrap: bool) -> &'static str {
    if bootstrap { "; the table is read to its end before the first left row" } else { "" }
}

fn alone(join: &JoinPlan) -> String {
    let is_interval = matches!(join.matching, Matching::Interval { .. });
    let text = match (join.keeps_left, join.keeps_right) {
        (false, false) if is_interval => "a row that meets nobody is dropped",
        (false, false) => "a left row that meets nobody is dropped",
        (true, false) => "a left row that meets nobody is sent alone",
        (false, true) => "a right row that meets nobody is sent alone",
        (true, true) => "a row that meets nobody is sent alone",
    };
    text.to_owned()
}

fn late(join: &JoinPlan) -> String {
    // The rows of a table are never late.
    let row = if is_table(join) { "a left row" } else { "a row" };
    match join.late {
        JoinLate::Join => {
            format!("{row} that is late (`late`) still meets who is kept, and is not kept itself; counted")
        }
        JoinLate::Drop => format!("{row} that is late (`late`) is dropped; counted"),
        JoinLate::DeadLetter => format!("{row} that is late (`late`) is a dead letter; counted"),
    }
}

fn limits(join: &JoinPlan) -> String {
    let rows = join.rows_per_key_max;
    match is_table(join) {
        true => format!(
            "at most {rows} rows of a key wait, and {rows} versions of it are kept; more are dead letters \
             (`max_rows_per_key`)"
        ),
        false => format!(
            "at most {rows} rows of a key and side are kept, more are dead letters (`max_rows_per_key`); an input more \
             than {} ahead of the slowest rests (`max_skew`)",
            duration(join.max_skew_ms)
        ),
    }
}

fn is_table(join: &JoinPlan) -> bool {
    matches!(join.matching, Matching::Table { .. })
}

fn dedup_lines(dedup: &DedupPlan, rate: Option<f64>) -> Vec<String> {
    let key: Vec<String> = dedup.key.iter().map(key_text).collect();
    let window = dedup.window_ms.map_or("for ever".to_owned(), |ms| format!("within {}", duration(ms)));
    let passes = match &dedup.keep {
        Keep::First => "the first record of a key passes".to_owned(),
        Keep::Latest => "a record passes that is not older than the last one of its key that passed".to_owned(),
        Keep::Changes(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.text.as_str()).collect();
            format!("a record passes that differs from the last one of its key in {}", names.join(", "))
        }
    };
    let mut lines = vec![format!("dedup on {}: {passes}, {window}", key.join(" + "))];
    if dedup.renew {
        lines.push("duplicates extend the window".to_owned());
    }
    let missing = match dedup.missing_key {
        MissingKey::DeadLetter => "is a dead letter",
        MissingKey::Pass => "passes",
        MissingKey::Drop => "is dropped",
    };
    let late = match (&dedup.keep, dedup.late) {
        (Keep::First, Late::Pass) => "; one too late to be judged passes, counted",
        (Keep::First, Late::Drop) => "; one too late to be judged is dropped, counted",
        (Keep::First, Late::DeadLetter) => "; one too late to be judged is a dead letter",
        (_, Late::Pass) => "; one too late, of a key that is not remembered, passes, counted",
        (_, Late::Drop) => "; one too late, of a key that is not remembered, is dropped, counted",
        (_, Late::DeadLetter) => "; one too late, of a key that is not remembered, is a dead letter",
    };
    let late = if dedup.window_ms.is_none() { "" } else { late };
    lines.push(format!("a row without a key {missing}{late}"));
    lines.push(format!("state: {}", dedup_state(dedup, rate)));
    lines
}

fn dedup_state(dedup: &DedupPlan, rate: Option<f64>) -> String {
    let key_bytes = if matches!(dedup.keep, Keep::Changes(_)) { CHANGES_KEY_BYTES } else { KEY_BYTES };
    match (dedup.window_ms, rate) {
        (Some(window_ms), Some(rate)) => {
            let keys = rate * window_ms as f64 / 1000.0;
            format!(
                "at most {} keys, {} of disk, were every key of {rate:.0}/s a new one",
                counted(keys),
                bytes((keys * key_bytes as f64) as u64)
            )
        }
        (Some(window_ms), None) => format!(
            "new keys per second × {} s × {key_bytes} bytes of disk ({} at 1,000/s)",
            window_ms / 1000,
            bytes((window_ms / 1000) as u64 * 1_000 * key_bytes)
        ),
        (None, _) => format!("every key ever seen × {key_bytes} bytes of disk: it grows without an end"),
    }
}

/// The event time of a side.
pub(super) fn time_text(time: &TimePlan) -> String {
    let when = match &time.field {
        None => "the Kafka record timestamp".to_owned(),
        Some(field) => format!("`{}` ({})", field.text, unit_name(time.unit, &time.zone)),
    };
    format!(
        "event time: {when}; may be {} out of order, at most {} ahead; an input silent for {} is set aside",
        duration(time.lateness_ms),
        duration(time.max_future_ms),
        duration(time.idle_ms)
    )
}

fn unit_name(unit: TimeUnit, zone: &str) -> String {
    match unit {
        TimeUnit::Iso => format!("ISO 8601, {zone} where it has no offset"),
        TimeUnit::Seconds => "seconds".to_owned(),
        TimeUnit::Millis => "milliseconds".to_owned(),
        TimeUnit::Micros => "microseconds".to_owned(),
        TimeUnit::Nanos => "nanoseconds".to_owned(),
    }
}

/// A bound of an interval may lie on the other side.
fn signed_duration(ms: i64) -> String {
    if ms < 0 { format!("-{}", duration(ms.saturating_neg())) } else { duration(ms) }
}

fn key_text(key: &KeyPlan) -> String {
    let path = &key.path.text;
    match key.cast {
        None => format!("`{path}`"),
        Some(KeyCast::Decimal { precision, scale }) => format!("`{path}` as decimal({precision},{scale})"),
        Some(KeyCast::Int) => format!("`{path}` as int"),
        Some(KeyCast::Text) => format!("`{path}` as text"),
        Some(KeyCast::Bool) => format!("`{path}` as bool"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;
    use crate::runtime::facts::TopicFacts;

    #[test]
    fn a_dedup_is_estimated_by_the_records_that_come_to_it() {
        let text = "
version: 1
kafka: { brokers: [\"k:1\"] }
clickhouse: { url: \"http://c:1\" }
pipelines:
  - name: p
    source: { kafka: { topic: orders } }
    steps:
      - join:
          with: { kafka: { topic: payments }, steps: [ { dedup: { key: id, window: 1h } } ] }
          as: payment
          key: id
          kind: interval
          within: 1m
      - dedup: { key: id, window: 1h }
    sink: { clickhouse: { table: t } }
";
        let (plan, findings) = crate::config::parse(text, &|_| None);
        let plan = plan.unwrap_or_else(|| panic!("{findings:?}"));
        let rates = vec![Some(100.0), Some(900.0)];
        let topics = Some(TopicFacts { partitions: 4, records: 9, rates });
        let seen = Seen { topics, ..Seen::default() };
        let mut words = Words { plan: &plan, pipeline: &plan.pipelines[0], seen: &seen, text: String::new() };
        words.steps();
        let states: Vec<&str> = words.text.lines().filter_map(|line| line.trim().strip_prefix("state: ")).collect();
        assert_eq!(
            states,
            [
                "at most 3.2 million keys, 123.6 MiB of disk, were every key of 900/s a new one",
                "about 60000 rows, 8.6 MiB of disk: both sides, 1000/s, 1m each",
                "at most 360000 keys, 13.7 MiB of disk, were every key of 100/s a new one",
            ]
        );
    }
}
