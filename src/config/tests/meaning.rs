//! What a good document means.

use super::*;
use crate::config::plan::*;

fn dedup(plan: &Plan) -> &DedupPlan {
    let [StepPlan::Dedup(dedup)] = plan.pipelines[0].steps.as_slice() else { panic!("one dedup") };
    dedup
}

fn sink(plan: &Plan) -> &ClickHouseSinkPlan {
    let SinkPlan::ClickHouse(sink) = &plan.pipelines[0].sink;
    sink
}

#[test]
fn what_is_not_written_has_its_default() {
    let plan = plan(&with_steps("{ dedup: { key: a, window: 24h } }"));
    assert_eq!(plan.state.rocksdb_path.to_str(), Some("./data"));
    assert_eq!(plan.state.retain_left_ms, 86_400_000);
    assert_eq!(plan.http.listen, "127.0.0.1:8080");
    assert_eq!((plan.http.writes, plan.http.token.clone()), (HttpWrites::Loopback, None));
    assert_eq!(plan.runtime, RuntimePlan { workers: 6, memory_limit_bytes: 4 << 30 });
    let pipeline = &plan.pipelines[0];
    assert_eq!(pipeline.kafka.group, "weir-p");
    assert_eq!(pipeline.kafka.instance_id, None);
    assert_eq!(pipeline.kafka.security, KafkaSecurity::default());
    assert_eq!(pipeline.topics[0].start, StartAt::Earliest);
    assert_eq!(pipeline.source.inputs, [0]);
    assert_eq!((pipeline.source.tombstones, pipeline.source.max_payload_bytes), (Tombstones::Skip, 16 << 20));
    let time = &pipeline.source.time;
    assert_eq!((&time.field, time.unit, time.zone.as_str()), (&None, TimeUnit::Iso, "UTC"));
    assert_eq!((time.lateness_ms, time.idle_ms, time.max_future_ms), (0, 30_000, 3_600_000));
    assert_eq!(pipeline.dead_letters, DeadLettersPlan::Local { bytes_max: 1 << 30 });
    assert_eq!(pipeline.delivery, DeliveryGuarantee::ExactlyOnce);
    assert_eq!((pipeline.on_gap, pipeline.on_offset_reset), (HaltOr::Halt, FollowOr::Follow));
    assert_eq!((pipeline.on_partition_growth, pipeline.on_unclear), (HaltOr::Halt, UnclearChoice::Halt));
    assert!(!pipeline.strict);
    let step = dedup(&plan);
    assert_eq!(
        (&step.keep, step.renew, step.missing_key, step.late),
        (&Keep::First, false, MissingKey::DeadLetter, Late::Pass)
    );
    let sink = sink(&plan);
    assert_eq!(sink.batch, BatchPlan { rows: 100_000, bytes: 32 << 20, interval_ms: 10_000 });
    assert_eq!((sink.missing, sink.compression), (MissingField::Default, BlockCompression::Lz4));
    assert_eq!((&sink.create_table, sink.evolve_add_columns), (&None, false));
    let to = &sink.connection;
    assert_eq!(
        (to.database.as_str(), to.user.as_str(), to.password.0.as_str(), to.auth),
        ("default", "default", "", HttpAuth::Basic)
    );
}

