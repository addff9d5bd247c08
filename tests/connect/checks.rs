//! Bad surroundings, each with the message that names them.

use crate::stage::{ENGINE, Stage};
use crate::support::clickhouse::ClickHouse;
use crate::support::free_port;
use crate::support::kafka::TestRecord;
use crate::support::standin::{Standin, Told};

fn has(findings: &[String], wanted: &str) -> bool {
    findings.iter().any(|finding| finding.contains(wanted))
}

#[track_caller]
fn says(stage: &Stage, wanted: &[&str]) {
    let ended = stage.check();
    let findings = ended.findings();
    for wanted in wanted {
        assert!(has(&findings, wanted), "{wanted}\n{findings:#?}\n{}", ended.err);
    }
}

#[test]
fn what_fits_is_good() {
    let stage = Stage::new("fits");
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    let ended = stage.check();
    assert_eq!((ended.code, ended.findings()), (0, vec![]));
}

#[test]
fn a_missing_topic_and_a_missing_table_are_told_together_with_their_places() {
    let stage = Stage::without_topic("nothing_there");
    let ended = stage.check();
    let findings = ended.findings();
    assert_eq!(ended.code, 1);
    assert!(has(&findings, "missing_topic: topic `nothing_there` does not exist"), "{findings:#?}");
    assert!(has(&findings, "no_table: table `nothing_there`.`t` does not exist"), "{findings:#?}");
    let report = ended.json();
    let topic =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "missing_topic").unwrap();
    assert_eq!((&topic["line"], &topic["path"]), (&9.into(), &"pipelines[0].source.kafka.topic".into()));
}

#[test]
fn a_broker_that_does_not_answer_is_named() {
    let mut stage = Stage::new("no_broker");
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    let port = free_port();
    stage.source = format!("kafka: {{ topic: no_broker, brokers: [\"127.0.0.1:{port}\"] }}");
    says(&stage, &["kafka: "]);
    let report = stage.check().json();
    let finding =
        &report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "kafka").unwrap().clone();
    assert!(finding["help"].as_str().unwrap().contains(&port.to_string()), "{finding}");
}

#[test]
fn a_refused_login_says_what_to_look_at() {
    let mut stage = Stage::new("login");
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    stage.source = format!(
        "kafka: {{ topic: login, brokers: [\"{}\"], security: {{ sasl: {{ mechanism: plain, username: weir, \
         password: wrong }} }} }}",
        stage.kafka.sasl_brokers()
    );
    says(&stage, &["Kafka refuses the login: check `security.sasl`"]);
}

#[test]
fn a_clickhouse_that_does_not_answer_is_named() {
    let mut stage = Stage::new("no_clickhouse");
    stage.clickhouse_url = format!("http://127.0.0.1:{}", free_port());
    says(&stage, &["clickhouse: ClickHouse cannot be reached"]);
}

#[test]
fn a_wrong_password_of_clickhouse_says_what_to_look_at() {
    let server = ClickHouse::start_with_password("secret");
    let mut stage = Stage::new("password");
    stage.clickhouse_url = server.url();
    let ended = stage.check();
    let report = ended.json();
    let finding =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "clickhouse").unwrap().clone();
    assert_eq!(finding["help"], "check `user` and `password`", "{finding}");
}

#[test]
fn inputs_with_different_partition_counts_are_refused_with_the_numbers() {
    let mut stage = Stage::new("unequal");
    stage.kafka.create_topic("unequal_b", 3);
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    stage.source = "kafka: { topics: [unequal, unequal_b] }".to_owned();
    says(&stage, &["unequal_partitions: `unequal` has 2 partitions and `unequal_b` has 3"]);
}

#[test]
fn a_topic_that_forgets_before_the_window_is_warned_of() {
    let mut stage = Stage::without_topic("forgets");
    stage.kafka.create_topic_with("forgets", 1, &[("retention.ms", "3600000")]);
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    stage.rest = "steps: [ { dedup: { key: a, window: 1h } } ]".to_owned();
    let ended = stage.check();
    assert_eq!(ended.code, 0);
    let findings = ended.findings();
    assert!(
        has(
            &findings,
            "short_retention: `forgets` keeps its records for 1h, and twice the windows of the steps are 2h"
        ),
        "{findings:#?}"
    );
}

