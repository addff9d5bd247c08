-- For config/pipelines/orders-payments.yaml: one row per pair, and per order without a payment.
CREATE TABLE IF NOT EXISTS orders_and_payments
(
    order_id    String,
    amount      Decimal(12, 2),
    placed_at   DateTime64(3, 'UTC'),
    payment_id  Nullable(String),
    paid        Nullable(Decimal(12, 2)),
    paid_at     Nullable(DateTime64(3, 'UTC'))
)
ENGINE = MergeTree
ORDER BY (placed_at, order_id)
SETTINGS non_replicated_deduplication_window = 100000
