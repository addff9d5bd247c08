//! Every finding: its code, its place in the text, and the words that matter.

use super::*;
use crate::config::plan::SinkPlan;
use crate::error::Severity;

/// The document gives exactly one error or warning: of that code, with its caret under `under`, and with `part` in
/// its message or help.
#[track_caller]
fn says(text: &str, code: &str, under: &str, part: &str) {
    let (plan, findings) = parse(text);
    let findings: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Note).collect();
    let [finding] = findings.as_slice() else { panic!("not one finding: {findings:#?}\n{text}") };
    assert_eq!(finding.code, code, "{finding:#?}");
    let place = finding.place.expect("it has a place");
    let line: Vec<char> = text.lines().nth(place.line as usize - 1).expect("the line is there").chars().collect();
    let marked: String = line.iter().skip(place.column as usize - 1).take(place.len as usize).collect();
    assert_eq!(marked, under, "{finding:#?}");
    let said = format!("{} {}", finding.message, finding.help.clone().unwrap_or_default());
    assert!(said.contains(part), "{part} is not in: {said}");
    assert_eq!(plan.is_some(), finding.severity != Severity::Error);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_top_of_the_document() {
    says("htpp: {}", "unknown_field", "htpp", "did you mean `http`?");
    says("pipeline: []", "unknown_field", "pipeline", "did you mean `pipelines`?");
    says("banana: 1", "unknown_field", "banana", "takes `version`");
    says("version:1", "wrong_type", "version:1", "this is text");
    says("{ version:1 }", "unknown_field", "version:1", "a blank stands behind the colon: `version: …`");
    says("window: 5s", "unknown_field", "window", "belongs in `pipelines[].steps[].dedup.window`");
    says("version: 2", "out_of_range", "2", "takes 1 to 1");
    says("version: one", "wrong_type", "one", "takes a whole number");
    says("version: \"1\"", "wrong_type", "\"1\"", "takes a whole number");
    says("[]", "wrong_type", "[", "this is a list");
    says("a text", "wrong_type", "a text", "this is text");
    says("version: 1\nversion: 1", "duplicate_key", "version", "line 1");
    says("{ version: 1, http: {}, version: 1 }", "duplicate_key", "version", "line 1");
    says("http: { writes: nobody, \"writes\": anyone }", "duplicate_key", "\"writes\"", "written twice");
    says("pipelines: {}", "wrong_type", "{", "takes a list");
    says("pipelines: [5]", "wrong_type", "5", "this is a number");
    says("a: [", "syntax", "[", "not YAML");
}

#[test]
fn state_http_and_runtime() {
    says("state: { rocksdb: { path: '' } }", "empty", "''", "`path` is empty");
    says("state: { redis: { url: x } }", "not_yet", "redis", "does not have state in Redis yet");
    says("state: { retain_left: 5 }", "bad_duration", "5", "`5s`, `5m`, `5h`");
    says("state: { retain_left: -5s }", "out_of_range", "-5s", "not negative");
    says("state: { retain_left: forever }", "bad_duration", "forever", "not possible here");
    says("http: { listen: 8080 }", "wrong_type", "8080", "in quotes it is text: \"8080\"");
    says("http: { listen: localhost }", "bad_address", "localhost", "127.0.0.1:8080");
    says("http: { listen: 'h:99999' }", "bad_address", "'h:99999'", "an address and a port");
    says("http: { writes: everyone }", "unknown_word", "everyone", "`anyone` or `nobody`");
    says("http: { writes: token }", "missing_field", "token", "`writes: token` needs `token`");
    let open = format!("http: {{ writes: anyone }}\n{}", with_source(SOURCE));
    says(&open, "open_to_all", "anyone", "discard blocks");
    says("http: { token: hunter2, hosts: [5] }", "wrong_type", "5", "`hosts` takes text");
    says("http: { token: [hunter2] }", "wrong_type", "[", "this is a list");
    says("http: { token: 123 }", "wrong_type", "123", "takes text, this is a number");
    says("runtime: { workers: 0 }", "out_of_range", "0", "1 to 1024");
    says("runtime: { workers: -1 }", "wrong_type", "-1", "whole number");
    says("runtime: { workers: 2.5 }", "wrong_type", "2.5", "whole number");
    says("runtime: { memory_limit: 4G }", "bad_size", "4G", "`4GiB`");
    says("runtime: { memory_limit: 1MiB }", "out_of_range", "1MiB", "takes 64MiB to");
}

