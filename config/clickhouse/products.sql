-- For config/pipelines/keep-latest.yaml: a merge keeps the newest version of each product.
CREATE TABLE IF NOT EXISTS products
(
    product_id  UInt64,
    name        String,
    stock       Int32,
    updated_at  DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY product_id
SETTINGS non_replicated_deduplication_window = 100000
