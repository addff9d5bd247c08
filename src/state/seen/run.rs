//! A run: sorted keys that were written together, cut into chunks by hash.
//!
//! Hashes lie evenly, so a key's place in its run is computed and there is no index: of `chunks`, the one at its
//! share of the whole.

use super::order::share_of;
use bincode::{Decode, Encode};
use std::ops::Range;

/// The end of all upper halves.
pub(super) const END: u128 = 1 << 64;

/// What the manifest says of a run.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Run {
    /// Drawn once: no other run of the table ever has it.
    pub number: u64,
    /// How often its keys were merged.
    pub level: u8,
    pub chunks: u32,
    pub keys: u64,
    /// The newest times of the runs it was made of: the earliest, and the latest, which is its own.
    pub first_ms: i64,
    pub newest_ms: i64,
}

impl Run {
    /// How many chunks so many keys take.
    pub fn chunks_of(keys: u64, chunk_keys: u64) -> u32 {
        keys.div_ceil(chunk_keys).clamp(1, u32::MAX as u64) as u32
    }

    /// The chunk of a key, by its upper half.
    #[inline]
    pub fn chunk_of(&self, upper: u64) -> u32 {
        share_of(upper, self.chunks as u64) as u32
    }

    /// Which share of its chunk's room lies before a key, in 2⁻⁶⁴.
    #[inline]
    pub fn share_in_chunk(&self, upper: u64) -> u64 {
        upper.wrapping_mul(self.chunks as u64)
    }

    /// The lowest upper half that belongs to a chunk: what is below it belongs to those before.
    pub fn start_of(&self, chunk: u32) -> u128 {
        ((chunk as u128) << 64).div_ceil(self.chunks as u128)
    }

    /// The chunks that hold upper halves of this range, which is not empty.
    pub fn chunks_within(&self, uppers: &Range<u128>) -> Range<u32> {
        self.chunk_of(uppers.start as u64)..self.chunk_of((uppers.end - 1) as u64) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn run(chunks: u32) -> Run {
        Run { number: 1, level: 0, chunks, keys: 0, first_ms: 0, newest_ms: 0 }
    }

    proptest! {
        #[test]
        fn a_chunk_holds_what_is_not_below_its_start(chunks in 1u32.., at: prop::sample::Index, upper: u64) {
            let run = run(chunks);
            let chunk = at.index(chunks as usize) as u32;
            let start = run.start_of(chunk);
            prop_assert_eq!(run.chunk_of(start as u64), chunk);
            prop_assert!(chunk == 0 || run.chunk_of(start as u64 - 1) == chunk - 1);
            prop_assert_eq!(run.chunk_of(upper) < chunk, (upper as u128) < start);
            prop_assert_eq!(run.start_of(chunks), END);
        }
    }
}
