-- For config/pipelines/keep-changes.yaml.
CREATE TABLE IF NOT EXISTS device_changes
(
    device_id   String,
    status      LowCardinality(String),
    firmware    LowCardinality(String),
    site        LowCardinality(String),
    _timestamp  DateTime64(3, 'UTC'),
    _partition  Int32,
    _offset     Int64
)
ENGINE = MergeTree
ORDER BY (device_id, _timestamp)
SETTINGS non_replicated_deduplication_window = 100000
