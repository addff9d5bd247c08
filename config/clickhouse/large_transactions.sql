-- For config/pipelines/filter-select.yaml.
CREATE TABLE IF NOT EXISTS large_transactions
(
    transaction_id  String,
    user_id         UInt64,
    amount          Decimal(12, 2),
    with_fee        Float64,
    source_topic    LowCardinality(String),
    loaded_at       DateTime DEFAULT now()
)
ENGINE = MergeTree
ORDER BY transaction_id
SETTINGS non_replicated_deduplication_window = 100000
