-- The table of the session stream, for the demo and for docker compose.
CREATE TABLE IF NOT EXISTS user_sessions_clean
(
    session_id  UUID,
    user_id     UInt64,
    event       LowCardinality(String),
    page        String,
    product     Nullable(String),
    price       Decimal(10, 2),
    currency    LowCardinality(String),
    country     LowCardinality(String),
    device      LowCardinality(String),
    referrer    LowCardinality(String),
    ts          DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (ts, session_id)
SETTINGS non_replicated_deduplication_window = 100000