/// The documentation's defaults (in the tables) are those of the code.
#[test]
fn a_file_with_every_default_written_out_means_the_same() {
    let short = plan(
        "kafka: { brokers: [k] }\nclickhouse: { url: http://c:8123 }\npipelines:\n- name: p\n  source: { kafka: { topic: t } }\n  \
         steps: [ { dedup: { key: a, window: 24h } } ]\n  sink: { clickhouse: { table: out } }\n",
    );
    let long = plan(
        "version: 1
kafka: { brokers: [k] }
clickhouse: { url: http://c:8123, database: default, user: default, password: '', auth: basic }
state: { rocksdb: { path: ./data }, retain_left: 24h }
http: { listen: 127.0.0.1:8080, writes: loopback }
runtime: { workers: 6, memory_limit: 4GiB }
pipelines:
- name: p
  source:
    kafka: { topic: t, group: weir-p }
    start: earliest
    time: { lateness: 0s, idle: 30s, max_future: 1h }
    tombstones: skip
    max_payload: 16MiB
  steps:
  - dedup: { key: a, window: 24h, keep: first, renew: false, missing_key: dead_letter, late: pass }
  sink:
    clickhouse: { table: out, batch: { rows: 100000, bytes: 32MiB, interval: 10s }, missing: default, compression: lz4 }
  dead_letters: { local: { bytes: 1GiB } }
  delivery: exactly_once
  on_gap: halt
  on_offset_reset: follow
  on_partition_growth: halt
  on_unclear: halt
  strict: false
",
    );
    assert_eq!(without_places(&short), without_places(&long));
}

fn without_places(plan: &Plan) -> String {
    let text = format!("{plan:#?}");
    let place = |line: &&str| !["line: ", "column: ", "len: "].iter().any(|key| line.trim_start().starts_with(key));
    text.lines().filter(place).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_source_and_a_sink_lay_what_they_write_over_the_default_connections() {
    let plan = plan(
        "kafka: { brokers: \"${BROKERS}\", instance_id: i, librdkafka: { a: 1, b: x }, security: { tls: { ca: a.pem } } }
clickhouse: { url: https://c:8443/, user: u, password: \"${SECRET}\", tls: { ca: b.pem } }
pipelines:
- name: p
  source: { kafka: { topics: [t, u], group: g, librdkafka: { b: 2, c: true } }, start: 2026-01-01T00:00:00+01:00 }
  sink: { clickhouse: { table: out, database: d, auth: headers, settings: { max_threads: 2, x: true } } }
  dead_letters: { clickhouse: { table: bad } }
",
    );
    let pipeline = &plan.pipelines[0];
    assert_eq!(pipeline.kafka.brokers, ["a:1", "b:2"]);
    assert_eq!((pipeline.kafka.group.as_str(), pipeline.kafka.instance_id.as_deref()), ("g", Some("i")));
    let options: Vec<(&str, &str)> = pipeline.kafka.librdkafka.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(options, [("a", "1"), ("b", "2"), ("c", "true")]);
    assert_eq!(pipeline.kafka.security.tls.as_ref().and_then(|tls| tls.ca.as_deref()), Some("a.pem".as_ref()));
    assert_eq!(pipeline.topics.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["t", "u"]);
    assert_eq!(pipeline.topics[1].start, StartAt::TimeMs(1_767_222_000_000));
    assert_eq!(pipeline.source.inputs, [0, 1]);
    let sink = sink(&plan);
    assert_eq!(sink.connection.urls, ["https://c:8443"]);
    assert_eq!((sink.connection.database.as_str(), sink.connection.user.as_str()), ("d", "u"));
    assert_eq!((sink.connection.auth, sink.connection.password.0.as_str()), (HttpAuth::Headers, "hunter2"));
    assert_eq!(sink.settings.get("x").map(String::as_str), Some("true"));
    let DeadLettersPlan::ClickHouse { connection, table, .. } = &pipeline.dead_letters else { panic!() };
    assert_eq!((connection, table.as_str()), (&sink.connection, "bad"));
}

#[test]
fn keys_are_one_path_a_list_or_typed() {
    let key = |text: &str| {
        let plan = plan(&with_steps(&format!("{{ dedup: {{ key: {text}, window: forever }} }}")));
        assert_eq!(dedup(&plan).window_ms, None);
        dedup(&plan).key.iter().map(|key| (key.path.text.clone(), key.cast)).collect::<Vec<_>>()
    };
    assert_eq!(key("a.b"), [("a.b".into(), None)]);
    assert_eq!(key("_key"), [("_key".into(), None)]);
    assert_eq!(key("[a, _headers.trace-id]"), [("a".into(), None), ("_headers.trace-id".into(), None)]);
    let decimal = KeyCast::Decimal { precision: 10, scale: 2 };
    assert_eq!(key("{ path: p, as: \"decimal(10,2)\" }"), [("p".into(), Some(decimal))]);
    assert_eq!(key("{ path: p, as: 'Decimal(10, 2)' }"), [("p".into(), Some(decimal))]);
    let typed = [
        ("a".into(), Some(KeyCast::Int)),
        ("b".into(), Some(KeyCast::Text)),
        ("c".into(), Some(KeyCast::Bool)),
        ("_id".into(), None),
    ];
    assert_eq!(key("[{ path: a, as: int }, { path: b, as: text }, { path: c, as: bool }, { path: _id }]"), typed);
}

#[test]
fn a_window_has_no_upper_limit() {
    let plan = plan(&with_steps("{ dedup: { key: a, window: 36500d, keep: changes, fields: [b, c.d] } }"));
    assert_eq!(dedup(&plan).window_ms, Some(36_500 * 86_400_000));
    let Keep::Changes(fields) = &dedup(&plan).keep else { panic!() };
    assert_eq!(fields.iter().map(|field| field.text.as_str()).collect::<Vec<_>>(), ["b", "c.d"]);
}

#[test]
fn columns_are_short_or_long() {
    let plan = plan(&with_sink(
        "table: t, columns: { user_name: user.name, ts: { path: timestamp, unit: ms, zone: Europe/Berlin }, d: { unit: days } }",
    ));
    let columns: Vec<_> = sink(&plan)
        .columns
        .iter()
        .map(|c| (c.column.as_str(), c.path.text.as_str(), c.unit, c.zone.as_deref()))
        .collect();
    assert_eq!(
        columns,
        [
            ("user_name", "user.name", None, None),
            ("ts", "timestamp", Some(ColumnUnit::Millis), Some("Europe/Berlin")),
            ("d", "d", Some(ColumnUnit::Days), None),
        ]
    );
}

#[test]
fn expressions_keep_their_order_and_the_place_of_their_text() {
    let text = with_steps("{ filter: \"amount > 0.0\" }, { select: { z: a.b, one: 1, yes: true, none: null } }");
    let plan = plan(&text);
    let [StepPlan::Filter(filter), StepPlan::Select(fields)] = plan.pipelines[0].steps.as_slice() else { panic!() };
    let line = text.lines().nth(filter.at.line as usize - 1).unwrap();
    assert_eq!(&line[filter.at.column as usize - 1..][..filter.at.len as usize], "amount > 0.0");
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, e)| (name.as_str(), e.text.as_str())).collect();
    assert_eq!(fields, [("z", "a.b"), ("one", "1"), ("yes", "true"), ("none", "null")]);
}

#[test]
fn variables_are_replaced_in_scalars_of_every_kind() {
    let plan = plan(&with_sink("table: \"${NOT:-out}_$${x}\", batch: { rows: \"${ROWS}\", bytes: \"${NOT:-1}MiB\" }"));
    assert_eq!(sink(&plan).table, "out_${x}");
    assert_eq!((sink(&plan).batch.rows, sink(&plan).batch.bytes), (500, 1 << 20));
}

#[test]
fn forever_may_come_out_of_a_variable() {
    let step = plan(&with_steps("{ dedup: { key: a, window: \"${NOT:-forever}\" } }"));
    assert_eq!(dedup(&step).window_ms, None);
    let table = plan(&with_steps(
        "{ join: { with: { kafka: { topic: b }, retain: \"${NOT:-forever}\" }, as: u, key: k, kind: temporal, within: 1s } }",
    ));
    let [StepPlan::Join(join)] = table.pipelines[0].steps.as_slice() else { panic!("one join") };
    assert!(matches!(join.matching, Matching::Table { .. }));
}

#[test]
fn json_means_the_same_as_yaml() {
    let json = plan(
        r#"{"kafka": {"brokers": ["k"]}, "clickhouse": {"url": "http://c:8123"}, "pipelines": [{"name": "p",
        "source": {"kafka": {"topic": "t"}}, "steps": [{"dedup": {"key": "a", "window": "24h"}}],
        "sink": {"clickhouse": {"table": "out"}}}]}"#,
    );
    let yaml = plan(&with_steps("{ dedup: { key: a, window: 24h } }"));
    assert_eq!(without_places(&json), without_places(&yaml));
}

