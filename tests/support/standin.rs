//! A ClickHouse that is only told of: answers what weir asks at its start as a server with these tables would, of
//! engines that the real one of the tests does not have, and drops what is inserted.
//!
//! Says nothing about how such a server behaves: only what weir makes of what it says about itself.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use http_body_util::BodyExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Name and type of a table's columns.
pub type Columns = &'static [(&'static str, &'static str)];

/// What the server says about itself.
#[derive(Clone, Copy)]
pub struct Told {
    /// Of every table, as in `system.tables`: `SharedMergeTree`.
    pub engine: &'static str,
    /// What stands behind the engine: `ORDER BY a SETTINGS …`.
    pub engine_rest: &'static str,
    /// Its default for replicated tables, in parts and seconds.
    pub replicated_window: (u64, u64),
    /// Its tables.
    pub tables: &'static [(&'static str, Columns)],
}

/// What is said, and how many bytes were inserted.
#[derive(Clone)]
pub struct Standin {
    told: Told,
    inserted: Arc<AtomicU64>,
}

impl Standin {
    pub fn new(told: Told) -> Standin {
        Standin { told, inserted: Arc::default() }
    }

    /// Serves on a free loopback port as long as this process lives; its address.
    pub fn start(told: Told) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || Standin::new(told).serve(listener));
        url
    }

    pub fn serve(self, listener: std::net::TcpListener) {
        let app = Router::new().fallback(answer).with_state(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("a listener of our own");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of our own");
            axum::serve(listener, app).await.expect("it serves until it is killed");
        });
    }

    /// The answer in JSONEachRow. The most particular question first.
    fn about(&self, question: &str) -> String {
        let Told { engine, engine_rest, replicated_window, tables } = self.told;
        let settings = ["max_insert_block_size", "async_insert", "insert_deduplicate", "input_format_null_as_default"];
        let asks = |what: &str| question.contains(what);
        let rows: Vec<serde_json::Value> = if asks("inserted_bytes") {
            vec![serde_json::json!({ "inserted_bytes": self.inserted.load(Relaxed) })]
        } else if asks("version()") {
            [("version", "26.8.1.1"), ("zone", "UTC")].map(pair).to_vec()
        } else if asks("system.settings") {
            settings.map(|name| serde_json::json!({ "name": name })).to_vec()
        } else if asks("replicated_merge_tree_settings") {
            let (parts, seconds) = (replicated_window.0.to_string(), replicated_window.1.to_string());
            [("replicated_deduplication_window", &*parts), ("replicated_deduplication_window_seconds", &*seconds)]
                .map(pair)
                .to_vec()
        } else if asks("merge_tree_settings") {
            vec![pair(("non_replicated_deduplication_window", "0"))]
        } else if asks("system.columns") {
            let asked = tables.iter().find(|(table, _)| asks(&format!("'{table}'")));
            asked.into_iter().flat_map(|(_, columns)| *columns).map(column).collect()
        } else if asks("system.tables") && !asks("MaterializedView") {
            let engine_full = format!("{engine} {engine_rest}");
            vec![serde_json::json!({ "engine": engine, "engine_full": engine_full, "partition_key": "" })]
        } else {
            Vec::new()
        };
        rows.iter().map(|row| format!("{row}\n")).collect()
    }
}

async fn answer(
    State(standin): State<Standin>,
    Query(parameters): Query<HashMap<String, String>>,
    mut body: Body,
) -> String {
    if parameters.get("query").is_some_and(|query| query.starts_with("INSERT")) {
        while let Some(frame) = body.frame().await {
            let bytes = frame.ok().and_then(|frame| frame.into_data().ok()).map_or(0, |data| data.len());
            standin.inserted.fetch_add(bytes as u64, Relaxed);
        }
        return String::new();
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    standin.about(&String::from_utf8_lossy(&body))
}

fn pair((name, value): (&str, &str)) -> serde_json::Value {
    serde_json::json!({ "name": name, "value": value })
}

fn column((name, of): &(&str, &str)) -> serde_json::Value {
    serde_json::json!({ "name": name, "type": of, "default_kind": "", "default_expression": "" })
}
