-- For config/pipelines/sessions.yaml: one row per session and kind of event.
CREATE TABLE IF NOT EXISTS session_events
(
    session_id  String,
    event_type  LowCardinality(String),
    user_name   String,
    user_email  Nullable(String),
    timestamp   DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (timestamp, session_id)
SETTINGS non_replicated_deduplication_window = 100000