#[test]
fn a_pipeline() {
    let minimal = "kafka: { brokers: k }\nclickhouse: { url: http://c }\npipelines:\n";
    let pipeline = |text: &str| format!("{minimal}  - {text}\n");
    let sink = "sink: { clickhouse: { table: t } }";
    says(&pipeline(&format!("{{ source: {{ {SOURCE} }}, {sink} }}")), "missing_field", "{", "needs `name`");
    says(&pipeline(&format!("{{ name: a, {sink} }}")), "missing_field", "{", "needs `source`");
    says(&pipeline(&format!("{{ name: a, source: {{ {SOURCE} }} }}")), "missing_field", "{", "needs `sink`");
    says(&pipeline(&format!("{{ name: , source: {{ {SOURCE} }}, {sink} }}")), "missing_field", "name", "has no value");
    for name in ["a b", "a/b", "../a", ".a", "-a", "ä", "a.", "a\\b"] {
        let text = pipeline(&format!("{{ name: '{name}', source: {{ {SOURCE} }}, {sink} }}"));
        says(&text, "bad_name", &format!("'{name}'"), "letters a to z, digits");
    }
    let long = "a".repeat(101);
    says(&pipeline(&format!("{{ name: {long}, source: {{ {SOURCE} }}, {sink} }}")), "bad_name", &long, "at most 100");
    says(&with_rest("delivery: exactly-once"), "unknown_word", "exactly-once", "did you mean `exactly_once`?");
    says(&with_rest("on_gap: stop"), "unknown_word", "stop", "`halt` or `continue`");
    says(&with_rest("on_offset_reset: continue"), "unknown_word", "continue", "`follow` or `halt`");
    says(&with_rest("on_partition_growth: follow"), "unknown_word", "follow", "`halt` or `continue`");
    says(&with_rest("on_unclear: drop"), "unknown_word", "drop", "`halt` or `resend`");
    says(&with_rest("strict: maybe"), "wrong_type", "maybe", "true or false");
    says(&with_rest("keep: latest"), "unknown_field", "keep", "belongs in `pipelines[].steps[].dedup.keep`");
}

#[test]
fn pipelines_among_themselves() {
    let two = |a: &str, b: &str| {
        let one = |part: &str| format!("{{ {part}, sink: {{ clickhouse: {{ table: t }} }} }}");
        format!("kafka: {{ brokers: k }}\nclickhouse: {{ url: http://c }}\npipelines: [{},\n{}]", one(a), one(b))
    };
    let plain = |name: &str| format!("name: {name}, source: {{ {SOURCE} }}");
    let grouped =
        |name: &str, group: &str| format!("name: {name}, source: {{ kafka: {{ topic: t, group: {group} }} }}");
    says(&two(&plain("a"), &plain("a")), "shared_name", "a", "line 3");
    says(&two(&plain("a"), &plain("A")), "shared_name", "A", "two pipelines");
    says(&two(&grouped("a", "g"), &grouped("b", "g")), "shared_group", "g", "`a` and `b`");
    says(&two(&grouped("a", "weir-b"), &plain("b")), "shared_group", "weir-b", "consumer group `weir-b`");
    let top = two(&plain("a"), &plain("b")).replace("brokers: k", "brokers: k, group: g");
    says(&top, "shared_group", "g", "leave `group` out");
}

