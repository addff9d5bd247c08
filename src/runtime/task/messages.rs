//! What is said to a task, what it says, and the attempts that it hands to delivery.

use super::discard::{DiscardAnswer, DiscardRequest};
use super::replay::{ReplayAnswer, ReplayRequest};
use crate::error::Error;
use crate::runtime::commit::ToSend;
use crate::sink::Block;
use crate::source::OffsetsToCommit;
use crate::types::Epoch;
use std::sync::atomic::AtomicUsize;

/// Which task: the pipeline by its place, the partition, and the assignment under which it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId {
    pub pipeline: usize,
    pub partition: i32,
    pub assignment: u64,
}

/// What a task is told.
#[derive(Debug)]
pub enum ToTask {
    /// The offer of that number was accepted; it was handed to the client at that time (boot clock).
    Accepted {
        offer: u64,
        handed_ms: u64,
    },
    Refused {
        offer: u64,
    },
    Fenced(bool),
    /// Seal, store, deliver, commit, then say `Gone`; at the deadline (boot clock) say it anyway.
    Drain {
        deadline_ms: Option<u64>,
    },
    /// Replay these dead letters.
    Replay(ReplayRequest),
    /// Take this block out of the outbox.
    Discard(DiscardRequest),
    /// Delivery's answer.
    Attempted {
        epoch: Epoch,
        output: u16,
        outcome: AttemptOutcome,
    },
}

impl ToTask {
    /// Nobody is there to do it.
    pub fn refuse(self, why: String) {
        match self {
            ToTask::Replay(request) => _ = request.answer.send(ReplayAnswer::Refused(why)),
            ToTask::Discard(request) => _ = request.answer.send(DiscardAnswer::NotBegun(why)),
            _ => {}
        }
    }
}

/// How an attempt to insert ended.
#[derive(Clone, PartialEq, Debug)]
pub enum AttemptOutcome {
    Acknowledged {
        seconds: f64,
    },
    /// It did not begin: the lease had run out.
    NotBegun,
    Failed(Error),
}

/// What a task says to its coordinator.
#[derive(Debug)]
pub enum FromTask {
    Offer {
        offer: u64,
        commit: OffsetsToCommit,
    },
    /// What was stored is delivered: decide again how to begin.
    DecideAgain,
    /// A sample of the keys of a dedup step in an epoch, by the upper half of their hashes.
    Keys {
        step: usize,
        keys: Vec<u64>,
    },
    /// The task has ended; `finished` when there is nothing left to do for it.
    Gone {
        finished: bool,
    },
    Failed(Error),
}

/// An insert to be tried now.
#[derive(Debug)]
pub struct Attempt {
    pub task: TaskId,
    pub send: ToSend,
    pub block: Block,
    /// Set when the table may have forgotten the token.
    pub stale: Option<Stale>,
}

/// A block to be looked for before it is sent again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stale {
    /// Topic and half-open offsets of its epoch.
    pub ranges: Vec<(String, i64, i64)>,
    /// Send it when the table cannot be asked (`on_unclear: resend`).
    pub resend: bool,
}

/// Which tasks of a table have blocks that may already be in it: those go before any new one, so that new tokens
/// do not push theirs out of the table's window.
#[derive(Debug, Default)]
pub struct Gate {
    pub(super) unclear: AtomicUsize,
}
