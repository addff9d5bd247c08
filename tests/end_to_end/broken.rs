//! Records that cannot be rows, one kind at a time: what becomes of each is read where a person would read it.

use crate::flow::Events;
use crate::oracle::{deduplicated, settle_with};
use crate::stage::{COLUMNS, Stage};
use crate::support::PATIENCE;
use crate::support::clickhouse::ClickHouse;
use crate::support::kafka::{Kafka, TestRecord};
use std::time::SystemTime;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

/// A record, and what its dead letter has to say.
struct Case {
    payload: Vec<u8>,
    /// Of the producer's clock; its own where that is `None`.
    timestamp_ms: Option<i64>,
    step: &'static str,
    reason: &'static str,
    says: &'static str,
}

fn case(payload: impl Into<Vec<u8>>, step: &'static str, reason: &'static str, says: &'static str) -> Case {
    Case { payload: payload.into(), timestamp_ms: None, step, reason, says }
}

impl Case {
    fn at(self, timestamp_ms: i64) -> Case {
        Case { timestamp_ms: Some(timestamp_ms), ..self }
    }
}

/// The topic of a stage takes any timestamp: whether to believe a producer's clock is weir's business here.
fn stage(name: &str, columns: &str) -> Stage {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    kafka.create_topic_with(name, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    clickhouse.query(&format!("CREATE DATABASE {name}"));
    let stage = Stage::bare(name, kafka, clickhouse);
    stage.create_table(clickhouse, columns);
    stage
}

/// Writes good records around each case, reads all, and compares: rows with the oracle, letters with the cases.
fn told(stage: &Stage, cases: &[Case]) {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut events = Events::new(61);
    for (number, case) in cases.iter().enumerate() {
        kafka.produce(&stage.name, &events.take(20));
        let record = TestRecord::new(case.payload.clone()).key(format!("case-{number}"));
        kafka.produce(&stage.name, &[TestRecord { timestamp_ms: case.timestamp_ms, ..record }]);
    }
    // The first ids once more: nothing of the above makes weir forget them.
    kafka.produce(&stage.name, &Events::new(61).take(20));
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let mut expected = deduplicated(&kafka.read_all(&stage.name), None);
    expected.retain(|row| row.id.starts_with("id-"));
    settle_with(clickhouse, stage, &expected, &mut []);
    let letters = stage.letters("a");
    assert_eq!(letters.len(), cases.len(), "{letters:#?}");
    for (number, (case, letter)) in cases.iter().zip(&letters).enumerate() {
        let of = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(of("key"), format!("case-{number}"), "{letter}");
        assert_eq!((of("step").as_str(), of("reason").as_str()), (case.step, case.reason), "{letter}");
        assert!(of("message").contains(case.says), "`{}` is not in: {}", case.says, of("message"));
        if let Ok(payload) = std::str::from_utf8(&case.payload) {
            assert_eq!(of("value"), payload, "the payload is kept as it was");
        }
    }
}

#[test]
fn broken_payloads_are_dead_letters_that_say_what_is_wrong_and_where() {
    let stage = Stage { source: "max_payload: 2KiB".to_owned(), ..stage("broken_payloads", COLUMNS) };
    let deep = format!(r#"{{"id":"deep","seq":1,"ts":1,"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let large = format!(r#"{{"id":"large","seq":1,"ts":1,"x":"{}"}}"#, "x".repeat(3000));
    let large_says = format!("the payload has {} bytes; max_payload is 2048", large.len());
    let large_says: &'static str = large_says.leak();
    told(
        &stage,
        &[
            case(r#"{"id":"cut"#, "source", "not_json", "broken at byte 10: the text ends inside a string"),
            case("", "source", "not_json", "broken at byte 0"),
            case("[1,2]", "source", "not_an_object", "JSON, but not an object"),
            case(deep, "source", "too_deep", "nested deeper than 128"),
            case(large, "source", "too_large", large_says),
            case(
                b"{\"id\":\"\xff\xfe\",\"seq\":1}",
                "source",
                "invalid_utf8",
                "byte 7: a byte sequence that is not UTF-8",
            ),
            case(r#"{"id":"\ud800","seq":1}"#, "source", "lone_surrogate", "a lone surrogate"),
            case(r#"{"id":"a","id":"b","seq":1}"#, "source", "duplicate_field", "the field `id` is given twice"),
            case(r#"{"id":"a","seq":NaN}"#, "source", "not_json", "NaN"),
            case(r#"{"id":"a","seq":-Infinity}"#, "source", "not_json", "-Infinity"),
            case(r#"{"seq":1,"ts":1}"#, "0", "missing_key", "the dedup key `id` is absent or null"),
        ],
    );
}

#[test]
fn numbers_beyond_their_column_are_dead_letters_that_name_it() {
    let stage = stage("beyond", &format!("{COLUMNS}, small UInt8, price Decimal(5, 2), at DateTime"));
    let row = |field: &str| format!(r#"{{"id":"beyond-{}","seq":1,"ts":1,{field}}}"#, field.len());
    told(
        &stage,
        &[
            case(
                r#"{"id":"beyond","seq":18446744073709551616,"ts":1}"#,
                "sink",
                "value_out_of_range",
                "column `seq` of `t` is UInt64, the record has 18446744073709551616 at `seq`",
            ),
            case(row(r#""small":256"#), "sink", "value_out_of_range", "column `small` of `t` is UInt8"),
            case(row(r#""small":-10"#), "sink", "value_out_of_range", "the record has -10 at `small`"),
            case(row(r#""small":1.25"#), "sink", "value_not_exact", "column `small`"),
            case(row(r#""small":1e400"#), "sink", "value_out_of_range", "column `small`"),
            case(row(r#""price":1000.00"#), "sink", "value_out_of_range", "column `price` of `t` is Decimal(5,2)"),
            case(row(r#""price":1.00500"#), "sink", "value_not_exact", "column `price`"),
            case(row(r#""at":4294967296"#), "sink", "value_out_of_range", "column `at` of `t` is DateTime"),
            case(row(r#""small":"seven""#), "sink", "value_does_not_fit", r#"the record has "seven" at `small`"#),
        ],
    );
}

#[test]
fn times_of_the_payload_and_of_the_producers_clock_in_the_future_are_dead_letters() {
    let stage = Stage { source: "time: { field: ts, unit: ms }".to_owned(), ..stage("future", COLUMNS) };
    let now_ms = now_ms();
    let row = |ts: i64| format!(r#"{{"id":"future-{ts}","seq":1,"ts":{ts}}}"#);
    let ahead = "is more than max_future (3600000 ms) ahead of the smaller of";
    told(
        &stage,
        &[
            case(row(now_ms + 3 * HOUR_MS), "source", "time_in_future", ahead),
            // A wrong clock in the producer backs the wrong time in the payload.
            case(row(now_ms + 240 * HOUR_MS), "source", "time_in_future", ahead).at(now_ms + 240 * HOUR_MS),
            // Right by the wall clock, and ahead of a producer whose clock is behind.
            case(row(now_ms), "source", "time_in_future", "(`ts`)").at(now_ms - 240 * HOUR_MS),
            case(r#"{"id":"none","seq":1}"#, "source", "no_time", "the time field `ts` is absent or null"),
            case(r#"{"id":"odd","seq":1,"ts":"noon"}"#, "source", "bad_time", "should be milliseconds since 1970"),
        ],
    );
}

#[test]
fn a_producers_clock_in_the_future_is_a_dead_letter_where_it_is_the_event_time() {
    let stage = stage("future_clock", COLUMNS);
    let in_future = case(r#"{"id":"late","seq":1,"ts":1}"#, "source", "time_in_future", "(`Kafka timestamp`)");
    told(&stage, &[in_future.at(now_ms() + 240 * HOUR_MS)]);
}

#[test]
fn dead_letters_in_a_topic_carry_where_and_why_across_kills_and_what_is_too_large_stays_here() {
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::shared());
    let mut stage = Stage::new("letters_topic", kafka, clickhouse, 2);
    kafka.create_topic_with("letters_topic_dead", 1, &[("max.message.bytes", "5000")]);
    stage.lines.push("dead_letters: { kafka: { topic: letters_topic_dead } }".to_owned());
    let mut events = Events::new(62);
    let mut broken = Vec::new();
    for round in 0..5 {
        for number in 0..20 {
            kafka.produce(&stage.name, &events.take(10));
            let record = TestRecord::new(format!("{{broken {round}")).key(format!("key-{round}-{number}"));
            let headers = vec![("trace".to_owned(), format!("{number}").into_bytes())];
            broken.push(TestRecord { headers, ..record });
            kafka.produce(&stage.name, &broken[broken.len() - 1..]);
        }
        let mut weir = stage.weir("a");
        if round > 0 {
            weir.wait_for_metric("weir_blocks_acknowledged_total", "", 1.0);
        }
        weir.kill();
    }
    let large = TestRecord::new(format!("{{broken {}", "x".repeat(20_000))).key("large");
    kafka.produce(&stage.name, &[large]);
    let mut weir = stage.weir_with("a", &["--until-end"]);
    assert!(weir.wait(PATIENCE).success(), "{}", weir.log());
    let records = kafka.read_all(&stage.name);
    settle_with(clickhouse, &stage, &deduplicated(&records, None), &mut []);
    let letters = kafka.read_all("letters_topic_dead");
    let header = |letter: &TestRecord, name: &str| {
        let found = letter.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_else(|| panic!("no {name}"))
    };
    for record in &broken {
        let key = |record: &TestRecord| record.key.clone().unwrap();
        let source = records.iter().find(|there| key(&there.record) == key(record)).expect("it was produced");
        let of_it: Vec<_> = letters.iter().filter(|letter| key(&letter.record) == key(record)).collect();
        assert!(!of_it.is_empty(), "{source:?} has no letter");
        for letter in of_it {
            let letter = &letter.record;
            assert_eq!((&letter.payload, &letter.headers[..1]), (&record.payload, &record.headers[..]));
            assert_eq!(header(letter, "__connect.errors.topic"), stage.name);
            assert_eq!(header(letter, "__connect.errors.partition"), source.partition.to_string());
            assert_eq!(header(letter, "__connect.errors.offset"), source.offset.to_string());
            assert_eq!(header(letter, "__connect.errors.stage"), "source");
            assert_eq!(header(letter, "__connect.errors.class.name"), "not_json");
            assert!(header(letter, "__connect.errors.exception.message").contains("broken at byte"));
            assert_eq!(header(letter, "weir.pipeline"), stage.name);
            assert_eq!(header(letter, "weir.timestamp"), source.record.timestamp_ms.unwrap().to_string());
        }
    }
    let kept = stage.letters("a");
    assert_eq!((kept.len(), kept[0]["key"].as_str()), (1, Some("large")), "{kept:?}");
    println!("letters_topic: {} letters for {} broken records", letters.len(), broken.len());
}
