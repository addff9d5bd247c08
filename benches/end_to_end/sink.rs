//! A table that accepts and discards: answers what weir asks at its start as a ClickHouse server with one MergeTree
//! table and a deduplication window would, and drops what is inserted.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use http_body_util::BodyExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Name and type of a table's columns.
type Columns = &'static [(&'static str, &'static str)];

/// The tables; both sinks have the first.
pub const TABLES: [(&str, Columns); 3] =
    [("events", EVENTS), ("orders_paid", ORDERS_PAID), ("visits_with_users", VISITS_WITH_USERS)];

const EVENTS: Columns = &[
    ("event_id", "UUID"),
    ("event_type", "LowCardinality(String)"),
    ("occurred_at", "DateTime64(3)"),
    ("user_id", "UInt64"),
    ("session_id", "String"),
    ("url", "String"),
    ("country", "LowCardinality(String)"),
    ("amount", "Decimal(10, 2)"),
    ("quantity", "UInt16"),
];

const ORDERS_PAID: Columns = &[
    ("order_id", "String"),
    ("customer_id", "UInt64"),
    ("placed_at", "DateTime64(3)"),
    ("amount", "Decimal(10, 2)"),
    ("currency", "LowCardinality(String)"),
    ("payment_id", "String"),
    ("paid_at", "DateTime64(3)"),
    ("paid", "Decimal(10, 2)"),
    ("method", "LowCardinality(String)"),
];

const VISITS_WITH_USERS: Columns = &[
    ("visit_id", "String"),
    ("user_id", "UInt64"),
    ("at", "DateTime64(3)"),
    ("url", "String"),
    ("name", "String"),
    ("country", "LowCardinality(String)"),
    ("tier", "LowCardinality(String)"),
];

/// The statement that makes the table of events in a real engine.
pub fn create_events(table: &str) -> String {
    let columns: Vec<String> = EVENTS.iter().map(|(name, of)| format!("{name} {of}")).collect();
    format!(
        "CREATE TABLE {table} ({}) ENGINE = MergeTree ORDER BY event_id \
         SETTINGS non_replicated_deduplication_window = 10000",
        columns.join(", ")
    )
}

/// Serves on the loopback port until the process is killed.
pub fn serve(port: u16) {
    let inserted = Arc::new(AtomicU64::new(0));
    let app = Router::new().fallback(answer).with_state(inserted);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        axum::serve(listener, app).await.expect("it serves until it is killed");
    });
}

async fn answer(
    State(inserted): State<Arc<AtomicU64>>,
    Query(parameters): Query<HashMap<String, String>>,
    mut body: Body,
) -> String {
    if parameters.get("query").is_some_and(|query| query.starts_with("INSERT")) {
        while let Some(frame) = body.frame().await {
            let bytes = frame.ok().and_then(|frame| frame.into_data().ok()).map_or(0, |data| data.len());
            inserted.fetch_add(bytes as u64, Relaxed);
        }
        return String::new();
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    about(&String::from_utf8_lossy(&body), inserted.load(Relaxed))
}

/// The answer in JSONEachRow. The most particular question first.
fn about(question: &str, inserted: u64) -> String {
    let settings = ["max_insert_block_size", "async_insert", "insert_deduplicate", "input_format_null_as_default"];
    let asks = |what: &str| question.contains(what);
    let rows: Vec<serde_json::Value> = if asks("inserted_bytes") {
        vec![serde_json::json!({ "inserted_bytes": inserted })]
    } else if asks("version()") {
        [("version", "26.8.1.1"), ("zone", "UTC")].map(pair).to_vec()
    } else if asks("system.settings") {
        settings.map(|name| serde_json::json!({ "name": name })).to_vec()
    } else if asks("replicated_merge_tree_settings") {
        [("replicated_deduplication_window", "10000"), ("replicated_deduplication_window_seconds", "3600")]
            .map(pair)
            .to_vec()
    } else if asks("merge_tree_settings") {
        vec![pair(("non_replicated_deduplication_window", "0"))]
    } else if asks("system.columns") {
        let asked = TABLES.iter().find(|(table, _)| asks(&format!("'{table}'")));
        asked.into_iter().flat_map(|(_, columns)| *columns).map(column).collect()
    } else if asks("system.tables") && !asks("MaterializedView") {
        vec![serde_json::json!({
            "engine": "MergeTree",
            "engine_full": "MergeTree ORDER BY event_id SETTINGS non_replicated_deduplication_window = 10000",
            "partition_key": "",
        })]
    } else {
        Vec::new()
    };
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn pair((name, value): (&str, &str)) -> serde_json::Value {
    serde_json::json!({ "name": name, "value": value })
}

fn column((name, of): &(&str, &str)) -> serde_json::Value {
    serde_json::json!({ "name": name, "type": of, "default_kind": "", "default_expression": "" })
}