#[test]
fn the_connection_to_kafka() {
    let kafka = |fields: &str| format!("kafka: {{ {fields} }}");
    says(&kafka("brokers: []"), "empty", "[", "`brokers` is an empty list");
    says(&kafka("brokers: 'http://k:9092'"), "bad_address", "'http://k:9092'", "without `…://`");
    says(&kafka("brokers: ['k:x']"), "bad_address", "'k:x'", "`host:port`");
    says(&kafka("brokers: 'u:hunter2@k:1'"), "bad_address", "'u:hunter2@k:1'", "`host:port`");
    says(&kafka("brokers: 9092"), "wrong_type", "9092", "takes text");
    says(&kafka("broker: k"), "unknown_field", "broker", "did you mean `brokers`?");
    says(&kafka("topic: a, topics: [b]"), "several_choices", "topics", "write one of them");
    says(&kafka("topics: []"), "empty", "[", "empty list");
    says(
        &kafka("security: { sasl: { mechanism: oauth, username: u, password: hunter2 }, tls: {} }"),
        "unknown_word",
        "oauth",
        "`plain`",
    );
    says(
        &kafka("security: { sasl: { username: u, password: hunter2 } }"),
        "missing_field",
        "sasl",
        "needs `mechanism`",
    );
    says(
        &kafka("security: { sasl: { mechanism: scram-sha-256, username: u } }"),
        "missing_field",
        "sasl",
        "needs `password`",
    );
    let missing = "clickhouse: { url: http://c }\npipelines: [{ name: p, source: { kafka: { topic: t } }, sink: { clickhouse: { table: t } } }]";
    says(missing, "missing_field", "source", "`brokers` is missing");
    says(&with_source("kafka: {}"), "missing_field", "source", "needs `topic`");
    says(&with_source("kafka: { topic: 'a b' }"), "bad_topic", "'a b'", "letters, digits");
    says(&with_source("kafka: { topic: '^a' }"), "bad_topic", "'^a'", "no topic");
    says(&with_source("kafka: { topics: [a, b, a] }"), "twice", "a", "listed twice");
    let tls = |fields: &str| with_source(&format!("kafka: {{ topic: t, security: {{ {fields} }} }}"));
    says(&tls("tls: { cert: c.pem }"), "missing_field", "tls", "`cert` needs `key`");
    says(&tls("tls: { key: c.pem }"), "missing_field", "tls", "`key` needs `cert`");
    says(&tls("tls: { skip_verification: true }"), "unverified", "true", "any server");
    says(&tls("sasl: { mechanism: plain, username: u, password: hunter2 }"), "clear_password", "sasl", "`tls: {}`");
}

#[test]
fn options_that_would_break_the_protocol() {
    for (option, part) in [
        ("group.id", "write `group` instead"),
        ("group.instance.id", "write `instance_id`"),
        ("bootstrap.servers", "write `brokers`"),
        ("metadata.broker.list", "write `brokers`"),
        ("auto.offset.reset", "write `start`"),
        ("enable.auto.commit", "offsets are committed only"),
        ("auto.commit.interval.ms", "offsets are committed only"),
        ("enable.auto.offset.store", "offsets are committed only"),
        ("isolation.level", "only committed records"),
        ("partition.assignment.strategy", "must stay together"),
        ("group.protocol", "must stay together"),
        ("enable.partition.eof", "counts the offsets itself"),
        ("allow.auto.create.topics", "never created"),
        ("plugin.library.paths", "foreign code"),
    ] {
        says(
            &with_source(&format!("kafka: {{ topic: t, librdkafka: {{ {option}: x }} }}")),
            "refused_option",
            option,
            part,
        );
    }
    let secured = "kafka: { topic: t, security: { tls: {} }, librdkafka: { ssl.ca.location: x } }";
    says(&with_source(secured), "refused_option", "ssl.ca.location", "set by `security`");
    for setting in [
        "async_insert",
        "insert_deduplicate",
        "insert_deduplication_token",
        "deduplicate_insert",
        "deduplicate_blocks_in_dependent_materialized_views",
        "max_insert_block_size",
        "min_insert_block_size_rows",
        "min_insert_block_size_bytes",
        "use_strict_insert_block_limits",
        "max_partitions_per_insert_block",
        "wait_end_of_query",
        "input_format_null_as_default",
        "input_format_defaults_for_omitted_fields",
        "input_format_native_allow_types_conversion",
        "materialized_views_ignore_errors",
        "max_insert_block_size_rows",
    ] {
        let text = with_sink(&format!("table: t, settings: {{ {setting}: 1 }}"));
        says(&text, "refused_option", setting, "exactly once depends on it");
    }
}

