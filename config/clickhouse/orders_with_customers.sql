-- For config/pipelines/enrich-with-table.yaml.
CREATE TABLE IF NOT EXISTS orders_with_customers
(
    order_id       String,
    customer_id    UInt64,
    amount         Decimal(12, 2),
    placed_at      DateTime64(3, 'UTC'),
    customer_name  Nullable(String),
    country        LowCardinality(String) DEFAULT 'unknown'
)
ENGINE = MergeTree
ORDER BY (placed_at, order_id)
SETTINGS non_replicated_deduplication_window = 100000
