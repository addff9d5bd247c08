//! From Kafka to the table: what weir costs beside a consumer that only reads.
//!
//! `make bench`, or `cargo bench --bench end_to_end`. A real broker with a topic of eight partitions; weir as a child
//! process with two workers, into (a) a table that accepts and discards and (b) the embedded ClickHouse; before,
//! between and after the rounds the same topic through a bare librdkafka consumer, because a shared machine is never
//! twice the same. Only the ratio of neighbours is worth comparing.
//!
//! Joins read two topics of their own (`sides.rs`) into (a): orders and payments, half of the events each; and as many
//! visits as events with half as many users of a table. The bare consumer reads both topics, too.
//!
//! `BENCH_EVENTS` (2,000,000), `BENCH_ROUNDS` (3), `BENCH_SINKS` (`discard,clickhouse`), `BENCH_SHAPES`
//! (`passthrough,dedup,interval,interval-wide,temporal`), `BENCH_LARGE=1` (20 M distinct keys against 2 M as well, and a
//! table of ten times the users), `BENCH_LATENCY_SECONDS` (30; 0: without), `BENCH_LOG=1` (weir's log on stderr),
//! `BENCH_WEIR` (another binary than the one just built).
//! `cargo bench --bench end_to_end -- stand` starts broker, topics and sink (a), writes configurations for the
//! shapes, says where, and waits: for profilers.

mod child;
mod measure;
mod report;
mod sides;
mod sink;
#[path = "../../tests/support/mod.rs"]
mod support;
mod traffic;

use measure::{Measured, Places, Shape};
use report::{Line, Report, Run};
use std::path::Path;
use std::process::{Child, Stdio};
use support::clickhouse::ClickHouse;
use support::kafka::Kafka;
use traffic::{Filling, Traffic};
use weir::config::plan::{KafkaPlan, KafkaSecurity};
use weir::source::kafka::drain_bare;

const PARTITIONS: i32 = 8;
const TABLE: &str = "events";
const LATENCY_EVENTS_PER_SECOND: u64 = 10_000;
/// As much as a pipeline of eight partitions lets librdkafka fetch ahead.
const BARE_QUEUED_BYTES: u64 = 8 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sink", port] => sink::serve(port.parse().expect("a port")),
        ["bare", brokers, ref topics @ ..] => {
            println!("{}", topics.iter().map(|topic| drain(brokers, topic)).sum::<u64>());
        }
        ["produce", brokers, topic, traffic, users, count, ref rate @ ..] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let (traffic, records) = (Traffic::named(traffic), 0..number(count));
            let per_second = rate.first().map(|rate| number(rate));
            let filling = Filling { brokers, topic, traffic, records, per_second, users: number(users) };
            println!("{}", traffic::produce(filling));
        }
        ["stand"] => stand(),
        _ => bench(),
    }
}

fn drain(brokers: &str, topic: &str) -> u64 {
    let plan = KafkaPlan {
        brokers: vec![brokers.to_owned()],
        group: "bare".to_owned(),
        instance_id: None,
        security: KafkaSecurity::default(),
        librdkafka: Default::default(),
    };
    drain_bare(&plan, topic, BARE_QUEUED_BYTES).expect("the topic can be read").records
}

fn bench() {
    let (events, rounds) = (setting("BENCH_EVENTS", 2_000_000), setting("BENCH_ROUNDS", 3));
    let kafka = Kafka::start();
    let (_sink, url) = start_sink();
    let mut report = Report::default();
    if shapes().any(|shape| !shape.is_join()) {
        report.payload_bytes_mean = fill(&kafka, "events", Traffic::Events, events, 1);
        measure_all(&lines(&kafka, events, &url), rounds, &mut report);
    }
    for joins in [&[Shape::Interval, Shape::IntervalWide][..], &[Shape::Temporal]] {
        let wanted: Vec<Shape> = shapes().filter(|shape| joins.contains(shape)).collect();
        let Some(first) = wanted.first() else { continue };
        let both = Sides::of(*first, events);
        both.fill(&kafka);
        let line = |shape: &Shape| both.task(format!("{} → discard", shape.name()), *shape, &kafka, &url);
        measure_all(&wanted.iter().map(line).collect::<Vec<_>>(), rounds, &mut report);
    }
    if std::env::var_os("BENCH_LARGE").is_some_and(|value| value == "1") {
        large(&kafka, &url, events, rounds, &mut report);
    }
    let seconds = setting("BENCH_LATENCY_SECONDS", 30);
    if seconds > 0 {
        for shape in shapes().filter(|shape| !shape.is_join()) {
            let topic = format!("steady-{}", shape.name());
            kafka.create_topic(&topic, PARTITIONS);
            let quantiles = measure::latency(shape, &places(&kafka, &topic, &url), LATENCY_EVENTS_PER_SECOND, seconds);
            report.latencies.push((shape.name().to_owned(), LATENCY_EVENTS_PER_SECOND, quantiles));
        }
    }
    print!("{}", report.text());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    report.write(&folder).expect("the folder takes the report");
    println!("{}", folder.join("end_to_end.json").display());
}