#[test]
fn the_source_and_its_times() {
    let source = |fields: &str| with_source(&format!("kafka: {{ topic: t }}, {fields}"));
    says(&source("start: begin"), "bad_start", "begin", "RFC 3339");
    says(&source("start: 2026-01-01"), "bad_start", "2026-01-01", "an offset or `Z`");
    says(&source("tombstones: keeep"), "unknown_word", "keeep", "did you mean `keep`?");
    says(&source("max_payload: 2GiB"), "out_of_range", "2GiB", "1KiB to 1GiB");
    says(&source("lateness: 5s"), "unknown_field", "lateness", "`pipelines[].source.time.lateness`");
    says(&source("time: ts"), "wrong_type", "ts", "takes a mapping");
    says(&source("time: { unit: ms }"), "missing_field", "ms", "`unit` needs `field`");
    says(&source("time: { zone: UTC }"), "missing_field", "UTC", "`zone` needs `field`");
    says(&source("time: { field: ts, unit: sec }"), "unknown_word", "sec", "`iso`, `s`, `ms`");
    says(
        &source("time: { field: ts, zone: Europe/Berln }"),
        "unknown_zone",
        "Europe/Berln",
        "did you mean `Europe/Berlin`?",
    );
    says(&source("time: { field: ts, unit: ms, zone: UTC }"), "unused", "UTC", "does nothing for numbers");
    says(&source("time: { field: ts, idle: 0s }"), "out_of_range", "0s", "more than nothing");
    says(&source("time: { lateness: 5 seconds }"), "bad_duration", "5 seconds", "did you mean `5s`?");
    says(&source("time: { max_future: 19s }"), "max_future", "19s", "twice the batch interval");
    says(&with_sink("table: t, batch: { interval: 31m }"), "max_future", "31m", "3600s");
    for (path, part) in [
        ("a..b", "no part"),
        ("' a'", "without the spaces"),
        ("$.a", "without `$.`"),
        ("_headers", "_headers.name"),
        ("''", "user.name"),
        ("'`a'", "around a path"),
    ] {
        says(&source(&format!("time: {{ field: {path} }}")), "bad_path", path, part);
    }
}

#[test]
fn steps() {
    says(&document(SOURCE, "", SINK, "").replace("steps: [  ]", "steps: {}"), "wrong_type", "{", "takes a list");
    says(&with_steps("5"), "wrong_type", "5", "a mapping with one of");
    says(&with_steps("{}"), "missing_field", "{", "needs one of `filter`");
    says(&with_steps("{ filtr: x }"), "unknown_field", "filtr", "did you mean `filter`?");
    says(&with_steps("{ filter: a, dedup: { key: a, window: 1s } }"), "several_choices", "dedup", "takes one");
    says(&with_steps("{ filter: }"), "empty", "filter", "such as `amount > 0.0`");
    says(&with_steps("{ filter: ' ' }"), "empty", "' '", "takes an expression");
    says(&with_steps("{ filter: [a] }"), "wrong_type", "[", "this is a list");
    says(&with_steps("{ select: {} }"), "empty", "{", "names no field");
    says(&with_steps("{ select: { a: { b: c } } }"), "wrong_type", "{", "this is a mapping");
    says(&with_steps("{ repartition: { key: a } }"), "not_yet", "repartition", "does not have `repartition` yet");
    says(&with_steps("{ validate: { schema: a } }"), "not_yet", "validate", "does not have `validate` yet");
}

#[test]
fn a_pipeline_has_at_most_64_topics() {
    let topics = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(", ");
    let text = |count| document(&format!("kafka: {{ topics: [{}] }}", topics(count)), "", SINK, "");
    let codes = |count| parse(&text(count)).1.into_iter().map(|finding| finding.code).collect::<Vec<_>>();
    assert!(!codes(64).contains(&"too_many") && codes(65).contains(&"too_many"), "{:?} {:?}", codes(64), codes(65));
}

#[test]
fn a_join_is_read_whole() {
    let (_, findings) = parse(&with_steps(
        "{ join: { with: { kafka: { topik: b }, retain: 0s }, key: { left: a }, knd: temporal, type: outer, within: 1m, before: 1s } }",
    ));
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    for code in ["unknown_field", "out_of_range", "missing_field", "unknown_word", "several_choices"] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
    }
}

