//! What scrapers and callers see: names of metrics, and how a wrong call is told.

use super::*;
use crate::config::plan::HttpWrites;
use crate::error::Error;
use crate::metrics::{JoinSnapshot, PartitionLag, SealedWhy, StepKind, StepName, TaskSnapshot};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::Duration;

/// What a scrape shows after `act`: the text.
fn scraped(act: impl FnOnce(&PipelineStats)) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        let kinds = [StepKind::Filter, StepKind::Select, StepKind::Dedup, StepKind::Join];
        let name = |(place, kind): (usize, StepKind)| StepName { name: place.to_string(), kind };
        let steps: Vec<StepName> = kinds.into_iter().enumerate().map(name).collect();
        act(&PipelineStats::new("p", "d.t", &["orders".to_owned()], &steps));
    });
    handle.render()
}

fn task() -> TaskSnapshot {
    let lags = vec![PartitionLag { offset: 5, end: 12 }];
    TaskSnapshot {
        lags,
        watermark_ms: 1_500,
        state_keys: vec![0, 0, 9, 0],
        joins: vec![JoinSnapshot { step: 3, rows: 4, oldest_ms: Some(1_000) }],
        ..TaskSnapshot::default()
    }
}

/// `name{label,label}` of every series, without those of histograms' buckets.
fn series(text: &str) -> BTreeSet<String> {
    let named = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, _) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| Some(label.split_once('=')?.0));
        Some(format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(",")))
    });
    named.filter(|series| !["_sum", "_count", "quantile"].iter().any(|part| series.contains(part))).collect()
}

/// They are stable from the first release: people have dashboards and alarms of them.
#[test]
fn the_metrics_of_a_pipeline_have_these_names_and_labels_and_no_others() {
    let text = scraped(|stats| {
        stats.set_task(3, task());
        stats.dead_letter("source", "bad_json", 1);
        stats.attempt_failed(&Error::retry("241", "memory"));
        stats.committed("accepted");
        stats.recovered("new");
        stats.set_state_bytes("seen", 1);
        stats.set_partitioner("orders", "murmur2");
        stats.doubt_join(3, "partitioned_differently", "why".to_owned());
        stats.sealed(SealedWhy::Age, [5].into_iter());
        stats.stored(Duration::from_millis(1));
        stats.acknowledged(0.01);
        stats.written(5, Some((0.1, 0.2)));
        stats.publish();
    });
    let expected = [
        "weir_records_read_total{pipeline,topic}",
        "weir_bytes_read_total{pipeline,topic}",
        "weir_extra_fields_total{pipeline}",
        "weir_rows_written_total{pipeline,table}",
        "weir_rows_duplicate_total{pipeline,step}",
        "weir_rows_filtered_total{pipeline,step}",
        "weir_rows_late_total{pipeline,step}",
        "weir_dead_letters_total{pipeline,step,reason}",
        "weir_blocks_sealed_total{pipeline,why}",
        "weir_blocks_acknowledged_total{pipeline}",
        "weir_blocks_discarded_total{pipeline}",
        "weir_insert_retries_total{pipeline,code}",
        "weir_commits_total{pipeline,result}",
        "weir_rebalances_total{pipeline}",
        "weir_recoveries_total{pipeline,case}",
        "weir_lag_records{pipeline,topic,partition}",
        "weir_watermark_timestamp_seconds{pipeline,partition}",
        "weir_outbox_blocks{pipeline}",
        "weir_outbox_bytes{pipeline}",
        "weir_state_bytes{pipeline,family}",
        "weir_state_keys_estimate{pipeline,step}",
        "weir_join_rows_total{pipeline,step,outcome}",
        "weir_topic_partitioner_info{pipeline,topic,partitioner}",
        "weir_scattered_keys{pipeline,step}",
        "weir_join_doubts{pipeline,step,reason}",
        "weir_join_waiting_rows{pipeline,step}",
        "weir_join_oldest_waiting_timestamp_seconds{pipeline,step}",
        "weir_pipeline_up{pipeline,state}",
    ];
    let shown = series(&text);
    assert_eq!(shown, expected.into_iter().map(str::to_owned).collect(), "{text}");
    for histogram in ["block_rows", "insert_seconds", "store_seconds", "latency_seconds", "processing_seconds"] {
        assert!(text.contains(&format!("weir_{histogram}_count{{pipeline=\"p\"}}")), "{histogram}: {text}");
    }
    for name in shown.iter().filter_map(|series| series.split('{').next()) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is explained");
    }
    assert!(text.contains("weir_lag_records{pipeline=\"p\",topic=\"orders\",partition=\"3\"} 7"), "{text}");
    assert!(text.contains("weir_watermark_timestamp_seconds{pipeline=\"p\",partition=\"3\"} 1.5"), "{text}");
    for why in ["rows", "bytes", "age", "end"] {
        assert!(text.contains(&format!("weir_blocks_sealed_total{{pipeline=\"p\",why=\"{why}\"}}")), "{why}");
    }
}