/// Ten times the keys, as far as asked for.
fn large(kafka: &Kafka, url: &str, events: u64, rounds: u64, report: &mut Report) {
    if shapes().any(|shape| shape == Shape::Dedup) {
        for (name, keys, rounds) in [("2 M keys", 2_000_000, rounds), ("20 M keys", 20_000_000, 1)] {
            let (topic, events) = (format!("events-{keys}"), records_of_distinct(keys));
            fill(kafka, &topic, Traffic::Events, events, 1);
            let (places, written) = (places(kafka, &topic, url), traffic::distinct(events));
            let task = Task { name: format!("dedup, {name}"), shape: Shape::Dedup, places, events, written };
            measure_all(&[task], rounds, report);
        }
    }
    if shapes().any(|shape| shape == Shape::Temporal) {
        let few = Sides::of(Shape::Temporal, events);
        let many = Sides { right: ("users-large".to_owned(), Traffic::Users, 10 * few.right.2), ..few };
        let many = Sides { left: ("visits-large".to_owned(), Traffic::Visits, events), ..many };
        many.fill(kafka);
        let task = many.task("temporal, ten times the users".to_owned(), Shape::Temporal, kafka, url);
        measure_all(&[task], 1, report);
    }
}

/// The two topics of a join: name, what they hold, how many records.
struct Sides {
    left: (String, Traffic, u64),
    right: (String, Traffic, u64),
}

impl Sides {
    fn of(shape: Shape, events: u64) -> Sides {
        // Whole stretches of payments, or some would have no order.
        assert!(events.is_multiple_of(2 * sides::TURNED), "BENCH_EVENTS is a multiple of {}", 2 * sides::TURNED);
        let (left, right) = match shape {
            Shape::Temporal => ((Traffic::Visits, events), (Traffic::Users, events / 2)),
            _ => ((Traffic::Orders, events / 2), (Traffic::Payments, events / 2)),
        };
        let side = |(traffic, count): (Traffic, u64)| (traffic.name().to_owned(), traffic, count);
        Sides { left: side(left), right: side(right) }
    }

    fn fill(&self, kafka: &Kafka) {
        for (topic, traffic, count) in [&self.left, &self.right] {
            fill(kafka, topic, *traffic, *count, self.right.2);
        }
    }

    /// Every order has its payment, every visit its user: as many rows as the left side has.
    fn task(&self, name: String, shape: Shape, kafka: &Kafka, url: &str) -> Task {
        let places = Places { right: Some(self.right.0.clone()), ..places(kafka, &self.left.0, url) };
        Task { name, shape, places, events: self.left.2 + self.right.2, written: self.left.2 }
    }
}

/// A line to measure: what weir does, from where to where, and how many records and rows that are.
struct Task {
    name: String,
    shape: Shape,
    places: Places,
    events: u64,
    written: u64,
}

/// Every shape of one topic on every sink.
fn lines(kafka: &Kafka, events: u64, discard_url: &str) -> Vec<Task> {
    let sinks = std::env::var("BENCH_SINKS").unwrap_or_else(|_| "discard,clickhouse".to_owned());
    let mut lines = Vec::new();
    for sink in sinks.split(',') {
        let url = match sink {
            "discard" => discard_url.to_owned(),
            "clickhouse" => ClickHouse::shared().url(),
            other => panic!("BENCH_SINKS: there is no sink `{other}`; there are discard and clickhouse"),
        };
        lines.extend(shapes().filter(|shape| !shape.is_join()).map(|shape| {
            let written = if shape == Shape::Dedup { traffic::distinct(events) } else { events };
            let name = format!("{} → {sink}", shape.name());
            Task { name, shape, places: places(kafka, "events", &url), events, written }
        }));
    }
    lines
}

fn shapes() -> impl Iterator<Item = Shape> {
    let wanted = std::env::var("BENCH_SHAPES").ok();
    let is_wanted = move |shape: &Shape| {
        wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|name| name.trim() == shape.name()))
    };
    Shape::ALL.into_iter().filter(is_wanted)
}