#[test]
fn dedup() {
    let dedup = |fields: &str| with_steps(&format!("{{ dedup: {{ {fields} }} }}"));
    says(&dedup("window: 1s"), "missing_field", "dedup", "needs `key`");
    says(&dedup("key: a"), "missing_field", "dedup", "needs `window`");
    says(&dedup("key: [], window: 1s"), "empty", "[", "empty list");
    says(&dedup("key: [a, b, a], window: 1s"), "twice", "a", "in the key twice");
    says(&dedup("key: 5, window: 1s"), "wrong_type", "5", "takes text");
    says(&dedup("key: { as: int }, window: 1s"), "missing_field", "key", "needs `path`");
    for (cast, part) in [
        ("integer", "`int`"),
        ("string", "`text`"),
        ("decimal", "precision and scale"),
        ("'decimal(5,9)'", "after the point"),
        ("'decimal(0,0)'", "1 to 76"),
        ("float", "one of"),
    ] {
        says(&dedup(&format!("key: {{ path: a, as: {cast} }}, window: 1s")), "unknown_word", cast, part);
    }
    says(&dedup("key: a, window: 0s"), "out_of_range", "0s", "more than nothing");
    says(&dedup("key: a, window: -1h"), "out_of_range", "-1h", "more than nothing");
    says(&dedup("key: a, window: 24"), "bad_duration", "24", "the unit is missing");
    says(&dedup("key: a, window: 1s, keep: newest"), "unknown_word", "newest", "`first`, `latest` or `changes`");
    says(&dedup("key: a, window: 1s, fields: [b]"), "unfit_option", "fields", "needs `keep: changes`");
    says(&dedup("key: a, window: 1s, keep: changes"), "missing_field", "changes", "needs `fields`");
    says(&dedup("key: a, window: 1s, keep: changes, fields: []"), "empty", "[", "empty list");
    says(&dedup("key: a, window: 1s, keep: latest, renew: true"), "unfit_option", "true", "needs `keep: first`");
    says(&dedup("key: a, window: 1s, missing_key: keep"), "unknown_word", "keep", "`dead_letter`, `pass` or `drop`");
    says(&dedup("key: a, window: 1s, late: deadletter"), "unknown_word", "deadletter", "did you mean `dead_letter`?");
    says(&dedup("key: a, window: 1s, renew: \"true\""), "wrong_type", "\"true\"", "true or false");
    says(&dedup("keys: a, key: b, window: 1s"), "unknown_field", "keys", "did you mean `key`?");
}

#[test]
fn late_is_for_every_keep_and_for_no_endless_window() {
    let notes = |fields: &str| {
        let (plan, findings) = parse(&with_steps(&format!("{{ dedup: {{ {fields} }} }}")));
        assert!(plan.is_some(), "{findings:#?}");
        let said = findings.into_iter().filter(|finding| finding.code != "local_dead_letters");
        said.map(|finding| (finding.code, finding.severity, finding.message)).collect::<Vec<_>>()
    };
    for keep in ["first", "latest", "changes, fields: [b]"] {
        // Also for these it decides about a late record of a key that is not remembered.
        assert_eq!(notes(&format!("key: a, window: 1s, keep: {keep}, late: drop")), []);
    }
    let said = notes("key: a, window: forever, renew: true, late: drop");
    let messages: Vec<&str> = said.iter().map(|(_, _, message)| message.as_str()).collect();
    assert!(said.iter().all(|(code, severity, _)| (*code, *severity) == ("unused", Severity::Note)), "{said:?}");
    assert!(messages[0].contains("cannot be extended") && messages[1].contains("no record is too late"), "{said:?}");
}