/// A server that watches nothing; its address.
fn serving() -> String {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().to_string()).unwrap();
            let http = HttpPlan { listen: String::new(), token: None, hosts: vec![], writes: HttpWrites::Loopback };
            let watched = Watched {
                http: Arc::new(http),
                pipelines: Arc::default(),
                desks: Arc::default(),
                prometheus: PrometheusBuilder::new().build_recorder().handle(),
                publish: Arc::new(|| ()),
            };
            serve(listener, watched).await.unwrap();
        });
    });
    address.recv().unwrap()
}

/// Asks, and hears status, form and body.
fn ask(address: &str, line: &str, body: &[u8]) -> (u16, String, String) {
    ask_as("host: localhost", address, line, body)
}

/// Asks with these headers.
fn ask_as(headers: &str, address: &str, line: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!("{line} HTTP/1.1\r\n{headers}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // Who refuses a body need not read it to its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let form = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (head[9..12].parse().unwrap(), form.to_owned(), body.to_owned())
}

#[test]
fn whatever_is_wrong_with_a_call_is_told_as_a_problem() {
    let address = serving();
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    let calls: [(&str, &[u8], u16, &str); 6] = [
        ("GET /nowhere", b"", 404, "nothing at /nowhere"),
        ("GET /api/v1/pipelines/p/ledger", b"", 404, "no pipeline `p`"),
        ("DELETE /healthz", b"", 405, "does not take DELETE"),
        ("GET /api/v1/pipelines/p/outbox/discard", b"", 405, "does not take GET"),
        ("POST /api/v1/pipelines/p/outbox/discard?force=perhaps", b"", 400, "force"),
        ("POST /api/v1/pipelines/p/outbox/discard", &large, 413, "limit"),
    ];
    for (line, body, expected, part) in calls {
        let (status, form, body) = ask(&address, line, body);
        assert_eq!((status, form.as_str()), (expected, "application/problem+json"), "{line}: {body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], expected);
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    assert_eq!(ask(&address, "GET /readyz", b"").0, 200);
}

#[test]
fn scrapers_and_probes_come_under_any_name_but_not_from_a_foreign_page() {
    let address = serving();
    for line in ["GET /metrics", "GET /healthz", "GET /readyz"] {
        let status = |headers: &str| ask_as(headers, &address, line, b"").0;
        assert_eq!(status("host: whoever.example"), 200, "{line}");
        assert_eq!(status("host: here.example\r\norigin: http://here.example"), 200, "{line}");
        assert_eq!(status("host: localhost\r\norigin: https://evil.example"), 403, "{line}");
    }
}

#[test]
fn who_waits_no_more_in_a_join_is_not_the_oldest_for_ever() {
    let text = scraped(|stats| {
        stats.set_task(3, task());
        stats.publish();
        stats.set_task(3, TaskSnapshot { joins: vec![JoinSnapshot { step: 3, ..JoinSnapshot::default() }], ..task() });
        stats.publish();
    });
    let oldest = "weir_join_oldest_waiting_timestamp_seconds{pipeline=\"p\",step=\"3\"} NaN";
    assert!(text.contains(oldest), "{text}");
}

#[test]
fn what_only_grows_is_a_counter() {
    let text = scraped(|stats| stats.publish());
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
    assert!(text.contains("# HELP weir_join_rows_total Pairs of a join"), "{text}");
}

/// Field names and types, in the place of the values; of a list its first item.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(number) if number.is_f64() => "number".into(),
        Value::Number(_) => "integer".into(),
        Value::String(_) => "text".into(),
        Value::Array(items) => items.iter().take(1).map(shape).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
    }
}

/// What `run --until-end --format json` prints of a pipeline is stable from the first release.
#[test]
fn the_object_of_a_pipeline_has_these_fields() {
    let mut object = Value::Null;
    scraped(|stats| {
        stats.set_task(3, task());
        stats.dead_letter("source", "bad_json", 1);
        stats.attempt_failed(&Error::retry("241", "memory"));
        stats.doubt_join(3, "partitioned_differently", "why".to_owned());
        crate::state::Table::ALL.into_iter().for_each(|table| stats.set_state_bytes(table.name(), 1));
        object = summary::pipeline_object(stats, 2.0);
    });
    let expected = json!({
        "pipeline": "text", "state": "text",
        "records": { "read": "integer", "bytes": "integer", "per_second": "number", "tombstones": "integer" },
        "rows": { "written": "integer", "per_second": "number", "filtered": "integer", "late": "integer" },
        "dedup": [
            {
                "step": "text", "passed": "integer", "duplicates": "integer", "duplicate_share": "number",
                "doubts": []
            }
        ],
        "joins": [{
            "step": "text", "matched": "integer", "unmatched": "integer", "dropped": "integer", "waiting": "integer",
            "oldest_waiting": "text", "doubts": ["text"], "join_rate": "number"
        }],
        "dead_letters": { "total": "integer", "by_reason": { "bad_json": "integer" } },
        "batches": {
            "sealed": "integer", "acknowledged": "integer", "rows_mean": "number", "retries": "integer",
            "insert_seconds": { "p50": "number", "p99": "number" }
        },
        "lag": {
            "records": "integer",
            "partitions": [
                { "topic": "text", "partition": "integer", "offset": "integer", "end": "integer", "lag": "integer" }
            ]
        },
        "watermark": "text",
        "latency_seconds": { "p50": "number", "p99": "number" },
        "processing_seconds": { "p50": "number", "p99": "number" },
        "state_bytes": {
            "seen": "integer", "ledger": "integer", "outbox": "integer", "dead_letters": "integer", "buffer": "integer"
        },
        "last_error": "text"
    });
    assert_eq!(shape(&object), expected);
    assert_eq!(object["watermark"], "1970-01-01T00:00:01.500Z");
    assert_eq!(
        object["joins"][0]["oldest_waiting"], "1970-01-01T00:00:01.000Z",
        "milliseconds also where there are none"
    );
}

#[test]
fn what_is_not_known_of_a_pipeline_is_null() {
    let mut object = Value::Null;
    scraped(|stats| object = summary::pipeline_object(stats, 0.0));
    let unknown = [&object["watermark"], &object["joins"][0]["oldest_waiting"], &object["last_error"]];
    assert_eq!(unknown, [&Value::Null; 3]);
}

#[test]
fn a_partition_that_went_away_lags_no_more() {
    let text = scraped(|stats| {
        stats.set_task(3, task());
        stats.publish();
        stats.forget_task(3);
        stats.publish();
    });
    assert!(text.contains("weir_lag_records{pipeline=\"p\",topic=\"orders\",partition=\"3\"} 0"), "{text}");
    assert!(text.contains("weir_watermark_timestamp_seconds{pipeline=\"p\",partition=\"3\"} NaN"), "{text}");
}