/// Rounds of all lines between runs of the bare consumer, which reads what they read.
fn measure_all(lines: &[Task], rounds: u64, report: &mut Report) {
    let Some(first) = lines.first() else { return };
    let mut bares = vec![bare(first)];
    let mut rounds_measured: Vec<Vec<Measured>> = Vec::new();
    for _ in 0..rounds {
        rounds_measured.push(lines.iter().map(run).collect());
        bares.push(bare(first));
    }
    for (place, line) in lines.iter().enumerate() {
        let runs = rounds_measured.iter().zip(bares.windows(2)).map(|(round, bares)| Run {
            measured: round[place].clone(),
            bare_per_cpu_second: (bares[0].per_cpu_second() + bares[1].per_cpu_second()) / 2.0,
        });
        report.lines.push(Line { name: line.name.clone(), runs: runs.collect() });
    }
    let runs = bares.iter().map(|bare| Run { measured: bare.clone(), bare_per_cpu_second: bare.per_cpu_second() });
    let name = format!("bare consumer, {}", first.places.topics().join(" + "));
    report.lines.push(Line { name, runs: runs.collect() });
}

fn bare(task: &Task) -> Measured {
    let measured = measure::bare(&task.places);
    assert_eq!(measured.events, task.events, "the bare consumer reads all records");
    say("bare consumer", &measured);
    measured
}

fn run(task: &Task) -> Measured {
    let Task { name, shape, places, events, written } = task;
    let clickhouse = name.ends_with("clickhouse").then(ClickHouse::shared);
    if let Some(clickhouse) = clickhouse {
        clickhouse.query(&format!("DROP TABLE IF EXISTS {TABLE}"));
        clickhouse.query(&sink::create_events(TABLE));
    }
    let measured = measure::weir(*shape, places);
    say(name, &measured);
    assert_eq!((measured.events, measured.written), (*events, *written), "records read and rows written by {name}");
    if let Some(clickhouse) = clickhouse {
        let rows = clickhouse.count(&format!("SELECT count() FROM {TABLE}"));
        assert_eq!(rows, *written, "rows in the table after {name}");
    }
    measured
}

fn say(name: &str, measured: &Measured) {
    let cost = &measured.cost;
    eprintln!(
        "{name:<30} {:>6.2} s wall {:>6.2} s cpu {:>5} MiB, {:>5} MiB on disk {:>9.0} events per CPU-second",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.memory_peak_bytes >> 20,
        measured.state_bytes >> 20,
        measured.per_cpu_second()
    );
}

fn places(kafka: &Kafka, topic: &str, url: &str) -> Places {
    Places { brokers: kafka.brokers(), topic: topic.to_owned(), right: None, url: url.to_owned() }
}

/// Creates and fills a topic, where there are so many users; the mean payload.
fn fill(kafka: &Kafka, name: &str, traffic: Traffic, records: u64, users: u64) -> f64 {
    kafka.create_topic(name, PARTITIONS);
    let (count, users) = (records.to_string(), users.to_string());
    let arguments = [&*kafka.brokers(), name, traffic.name(), &users, &count];
    let (mean, cost) = child::run("the producer", measure::own("produce", &arguments));
    let mean = mean.trim().parse().expect("the producer prints the mean");
    eprintln!("{count} records of {mean:.0} bytes in topic `{name}` after {:.0} s", cost.wall.as_secs_f64());
    mean
}

fn records_of_distinct(keys: u64) -> u64 {
    keys * traffic::DUPLICATE_EVERY / (traffic::DUPLICATE_EVERY - 1)
}

/// The table that discards, in a process of its own.
fn start_sink() -> (SinkProcess, String) {
    let port = support::free_port();
    let sink = SinkProcess(child::start(measure::own("sink", &[&port.to_string()]), Stdio::null()));
    let url = format!("http://127.0.0.1:{port}");
    support::wait_for("the discarding sink", support::PATIENCE, || ureq::post(&url).send("SELECT 1").ok());
    (sink, url)
}

struct SinkProcess(Child);

impl Drop for SinkProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything but weir, until it is interrupted.
fn stand() {
    let events = setting("BENCH_EVENTS", 2_000_000);
    let kafka = Kafka::start();
    let (_sink, url) = start_sink();
    let mut filled: Vec<String> = Vec::new();
    for shape in shapes() {
        let places = match shape.is_join() {
            false => places(&kafka, "events", &url),
            true => Sides::of(shape, events).task(String::new(), shape, &kafka, &url).places,
        };
        if !filled.contains(&places.topic) {
            match shape.is_join() {
                false => _ = fill(&kafka, "events", Traffic::Events, events, 1),
                true => Sides::of(shape, events).fill(&kafka),
            }
            filled.push(places.topic.clone());
        }
        let own = std::env::current_exe().expect("it has a path");
        println!("bare: {own:?} bare {} {}", places.brokers, places.topics().join(" "));
        let folder = tempfile::Builder::new().prefix("weir-stand-").tempdir().expect("a folder").keep();
        let mut command = measure::weir_command(shape, &places, &folder, support::free_port());
        command.args(["run", "--until-end", "--format", "json"]);
        println!("{}: {command:?}; a further run needs a new `group` and `path`", shape.name());
    }
    loop {
        std::thread::park();
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`"))
}
