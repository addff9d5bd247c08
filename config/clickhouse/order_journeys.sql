-- For config/pipelines/three-way-join.yaml.
CREATE TABLE IF NOT EXISTS order_journeys
(
    order_id            String,
    amount              Decimal(12, 2),
    paid_with           LowCardinality(String),
    minutes_to_payment  Int64,
    carrier             Nullable(String)
)
ENGINE = MergeTree
ORDER BY order_id
SETTINGS non_replicated_deduplication_window = 100000
