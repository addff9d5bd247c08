//! A table that accepts and discards: answers what weir asks at its start as a ClickHouse server with one MergeTree
//! table and a deduplication window would, and drops what is inserted.

use crate::support::standin::{Columns, Standin, Told};

/// The tables; both sinks have the first.
static TABLES: [(&str, Columns); 3] =
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
    let told = Told {
        engine: "MergeTree",
        engine_rest: "ORDER BY event_id SETTINGS non_replicated_deduplication_window = 10000",
        replicated_window: (10_000, 3_600),
        tables: &TABLES,
    };
    Standin::new(told).serve(std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free"));
}