#[test]
fn the_sink() {
    says(
        &with_rest("x: 1").replace("clickhouse: { table: out }", "kafka: { topic: o }").replace("x: 1", ""),
        "not_yet",
        "kafka",
        "the Kafka sink",
    );
    says(&with_sink(""), "missing_field", "clickhouse", "needs `table`");
    says(&with_sink("tabel: x, table: y"), "unknown_field", "tabel", "did you mean `table`?");
    says(&with_sink("table: db.t"), "bad_table", "db.t", "`database: db` and `table: t`");
    says(&with_sink("table: t, url: http://a, urls: [http://b]"), "several_choices", "urls", "write one of them");
    says(&with_sink("table: t, urls: []"), "empty", "[", "empty list");
    for (url, part) in [
        ("localhost:8123", "begin with `http://`"),
        ("tcp://c:9000", "HTTP interface"),
        ("http://c:9000", "native protocol"),
        ("http://u:hunter2@c", "`user` and `password`"),
        ("http://c/?database=x", "`settings`"),
        ("'http://'", "comes a host"),
    ] {
        says(&with_sink(&format!("table: t, url: {url}")), "bad_url", url, part);
    }
    let nowhere = "kafka: { brokers: k }\npipelines: [{ name: p, source: { kafka: { topic: t } }, sink: { clickhouse: { table: t } } }]";
    says(nowhere, "missing_field", "clickhouse", "`url` is missing");
    let key = "url: https://c, table: t, tls: { cert: c.pem, key: k.pem, key_password: hunter2 }";
    says(&with_sink(key), "encrypted_key", "hunter2", "openssl pkey -in key.pem");
    let unset = plan(&with_sink(&key.replace("hunter2", "'${UNSET:-}'")));
    let SinkPlan::ClickHouse(sink) = &unset.pipelines[0].sink;
    assert_eq!(sink.connection.tls.key_password, None, "an empty one opens nothing");
    says(&with_sink("table: t, tls: { ca: a.pem }"), "unused", "tls", "reached by `https://`");
    says(&with_sink("table: t, auth: digest"), "unknown_word", "digest", "`basic` or `headers`");
    says(&with_sink("table: t, batch: { rows: 0 }"), "out_of_range", "0", "1 to 10000000");
    says(&with_sink("table: t, batch: { rows: ten }"), "wrong_type", "ten", "whole number");
    says(&with_sink("table: t, batch: { rows: 1_000 }"), "wrong_type", "1_000", "without `_`");
    says(&with_sink("table: t, batch: { bytes: 1B }"), "out_of_range", "1B", "1KiB to 1GiB");
    says(&with_sink("table: t, batch: { interval: 1ms }"), "out_of_range", "1ms", "at least 10ms");
    says(&with_sink("table: t, batch: { interval: 2h }"), "out_of_range", "2h", "10ms to 1h");
    says(&with_sink("table: t, missing: strict"), "unknown_word", "strict", "`default` or `dead_letter`");
    says(&with_sink("table: t, compression: gzip"), "unknown_word", "gzip", "`none`, `lz4` or `zstd`");
    says(&with_sink("table: t, evolve: add"), "unknown_word", "add", "`add_columns`");
    says(&with_sink("table: t, create_table: {}"), "missing_field", "create_table", "needs `order_by`");
    says(&with_sink("table: t, create_table: { order_by: [] }"), "empty", "[", "empty list");
    says(&with_sink("table: t, columns: [a]"), "wrong_type", "[", "takes a mapping");
    says(&with_sink("table: t, columns: { a: { path: b, unit: weeks } }"), "unknown_word", "weeks", "`days`, `s`");
    says(&with_sink("table: t, columns: { a: { path: b, zone: Mars } }"), "unknown_zone", "Mars", "time zone");
    says(&with_sink("table: t, columns: { a: { format: b } }"), "unknown_field", "format", "takes `path`");
    says(&with_sink("table: t, settings: { max_threads: [1] }"), "wrong_type", "[", "this is a list");
}

#[test]
fn dead_letters() {
    says(&with_rest("dead_letters: {}"), "missing_field", "dead_letters", "needs one of");
    says(&with_rest("dead_letters: { file: x }"), "unknown_field", "file", "`local`, `kafka` and `clickhouse`");
    says(&with_rest("dead_letters: { kafka: {} }"), "missing_field", "kafka", "needs `topic`");
    says(&with_rest("dead_letters: { kafka: { topic: t } }"), "same_topic", "t", "come back");
    says(&with_rest("dead_letters: { kafka: { topic: 'a b' } }"), "bad_topic", "'a b'", "no topic");
    says(&with_rest("dead_letters: { clickhouse: {} }"), "missing_field", "clickhouse", "needs `table`");
    says(&with_rest("dead_letters: { clickhouse: { table: out } }"), "same_table", "out", "table of the sink");
    let elsewhere = "dead_letters: { clickhouse: { table: out, url: \"http://elsewhere:8123\" } }";
    says(&with_rest(elsewhere), "same_table", "out", "of another name than the sink's");
    let topic =
        with_rest("dead_letters: { kafka: { topic: out } }").replace("table: out", "table: out, database: kafka");
    says(&topic, "same_table", "out", "another name than the sink's table");
    says(&with_rest("dead_letters: { local: { bytes: 1 } }"), "out_of_range", "1", "1MiB to");
}

#[test]
fn variables() {
    says(&with_sink("table: \"${NOT}\""), "variable", "${NOT}", "the environment has no `NOT`");
    says(&with_sink("table: \"a ${NOT:?ask Ann}\""), "variable", "${NOT:?ask Ann}", "ask Ann");
    says(&with_sink("table: t, batch: { rows: \"${WORD}\" }"), "wrong_type", "\"${WORD}\"", "look at the environment");
    says(
        &with_steps("{ dedup: { key: a, window: \"${WORD}\" } }"),
        "bad_duration",
        "\"${WORD}\"",
        "what `${WORD}` stands for",
    );
    says(&with_sink("table: t, url: \"http://u:${SECRET}@c\""), "bad_url", "\"http://u:${SECRET}@c\"", "`user`");
    says(&with_sink("table: t, \"${X}\": 1"), "variable", "\"${X}\"", "in keys nothing is replaced");
    says(&with_sink("table: t, settings: { \"${X}\": 1 }"), "variable", "\"${X}\"", "in keys nothing is replaced");
    says(&with_steps("{ select: { \"a${X}\": b } }"), "variable", "\"a${X}\"", "in keys nothing is replaced");
}

