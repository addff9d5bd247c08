-- For config/pipelines/full-join.yaml: either side may be alone.
CREATE TABLE IF NOT EXISTS impressions_and_clicks
(
    impression_id  String,
    campaign       Nullable(String),
    shown_at       Nullable(DateTime64(3, 'UTC')),
    click_id       Nullable(String),
    clicked_at     Nullable(DateTime64(3, 'UTC'))
)
ENGINE = MergeTree
ORDER BY impression_id
SETTINGS non_replicated_deduplication_window = 100000
