//! From Kafka to the table: what weir costs beside a consumer that only reads.
//!
//! `make bench`, or `cargo bench --bench end_to_end`. A real broker with a topic of eight partitions; weir as a child
//! process with two workers, into (a) a table that accepts and discards and (b) the embedded ClickHouse; before,
//! between and after the rounds the same topic through a bare librdkafka consumer, because a shared machine is never
//! twice the same. Only the ratio of neighbours is worth comparing.
//!
//! `BENCH_EVENTS` (2,000,000), `BENCH_ROUNDS` (3), `BENCH_SINKS` (`discard,clickhouse`), `BENCH_SHAPES`
//! (`passthrough,dedup`), `BENCH_LARGE=1` (20 M distinct keys against 2 M as well), `BENCH_LATENCY_SECONDS` (30; 0:
//! without), `BENCH_LOG=1` (weir's log on stderr), `BENCH_WEIR` (another binary than the one just built).
//! `cargo bench --bench end_to_end -- stand` starts broker, topic and sink (a), writes configurations for both
//! shapes, says where, and waits: for profilers.

mod child;
mod measure;
mod report;
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
        ["bare", brokers, topic] => println!("{}", drain(brokers, topic)),
        ["produce", brokers, topic, from, count, ref rate @ ..] => {
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let range = number(from)..number(from) + number(count);
            println!("{}", traffic::produce(brokers, topic, range, rate.first().map(|rate| number(rate))));
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
    let mut report = Report { payload_bytes_mean: topic(&kafka, "events", events), ..Report::default() };
    let mut lines = lines(&kafka, "events", &url);
    measure_all(&mut lines, events, rounds, &mut report);

    if std::env::var_os("BENCH_LARGE").is_some_and(|value| value == "1") {
        let (small, large) = (records_of_distinct(2_000_000), records_of_distinct(20_000_000));
        let line = |name: &str, topic: &str| (name.to_owned(), Shape::Dedup, places(&kafka, topic, &url));
        topic(&kafka, "small", small);
        measure_all(&mut [line("dedup, 2 M keys", "small")], small, rounds, &mut report);
        topic(&kafka, "large", large);
        measure_all(&mut [line("dedup, 20 M keys", "large")], large, 1, &mut report);
    }
    let seconds = setting("BENCH_LATENCY_SECONDS", 30);
    if seconds > 0 {
        for shape in shapes() {
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

/// A line to measure: its name, what weir does, from where to where.
type Task = (String, Shape, Places);

/// Every shape on every sink.
fn lines(kafka: &Kafka, topic: &str, discard_url: &str) -> Vec<Task> {
    let sinks = std::env::var("BENCH_SINKS").unwrap_or_else(|_| "discard,clickhouse".to_owned());
    let mut lines = Vec::new();
    for sink in sinks.split(',') {
        let url = match sink {
            "discard" => discard_url.to_owned(),
            "clickhouse" => ClickHouse::shared().url(),
            other => panic!("BENCH_SINKS: there is no sink `{other}`; there are discard and clickhouse"),
        };
        lines.extend(shapes().map(|shape| (format!("{} → {sink}", shape.name()), shape, places(kafka, topic, &url))));
    }
    lines
}

fn shapes() -> impl Iterator<Item = Shape> {
    let wanted = std::env::var("BENCH_SHAPES").unwrap_or_else(|_| "passthrough,dedup".to_owned());
    [Shape::Passthrough, Shape::Dedup].into_iter().filter(move |shape| wanted.contains(shape.name()))
}

/// Rounds of all lines between runs of the bare consumer.
fn measure_all(lines: &mut [Task], events: u64, rounds: u64, report: &mut Report) {
    let Some((_, _, first)) = lines.first().cloned() else { return };
    let mut bares = vec![bare(&first, events)];
    let mut rounds_measured: Vec<Vec<Measured>> = Vec::new();
    for _ in 0..rounds {
        rounds_measured.push(lines.iter_mut().map(|line| run(line, events)).collect());
        bares.push(bare(&first, events));
    }
    for (place, (name, _, _)) in lines.iter().enumerate() {
        let runs = rounds_measured.iter().zip(bares.windows(2)).map(|(round, bares)| Run {
            measured: round[place].clone(),
            bare_per_cpu_second: (bares[0].per_cpu_second() + bares[1].per_cpu_second()) / 2.0,
        });
        report.lines.push(Line { name: name.clone(), runs: runs.collect() });
    }
    let runs = bares.iter().map(|bare| Run { measured: bare.clone(), bare_per_cpu_second: bare.per_cpu_second() });
    report.lines.push(Line { name: format!("bare consumer, `{}`", first.topic), runs: runs.collect() });
}

fn bare(places: &Places, events: u64) -> Measured {
    let measured = measure::bare(places);
    assert_eq!(measured.events, events, "the bare consumer reads all events");
    say("bare consumer", &measured);
    measured
}

fn run((name, shape, places): &mut Task, events: u64) -> Measured {
    let clickhouse = name.ends_with("clickhouse").then(ClickHouse::shared);
    if let Some(clickhouse) = clickhouse {
        clickhouse.query(&format!("DROP TABLE IF EXISTS {TABLE}"));
        clickhouse.query(&sink::create_table(TABLE));
    }
    let measured = measure::weir(*shape, places);
    say(name, &measured);
    let want = match shape {
        Shape::Passthrough => events,
        Shape::Dedup => traffic::distinct(events),
    };
    assert_eq!((measured.events, measured.written), (events, want), "events read and rows written by {name}");
    if let Some(clickhouse) = clickhouse {
        assert_eq!(clickhouse.count(&format!("SELECT count() FROM {TABLE}")), want, "rows in the table after {name}");
    }
    measured
}

fn say(name: &str, measured: &Measured) {
    let cost = &measured.cost;
    eprintln!(
        "{name:<28} {:>6.2} s wall {:>6.2} s cpu {:>5} MiB {:>9.0} events per CPU-second",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.memory_peak_bytes >> 20,
        measured.per_cpu_second()
    );
}

fn places(kafka: &Kafka, topic: &str, url: &str) -> Places {
    Places { brokers: kafka.brokers(), topic: topic.to_owned(), url: url.to_owned(), table: TABLE.to_owned() }
}

/// Creates and fills it; the mean payload.
fn topic(kafka: &Kafka, name: &str, events: u64) -> f64 {
    kafka.create_topic(name, PARTITIONS);
    let arguments = [&*kafka.brokers(), name, "0", &events.to_string()];
    let (mean, cost) = child::run("the producer", measure::own("produce", &arguments));
    eprintln!("{events} events in topic `{name}` after {:.0} s", cost.wall.as_secs_f64());
    mean.trim().parse().expect("the producer prints the mean")
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
    topic(&kafka, "events", events);
    let places = places(&kafka, "events", &url);
    println!("bare: {:?} bare {} events", std::env::current_exe().expect("it has a path"), places.brokers);
    for shape in shapes() {
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