#[test]
fn topics_of_a_join_that_do_not_lie_together_are_warned_of() {
    let mut stage = Stage::new("apart");
    stage.kafka.create_topic("apart_b", 2);
    stage.sql(&format!("CREATE TABLE $.t (id Int64) {ENGINE}"));
    let record = |number: i32| TestRecord::new(format!(r#"{{"id": {number}}}"#)).key(number.to_string());
    stage.kafka.produce("apart", &(0..60).map(record).collect::<Vec<_>>());
    // Placed by hand, and under keys of its own.
    let apart = |number: i32| record(number).key(format!("other-{number}")).partition((number / 30) % 2);
    stage.kafka.produce("apart_b", &(0..60).map(apart).collect::<Vec<_>>());
    stage.rest =
        "steps: [ { join: { with: { kafka: { topic: apart_b } }, as: b, key: id, kind: interval, within: 1m } } ]"
            .to_owned();
    says(
        &stage,
        &[
            "partitioned_differently: the keys of `apart` lie in their partitions by murmur2",
            "join_key_is_not_the_record_key: 60 of 60 sampled records of `apart_b` have another record key",
        ],
    );
    let ended = stage.check();
    assert!(ended.code == 0 && !has(&ended.findings(), "of `apart` have"), "{:?}", ended.findings());
}

#[test]
fn engines_that_cannot_drop_a_repeated_block_are_refused_by_name() {
    let mut stage = Stage::new("engines");
    stage.sql("CREATE TABLE $.nothing (a Int64) ENGINE = Null");
    stage.sql("CREATE TABLE $.remembered (a Int64) ENGINE = Memory");
    stage.sql("CREATE TABLE $.buffered AS $.remembered ENGINE = Buffer($, remembered, 1, 10, 100, 10, 100, 10, 100)");
    // The engine has no cluster, and without one such a table can only be attached.
    let uuid = "61f0c404-5cb3-11e7-907b-a6006ad3dba0";
    stage.sql(&format!("ATTACH TABLE $.spread UUID '{uuid}' (a Int64) ENGINE = Distributed('all', '$', 'remembered')"));
    stage.sql("CREATE VIEW $.viewed AS SELECT a FROM $.remembered");
    stage.sql("CREATE MATERIALIZED VIEW $.made ENGINE = MergeTree ORDER BY a AS SELECT a FROM $.remembered");
    for (table, wanted) in [
        ("nothing", "has engine Null"),
        ("remembered", "has engine Memory"),
        ("buffered", "it loses the tokens of blocks"),
        ("spread", "it hands blocks on without their tokens"),
        ("viewed", "is a View: insert into its table"),
        ("made", "is a MaterializedView: insert into its table"),
    ] {
        stage.sink = format!("table: {table}");
        says(&stage, &[wanted]);
    }
}

#[test]
fn several_urls_with_a_plain_table_are_refused() {
    let mut stage = Stage::new("urls");
    stage.sql(&format!("CREATE TABLE $.t (a Int64) {ENGINE}"));
    let url = stage.clickhouse_url.clone();
    stage.sink = format!("table: t, urls: [\"{url}\", \"{url}/\"]");
    says(&stage, &["servers with plain tables share no window"]);
}

/// A table `t` of an engine that the real server of these tests does not have.
const REPLICATED: Told = Told {
    engine: "ReplicatedMergeTree",
    engine_rest: "('/t', 'r1') ORDER BY a SETTINGS index_granularity = 8192",
    // What a server of 25.10 or later forgets.
    replicated_window: (10_000, 3_600),
    tables: &[("t", &[("a", "Int64")])],
};

/// It remembers a week.
const GOOD: Told = Told { replicated_window: (100_000, 604_800), ..REPLICATED };

/// What `check` says of such tables on so many servers: exit code and findings.
fn told_by(name: &str, servers: &[Told]) -> (i32, Vec<String>) {
    let mut stage = Stage::new(name);
    let urls: Vec<String> = servers.iter().map(|told| Standin::start(*told)).collect();
    match &urls[..] {
        [url] => stage.clickhouse_url = url.clone(),
        _ => stage.sink = format!("table: t, urls: {urls:?}"),
    }
    let ended = stage.check();
    (ended.code, ended.findings())
}

#[test]
fn a_replicated_table_that_forgets_after_an_hour_is_refused_with_the_statement_that_mends_it() {
    let mut stage = Stage::new("forgetful");
    stage.clickhouse_url = Standin::start(REPLICATED);
    let ended = stage.check();
    let sentence = "short_window: `forgetful`.`t` remembers the last 10000 parts for 3600 s \
                    (replicated_deduplication_window, _seconds), and this pipeline needs 14400 for 604800 s: a block \
                    repeated after an outage would come twice; mend it, or set `delivery: at_least_once`";
    assert_eq!((ended.code, ended.findings()), (1, vec![sentence.to_owned()]));
    let alter = "ALTER TABLE `forgetful`.`t` MODIFY SETTING replicated_deduplication_window = 14400, \
                 replicated_deduplication_window_seconds = 604800";
    assert!(ended.json()["findings"].to_string().contains(alter), "{}", ended.out);
    // It is refused at the start, too.
    let ran = stage.run_until_end();
    assert!(ran.code == 1 && ran.err.contains(alter), "{}", ran.err);
}

#[test]
fn a_table_may_be_mended_where_its_server_forgets() {
    let settings = "ORDER BY a SETTINGS replicated_deduplication_window = 100000, \
                    replicated_deduplication_window_seconds = 604800";
    assert_eq!(told_by("mended", &[Told { engine_rest: settings, ..REPLICATED }]), (0, vec![]));
    let few = Told { replicated_window: (100, 604_800), ..REPLICATED };
    let (code, findings) = told_by("few", &[few]);
    assert!(code == 1 && has(&findings, "remembers the last 100 parts for 604800 s"), "{findings:#?}");
}

#[test]
fn replicated_and_shared_tables_on_several_urls_are_good() {
    let shared = Told { engine: "SharedReplacingMergeTree", ..GOOD };
    assert_eq!(told_by("several_replicated", &[GOOD, GOOD]), (0, vec![]));
    assert_eq!(told_by("several_shared", &[shared, shared, shared]), (0, vec![]));
    let plain = Told {
        engine: "MergeTree",
        engine_rest: "ORDER BY a SETTINGS non_replicated_deduplication_window = 10000",
        ..GOOD
    };
    let (code, findings) = told_by("several_plain", &[plain, plain]);
    assert!(code == 1 && has(&findings, "is a plain MergeTree, and there are 2 urls"), "{findings:#?}");
}

#[test]
fn a_distributed_table_is_refused_with_what_to_do() {
    let distributed = Told { engine: "Distributed", engine_rest: "('cluster', 'db', 'behind', rand())", ..GOOD };
    let (code, findings) = told_by("distributed", &[distributed]);
    let sentence = "unfit_engine: `distributed`.`t` has engine Distributed, and exactly once needs a MergeTree: it \
                    hands blocks on without their tokens: insert into the table behind it; or set `delivery: \
                    at_least_once`";
    assert_eq!((code, findings), (1, vec![sentence.to_owned()]));
}

#[test]
fn a_type_that_cannot_be_written_and_a_misspelt_column_are_named() {
    let mut stage = Stage::new("types");
    stage.sql(&format!("CREATE TABLE $.t (good Int64, odd Variant(String, UInt64)) {ENGINE}"));
    stage.sink = "table: t, columns: { goood: a }".to_owned();
    says(
        &stage,
        &[
            "unsupported_type: column `odd` of `t`",
            "unknown_column: `t` has no column `goood`, which `columns` names (did you mean `good`?)",
        ],
    );
}

#[test]
fn every_type_that_is_not_written_is_refused_by_its_name() {
    let mut stage = Stage::new("refused_types");
    stage.sink = "table: t".to_owned();
    let types = [
        "Variant(String, UInt64)",
        "Dynamic",
        "Time",
        "Time64(3)",
        "AggregateFunction(sum, UInt64)",
        "BFloat16",
        "IntervalDay",
        "Point",
        "Ring",
        "LineString",
        "MultiLineString",
        "Polygon",
        "MultiPolygon",
        "Geometry",
        "QBit(Float32, 8)",
    ];
    let columns: Vec<String> =
        types.iter().enumerate().map(|(at, of)| format!("c{at} {of}, in{at} Array({of})")).collect();
    stage.sql(&format!("CREATE TABLE $.t (a Int64, {}) {ENGINE}", columns.join(", ")));
    let sentences: Vec<String> = types
        .iter()
        .enumerate()
        .flat_map(|(at, of)| {
            let name = of.split('(').next().unwrap();
            [("c", of.to_string()), ("in", format!("Array({of})"))].map(|(column, of)| {
                format!("unsupported_type: column `{column}{at}` of `t`: type `{of}` is not supported: weir does not write {name}")
            })
        })
        .collect();
    says(&stage, &sentences.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn settings_units_and_defaults_that_cannot_do_what_they_say_are_found() {
    let mut stage = Stage::new("cannot");
    stage.sql(&format!("CREATE TABLE $.t (a Int64, at Nullable(DateTime) DEFAULT now()) {ENGINE}"));
    stage.sink = "table: t, settings: { insert_quorm: 2 }, columns: { a: { path: a, unit: ms } }".to_owned();
    says(
        &stage,
        &[
            "has no setting `insert_quorm` (did you mean `insert_quorum`?)",
            "unfit_unit: column `a` of `t` is Int64: `unit` is for dates and times: leave it out",
            "varying_default: column `at` of `t` is Nullable(DateTime) DEFAULT now(), which differs from row to row",
            "ALTER TABLE `cannot`.`t` MODIFY COLUMN `at` DateTime DEFAULT now()",
        ],
    );
    // A start says the same, and stops.
    let ran = stage.run_until_end();
    assert!(ran.code == 1 && ran.err.contains("no setting `insert_quorm`"), "{}", ran.err);
}

#[test]
fn columns_that_nothing_fills_and_fields_without_a_column_are_noted() {
    let mut stage = Stage::new("fit");
    stage.sql(&format!("CREATE TABLE $.t (a Int64, never String) {ENGINE}"));
    stage.produce(&[r#"{"a":1,"spare":2}"#]);
    says(&stage, &["none of the 1 sampled records fills `never`", "no column of `t` takes `spare`"]);
    stage.rest = "steps: [ { select: { a: a } } ]".to_owned();
    says(&stage, &["nothing fills `never` of `t`: the select has no such field"]);
}

#[test]
fn fix_runs_what_it_shows_and_looks_again() {
    let mut stage = Stage::new("mends");
    stage.sql("CREATE TABLE $.t (a Int64) ENGINE = MergeTree ORDER BY tuple()");
    stage.sql("CREATE TABLE $.sums (a Int64) ENGINE = SummingMergeTree ORDER BY a");
    stage.sql("CREATE MATERIALIZED VIEW $.mv TO $.sums AS SELECT a FROM $.t");
    stage.rest = "dead_letters: { clickhouse: { table: broken } }".to_owned();
    let before = stage.check();
    let findings = before.findings();
    assert_eq!((before.code, findings.len()), (1, 3), "{findings:#?}");
    assert!(has(&findings, "no_window: `mends`.`t` does not drop repeated blocks"), "{findings:#?}");
    assert!(has(&findings, "no_window: `mends`.`sums` (the target of materialized view mends.mv)"), "{findings:#?}");
    assert!(has(&findings, "the table `broken` for dead letters does not exist"), "{findings:#?}");

    let asked = stage.weir(&["check", "--connect", "--fix"]);
    assert_eq!(asked.code, 1, "no answer is no");
    assert!(asked.err.contains("run them? [y/N]"), "{}", asked.err);
    assert_eq!(stage.check().findings().len(), 3);

    let fixed = stage.weir(&["check", "--connect", "--fix", "--yes", "--format", "json"]);
    assert_eq!((fixed.code, fixed.findings()), (0, vec![]), "{}", fixed.err);
    assert_eq!(fixed.json()["fixed"].as_array().unwrap().len(), 3);
    assert_eq!(stage.sql("EXISTS TABLE $.broken"), "1");
}

#[test]
fn explain_asks_for_partitions_and_the_exact_insert() {
    let mut stage = Stage::new("explained");
    stage.sql(&format!("CREATE TABLE $.t (a Int64, b String, c String MATERIALIZED b) {ENGINE}"));
    stage.rest = "steps: [ { dedup: { key: a, window: 24h } } ]".to_owned();
    let ended = stage.weir(&["explain", "--connect"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("INSERT INTO `explained`.`t` (`a`, `b`) FORMAT Native"), "{}", ended.out);
    assert!(ended.out.contains("async_insert=0") && ended.out.contains("2 partitions"), "{}", ended.out);
}
