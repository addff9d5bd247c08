//! Where rows go: blocks, tokens, and the seam to ClickHouse.
//!
//! A [`BlockBuilder`] lives in the worker and turns rows into a sealed [`Block`]; a [`Sink`] lives in the delivery
//! threads and sends a block under its token.

pub mod clickhouse;
pub mod dead_letter;
pub mod kafka_letters;
pub mod memory;

use crate::codec::rows::{BadRow, Rows};
use crate::error::Result;
use bytes::Bytes;

/// The idempotence key of a block: `weir1/<pipeline>/<partition>/<incarnation>/<epoch>/<output>/<db>/<table>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, bincode::Encode, bincode::Decode)]
pub struct Token(pub String);

/// The encoded rows of one epoch for one output, compressed, as they go over the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Column names and types as sent; compared with the table before every delivery after a reconnect.
    pub header: Vec<ColumnHeader>,
    pub rows: u64,
    /// 128-bit hash over the uncompressed bytes: part of the epoch's link.
    pub hash: [u8; 16],
    /// The body of the INSERT.
    pub body: Bytes,
}

/// A column's name and type text, as in `system.columns`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, bincode::Encode, bincode::Decode)]
pub struct ColumnHeader {
    pub name: String,
    pub type_text: String,
}

/// A place in a builder to come back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuilderMark(pub u64);

/// Collects an epoch's rows for one output. Owned by a task.
pub trait BlockBuilder: Send {
    /// Appends the rows of `alive`, in that order. A row with a value that does not fit is named in `bad` (one
    /// entry per row, by ascending place in `alive`) and the caller then rolls back: after a call with bad rows
    /// the builder's content is not to be used without `rollback`.
    fn append(&mut self, rows: &Rows, alive: &[u32], bad: &mut Vec<BadRow>);

    /// The state now; stays valid until `rollback` to an earlier one or `seal`.
    fn mark(&mut self) -> BuilderMark;

    /// Forgets all that came after `mark`.
    fn rollback(&mut self, mark: BuilderMark);

    /// Rows collected.
    fn rows(&self) -> u64;

    /// Uncompressed bytes collected.
    fn bytes(&self) -> usize;

    /// Encodes, compresses and empties the builder. `None` without rows.
    fn seal(&mut self) -> Option<Block>;
}

/// The code of an error by which a sink refuses a block before anything of it was sent. With every other error the block
/// may be in the table: a server that refuses one because a view throws has stored it already (measured).
pub const NOT_SENT: &str = "table_changed";

/// Sends blocks. Called from delivery's threads; one call is one attempt.
pub trait Sink: Send + Sync {
    /// One attempt to insert the block under its token. `Ok` only when the table has acknowledged it. After an error
    /// it may or may not have been applied, but with [`NOT_SENT`]: the same bytes go out again under the same token.
    fn insert(&self, token: &Token, block: &Block) -> impl Future<Output = Result<()>> + Send;

    /// How many rows of these ranges (topic, from, to; half-open offsets) of a partition are there already; `None`
    /// where that cannot be known.
    fn holds(&self, partition: i32, ranges: &[(String, i64, i64)]) -> impl Future<Output = Result<Option<u64>>> + Send {
        let _ = (partition, ranges);
        async { Ok(None) }
    }
}
