//! Every default of the language, in one place. The tables of `spec` name them for people; a test compares.

pub const STATE_PATH: &str = "./data";
pub const RETAIN_LEFT_MS: i64 = 24 * 3_600_000;
pub const HTTP_LISTEN: &str = "127.0.0.1:8080";
pub const MAX_PAYLOAD_BYTES: u64 = 16 << 20;
pub const ZONE: &str = "UTC";
pub const LATENESS_MS: i64 = 0;
pub const IDLE_MS: i64 = 30_000;
pub const MAX_FUTURE_MS: i64 = 3_600_000;
pub const BATCH_ROWS: u64 = 100_000;
pub const BATCH_BYTES: u64 = 32 << 20;
pub const BATCH_INTERVAL_MS: i64 = 10_000;
pub const DATABASE: &str = "default";
pub const USER: &str = "default";
/// Large enough to look at what went wrong, small enough for any disk that holds state.
pub const DEAD_LETTERS_BYTES: u64 = 1 << 30;

/// The consumer group of a pipeline that names none.
pub fn group(pipeline: &str) -> String {
    format!("weir-{pipeline}")
}

/// Waiting rows of one key and side of a join.
pub const ROWS_PER_KEY: u64 = 100_000;

/// How far one side of a join may run ahead: ten times its window. Never nothing, or nobody could go first.
pub fn max_skew_ms(window_ms: i64) -> i64 {
    window_ms.saturating_mul(10).max(1)
}
