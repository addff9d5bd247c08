-- For config/pipelines/composite-key.yaml.
CREATE TABLE IF NOT EXISTS price_offers
(
    shop_id     LowCardinality(String),
    product_id  String,
    price       Decimal(10, 2),
    offered_at  DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (shop_id, product_id, offered_at)
SETTINGS non_replicated_deduplication_window = 100000
