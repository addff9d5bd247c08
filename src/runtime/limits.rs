//! Every bound of the engine, with its reason. What waits is bounded; waiting is how we push back.

/// Records of one pass: enough to make per-batch costs vanish, few enough to stay in the caches.
pub const PASS_RECORDS_MAX: usize = 4096;

/// Bytes of one pass.
pub const PASS_BYTES_MAX: usize = 4 << 20;

/// How long the other inputs of a task wait for one that has nothing although its log goes on: longer than a fetch and
/// an election take, short enough that a partition whose leader stays away does not stop them.
pub const INPUT_WAIT_MS: u64 = 5_000;

/// An input that was not asked for records for longer than this is not known to be at its end any more: a worker asks
/// several times a second, unless the task has no room or the process slept.
pub const INPUT_ALONE_MS: u64 = 2_000;

/// Epochs of a task that are sealed and not acknowledged: one under way, some ready behind it. More would only
/// move lag from Kafka to our disk.
pub const OUTBOX_EPOCHS_MAX: usize = 4;

/// Bytes of a task's blocks that are sealed and not acknowledged.
pub const OUTBOX_BYTES_MAX: u64 = 64 << 20;

/// Records of one epoch: an epoch of nothing but duplicates must end, too.
pub const EPOCH_RECORDS_MAX: u64 = 2_000_000;

/// State changes of one epoch that wait in memory.
pub const EPOCH_STATE_BYTES_MAX: usize = 64 << 20;

/// Bytes of dead letters of one epoch that wait in memory; where memory is short, its share of it.
pub const EPOCH_LETTER_BYTES_MAX: usize = 16 << 20;

/// Records of one replay epoch, where the mark has room for their names ([`crate::state::ledger::mark_room`] bounds
/// those, and the cuts of any other epoch).
pub const REPLAY_RECORDS_MAX: usize = 100;

/// Requests to replay, and likewise to discard, that wait at a task; more are refused, and nobody waits that long.
pub const TASK_REQUESTS_MAX: usize = 64;

/// How much is re-read between two stores of a restore.
pub const REREAD_RECORDS_MAX: u64 = 200_000;

/// Messages to a worker: each task has few that wait for an answer.
pub const WORKER_INBOX_MAX: usize = 4096;

/// Attempts handed to delivery and not begun. Each task has at most one epoch under way.
pub const DELIVERY_QUEUE_MAX: usize = 1024;

/// A clean stop waits this long for ClickHouse.
pub const STOP_WAIT_MS: u64 = 10_000;

/// A failed delivery that only a person can mend is tried again at this interval.
pub const STOPPED_RETRY_MS: u64 = 10_000;

/// How often topics are looked at: their ids, their partition counts.
pub const LOOK_AROUND_MS: u64 = 5_000;

/// When a partition that could not begin (it has no leader) is tried again: the question may take seconds.
pub const OPEN_AGAIN_MS: u64 = 15_000;

/// A block that may be in the table for longer than this goes before any new one of the table. Shorter troubles cannot
/// push its token out of a window that holds two hours of parts.
pub const GATE_AFTER_MS: u64 = 10_000;

/// Backoff of retryable errors: full jitter below `BACKOFF_FIRST_MS × 2^n`, at most `BACKOFF_MAX_MS`, and half of the
/// first at least.
pub const BACKOFF_FIRST_MS: u64 = 100;
pub const BACKOFF_MAX_MS: u64 = 30_000;

/// How long to wait before attempt `attempt` (from 1): full jitter. Chance comes from `seed`, so that a
/// simulation repeats itself.
pub fn backoff_ms(attempt: u32, seed: u64) -> u64 {
    let ceiling = BACKOFF_FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(BACKOFF_MAX_MS);
    let chance = xxhash_rust::xxh3::xxh3_64_with_seed(&attempt.to_le_bytes(), seed);
    (chance % ceiling).max(BACKOFF_FIRST_MS / 2)
}