#[test]
fn json_may_be_indented_with_tabs_and_hold_surrogate_escapes() {
    let json = plan(
        "{\n\t\"kafka\": {\"brokers\": [\"k\"]},\n\t\"clickhouse\": {\n\t\t\"url\": \"http:\\/\\/c:8123\"\n\t},\n\
         \t\"pipelines\": [\n\t\t{\n\t\t\t\"name\": \"p\",\n\t\t\t\"source\": {\"kafka\": {\"topic\": \"t\"}},\n\
         \t\t\t\"steps\": [\n\t\t\t\t{\"filter\": \"mood == '\\ud83d\\ude00' && name == '\\u00e9'\"}\n\t\t\t],\n\
         \t\t\t\"sink\": {\"clickhouse\": {\"table\": \"out\"}}\n\t\t}\n\t]\n}\n",
    );
    let [StepPlan::Filter(filter)] = json.pipelines[0].steps.as_slice() else { panic!("one filter") };
    assert_eq!(filter.text, "mood == '\u{1F600}' && name == 'é'");
    assert_eq!(sink(&json).connection.urls, ["http://c:8123"]);
}

/// `on: x` would be `true: x` to them.
#[test]
fn no_key_is_a_word_that_older_readers_turn_into_a_boolean() {
    use crate::config::grammar::{Object, Shape};
    const BOOLEANS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    fn objects(shape: Shape) -> Vec<&'static Object> {
        match shape {
            Shape::Object(object) => vec![object],
            Shape::List(inner) | Shape::OneOrList(inner) | Shape::Map(inner) => objects(*inner),
            Shape::Either(shapes) => shapes.iter().flat_map(|shape| objects(*shape)).collect(),
            _ => vec![],
        }
    }
    let mut queue = vec![&crate::config::spec::FILE];
    let mut seen: Vec<&Object> = vec![];
    while let Some(object) = queue.pop() {
        if seen.iter().any(|known| std::ptr::eq(*known, object)) {
            continue;
        }
        seen.push(object);
        for field in object.fields() {
            assert!(
                !BOOLEANS.contains(&field.name.to_ascii_lowercase().as_str()),
                "`{}` of {}",
                field.name,
                object.name
            );
            queue.extend(objects(field.shape));
        }
    }
    assert!(seen.len() > 20, "the tables were walked: {}", seen.len());
}

#[test]
fn anchors_and_merge_keys_share_what_pipelines_have_in_common() {
    let plan = plan(
        "kafka: { brokers: k }
clickhouse: { url: http://c }
pipelines:
- &one { name: a, source: { kafka: { topic: t } }, sink: { clickhouse: { table: x } }, strict: true }
- { <<: *one, name: b }
",
    );
    assert_eq!(plan.pipelines[1].name, "b");
    assert!(plan.pipelines[1].strict);
}

#[test]
fn a_secret_is_not_in_the_debug_text() {
    let plan = plan(
        "kafka: { brokers: k, librdkafka: { ssl.key.password: hunter2 }, security: { sasl: { mechanism: scram-sha-512, username: u, password: hunter2 } } }
clickhouse: { url: http://c, password: \"${SECRET}\" }
http: { token: hunter2 }
pipelines: [ { name: p, source: { kafka: { topic: t } }, sink: { clickhouse: { table: t } } } ]
",
    );
    assert_eq!(sink(&plan).connection.password.0, "hunter2");
    assert!(!format!("{plan:?}").contains("hunter2"));
}
