//! The memory ceiling: what each part may hold, computed at start so that the sum stays below the limit.
//!
//! Owns the division. Fetch queues, open and sealed blocks, state changes and filters are per task, so a pipeline
//! with more partitions gives each less; below a least share it is refused, with the sum.

use crate::error::{Error, Result};
use crate::runtime::limits;
use crate::step::join::OUTPUT_BYTES_MAX;
use std::fmt;

const MIB: u64 = 1 << 20;

/// What the process shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    pub block_cache_bytes: u64,
    pub write_buffer_bytes: u64,
}

/// What one task may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskMemory {
    /// Of each input's queue in the Kafka client.
    pub queue_bytes: u64,
    /// Of the open block: an epoch is sealed there at the latest.
    pub block_bytes: u64,
    /// Of sealed blocks that are not acknowledged.
    pub outbox_bytes: u64,
    /// Of state changes that are not stored.
    pub state_bytes: u64,
    /// Of the filters and the recent keys in front of the dedup state.
    pub filter_bytes: u64,
    /// Of the newest rows of each side of a join.
    pub side_bytes: u64,
    /// Of the dead letters of the open epoch.
    pub letter_bytes: u64,
}

/// Limits of one pipeline and their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipelineMemory {
    pub task: TaskMemory,
    pub tasks: u64,
    pub inputs: u64,
    /// Sides of joins.
    pub sides: u64,
}

impl SharedMemory {
    /// Of the process: an eighth each, within what has been seen to help.
    pub fn of(limit_bytes: u64) -> SharedMemory {
        SharedMemory {
            block_cache_bytes: (limit_bytes / 8).clamp(8 * MIB, 256 * MIB),
            write_buffer_bytes: (limit_bytes / 8).clamp(8 * MIB, 256 * MIB),
        }
    }

    pub fn sum(&self) -> u64 {
        self.block_cache_bytes + self.write_buffer_bytes
    }
}

/// Divides the limit among the pipelines' tasks. `batch_bytes` is what the user wants of a block.
///
/// # Errors
/// The least that the tasks need is more than the limit.
pub fn divide(
    limit_bytes: u64,
    pipelines: u64,
    tasks: u64,
    inputs: u64,
    sides: u64,
    batch_bytes: u64,
    workers: u64,
) -> Result<PipelineMemory> {
    let shared = SharedMemory::of(limit_bytes);
    // A worker's pass: arena and rows, twice; and what a join makes of one.
    let joined = if sides > 0 { OUTPUT_BYTES_MAX as u64 } else { 0 };
    let passes = workers * (4 * limits::PASS_BYTES_MAX as u64 + joined);
    let free = limit_bytes.saturating_sub(shared.sum() + passes) / pipelines.max(1);
    let share = free / tasks.max(1);
    // Joins take a fifth of it, all sides together.
    let of_joins = if sides > 0 { share / 5 } else { 0 };
    let share = share - of_joins;
    let part = |percent: u64, least: u64, most: u64| (share * percent / 100).clamp(least.min(most), most);
    let task = TaskMemory {
        queue_bytes: (share * 20 / 100 / inputs.max(1)).clamp(MIB, 8 * MIB),
        // A block exists raw, and compressed while it is stored.
        block_bytes: part(12, MIB, batch_bytes),
        outbox_bytes: part(25, MIB, limits::OUTBOX_BYTES_MAX),
        state_bytes: part(12, MIB, limits::EPOCH_STATE_BYTES_MAX as u64),
        filter_bytes: part(15, MIB, 1 << 30),
        letter_bytes: part(4, MIB / 2, limits::EPOCH_LETTER_BYTES_MAX as u64),
        side_bytes: of_joins.checked_div(sides).map_or(0, |bytes| bytes.clamp(MIB, 16 * MIB)),
    };
    let memory = PipelineMemory { task, tasks, inputs, sides };
    if memory.sum() > free {
        return Err(Error::stop(
            "memory_limit",
            format!(
                "{tasks} tasks need at least {} MiB, and `runtime.memory_limit` leaves {} MiB for them: raise it, or \
                 run more instances",
                memory.sum() / MIB,
                free / MIB
            ),
        ));
    }
    Ok(memory)
}

impl PipelineMemory {
    /// The most that all tasks hold together.
    pub fn sum(&self) -> u64 {
        let TaskMemory { queue_bytes, block_bytes, outbox_bytes, state_bytes, filter_bytes, side_bytes, letter_bytes } =
            self.task;
        let of_sides = side_bytes * self.sides;
        self.tasks
            * (queue_bytes * self.inputs
                + 2 * block_bytes
                + outbox_bytes
                + state_bytes
                + filter_bytes
                + letter_bytes
                + of_sides)
    }
}

impl fmt::Display for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block cache {} + write buffers {} MiB", self.block_cache_bytes / MIB, self.write_buffer_bytes / MIB)
    }
}

impl fmt::Display for PipelineMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskMemory { queue_bytes, block_bytes, outbox_bytes, state_bytes, filter_bytes, side_bytes, letter_bytes } =
            self.task;
        let joins = if self.sides > 0 { format!(" + joins {}", side_bytes * self.sides / MIB) } else { String::new() };
        write!(
            f,
            "{} tasks × (queue {} + block 2 × {} + outbox {} + state {} + filter {} + dead letters {}{joins} MiB) = {} MiB \
             at most",
            self.tasks,
            queue_bytes * self.inputs / MIB,
            block_bytes / MIB,
            outbox_bytes / MIB,
            state_bytes / MIB,
            filter_bytes / MIB,
            letter_bytes / MIB,
            self.sum() / MIB
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_stays_below_the_limit_or_is_refused() {
        for limit in [64 * MIB, 256 * MIB, 1 << 30, 8 << 30, 64 << 30] {
            for (tasks, sides) in [(1, 0), (1, 4), (2, 2), (8, 2), (64, 0), (512, 4)] {
                let divided = divide(limit, 1, tasks, 2, sides, 32 * MIB, 2);
                assert!(divided.is_ok() || limit < tasks * (21 << 20) + (100 << 20), "{limit} {tasks} {sides}");
                let Ok(memory) = divided else { continue };
                assert!(memory.sum() + SharedMemory::of(limit).sum() <= limit, "{limit} {tasks} {memory}");
            }
        }
    }

    #[test]
    fn a_small_block_is_as_small_as_it_is_wished() {
        let memory = divide(1 << 30, 1, 4, 1, 0, 512 << 10, 2).unwrap();
        assert_eq!(memory.task.block_bytes, 512 << 10);
    }

    #[test]
    fn too_many_tasks_for_the_limit_are_refused_with_the_numbers() {
        let error = divide(256 * MIB, 1, 1000, 1, 0, 32 * MIB, 2).unwrap_err();
        assert!(error.message.contains("1000 tasks need at least"), "{error}");
    }
}