/// Source lines, messages and JSON alike.
#[test]
fn no_report_shows_a_secret() {
    let urls = [
        "http://h:8123/?user=default&password=hunter2",
        "http://u:hunt,hunter2@h:8123",
        "http://u:hun/hunter2@h:8123",
        "http://u:hunt hunter2@h:8123",
        "u:hunt,hunter2@h",
    ];
    let of_urls = urls.iter().flat_map(|url| {
        [
            format!("clickhouse: {{ url: \"{url}\" }}"),
            format!("clickhouse: {{ urls: [\"{url}\", 5] }}"),
            format!("kafka: {{ brokers: \"{url}\" }}"),
            format!("kafka: {{ brokers: [\"{url}\"] }}"),
            format!("kafka:\n  brokers: {url}"),
            format!("http: {{ listen: \"{url}\" }}"),
            format!("runtime: {{ workers: \"{url}\" }}"),
            format!("\"{url}\": 1"),
        ]
    });
    let others = [
        "clickhouse: { url: \"http://c\", password:hunter2 }",
        "clickhouse: { password:hunter2, password:hunter2 }",
        "http: { token: [hunter2] }",
        "http:\n  token:\n    - hunter2\n    - b",
    ];
    for text in of_urls.chain(others.map(str::to_owned)) {
        let (_, findings) = parse(&text);
        let report = crate::config::report::Report::new("weir.yaml", &text, findings);
        assert!(report.has_errors(), "{text}");
        let shown = format!("{}{}", report.text(false), report.json());
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}

#[test]
fn findings_of_several_pipelines_come_from_one_reading() {
    let text = "
kafka: { brokers: k }
clickhouse: { urll: http://c }
pipelines:
  - name: a
    source: { kafka: { topic: t }, time: { field: x, lateness: 5 } }
    steps: [ { dedup: { window: 1x } }, { dedup: { key: b, window: 24h, keep: last } } ]
    sink: { clickhouse: { table: 5 } }
  - name: b
    sink: { clickhouse: { table: t, url: http://c, batch: { rows: many, interval: 10 } } }
";
    let (plan, findings) = parse(text);
    assert_eq!(plan, None);
    let said: Vec<(&str, u32)> = findings.iter().map(|f| (f.code, f.place.expect("a place").line)).collect();
    assert_eq!(
        said,
        [
            ("unknown_field", 3),
            ("bad_duration", 6),
            ("missing_field", 7),
            ("bad_duration", 7),
            ("unknown_word", 7),
            ("missing_field", 8),
            ("wrong_type", 8),
            ("missing_field", 9),
            ("wrong_type", 10),
            ("bad_duration", 10),
        ]
    );
}

#[test]
fn notes_keep_nothing_from_starting() {
    let (plan, findings) =
        parse(&with_steps("{ dedup: { key: a, window: 1h } }").replace("topic: t", "topics: [t, u]"));
    assert!(plan.is_some());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["local_dead_letters", "race_between_topics"]);
    for letters in ["", "dead_letters: { local: {} }", "dead_letters: { local: { bytes: 2GiB } }"] {
        assert_eq!(parse(&with_rest(letters)).1[0].code, "local_dead_letters", "{letters}");
    }
    assert_eq!(parse(&with_rest("dead_letters: { kafka: { topic: bad } }")).1, []);
}

#[test]
fn a_document_without_a_pipeline_has_nothing_to_run() {
    for nothing in ["version: 1", "pipelines: []", "pipelines:", "pipelines: null\nruntime: { workers: 1 }"] {
        let (plan, findings) = parse(nothing);
        assert!(plan.is_none(), "{nothing}");
        let said: Vec<_> = findings.iter().map(|finding| (finding.code, finding.message.as_str())).collect();
        assert_eq!(said, [("no_pipelines", "no pipelines: there is nothing to run")], "{nothing}");
    }
}
