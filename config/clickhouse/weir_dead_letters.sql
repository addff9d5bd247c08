-- Dead letters as config/pipelines/composite-key.yaml keeps them; a test compares with what weir would create.
CREATE TABLE IF NOT EXISTS weir_dead_letters
(
    time       DateTime64(3, 'UTC'),
    pipeline   LowCardinality(String),
    step       LowCardinality(String),
    reason     LowCardinality(String),
    message    String,
    topic      LowCardinality(String),
    partition  Int32,
    offset     Int64,
    timestamp  Nullable(DateTime64(3, 'UTC')),
    key        Nullable(String),
    value      Nullable(String),
    headers    Array(Tuple(name String, value Nullable(String)))
)
ENGINE = MergeTree
ORDER BY (pipeline, time)
SETTINGS non_replicated_deduplication_window = 100000
