//! A table in memory: keeps blocks and drops those whose token it has seen, as ClickHouse does.
//!
//! For tests and simulations. Promises: an attempt that is told to fail fails before or after it was applied, as
//! asked; a token is known as long as it is in the window.

use super::{Block, Sink, Token};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Mutex;

/// How an attempt fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing arrived.
    RequestLost,
    /// It was applied, and nobody heard of it.
    AnswerLost,
    /// The table refuses it.
    Refused(Error),
}

/// The table.
pub struct MemorySink {
    inner: Mutex<Inner>,
}

struct Inner {
    applied: Vec<(Token, Block)>,
    window: VecDeque<Token>,
    window_len: usize,
    faults: VecDeque<Option<Fault>>,
    attempts: u64,
}

impl MemorySink {
    /// A table that remembers the last `window_len` tokens.
    pub fn new(window_len: usize) -> MemorySink {
        let inner =
            Inner { applied: Vec::new(), window: VecDeque::new(), window_len, faults: VecDeque::new(), attempts: 0 };
        MemorySink { inner: Mutex::new(inner) }
    }

    /// What happens to the attempts to come, one each; `None` is a good one. All after these are good.
    pub fn plan(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.lock().faults.extend(faults);
    }

    /// All blocks that were applied, in order, with their tokens.
    pub fn applied(&self) -> Vec<(Token, Block)> {
        self.lock().applied.clone()
    }

    /// How many attempts there were.
    pub fn attempts(&self) -> u64 {
        self.lock().attempts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

impl Inner {
    fn apply(&mut self, token: &Token, block: &Block) {
        if self.window.contains(token) {
            return;
        }
        self.applied.push((token.clone(), block.clone()));
        self.window.push_back(token.clone());
        if self.window.len() > self.window_len {
            self.window.pop_front();
        }
    }
}

impl Sink for MemorySink {
    async fn insert(&self, token: &Token, block: &Block) -> Result<()> {
        let mut inner = self.lock();
        inner.attempts += 1;
        match inner.faults.pop_front().flatten() {
            None => {
                inner.apply(token, block);
                Ok(())
            }
            Some(Fault::RequestLost) => Err(Error::retry("network", "the request was lost")),
            Some(Fault::AnswerLost) => {
                inner.apply(token, block);
                Err(Error::retry("network", "the answer was lost"))
            }
            Some(Fault::Refused(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use bytes::Bytes;

    fn block(rows: u64) -> Block {
        Block { header: Vec::new(), rows, hash: [0; 16], body: Bytes::new() }
    }

    #[tokio::test]
    async fn a_token_counts_once_while_it_is_in_the_window() {
        let sink = MemorySink::new(1);
        let (a, b) = (Token("a".to_owned()), Token("b".to_owned()));
        sink.plan([Some(Fault::RequestLost), Some(Fault::AnswerLost)]);
        assert_eq!(sink.insert(&a, &block(1)).await.unwrap_err().kind, Kind::Retry);
        assert_eq!(sink.applied().len(), 0);
        assert!(sink.insert(&a, &block(1)).await.is_err());
        sink.insert(&a, &block(1)).await.unwrap();
        assert_eq!(sink.applied().len(), 1);
        sink.insert(&b, &block(1)).await.unwrap();
        sink.insert(&a, &block(1)).await.unwrap();
        assert_eq!(sink.applied().len(), 3);
        assert_eq!(sink.attempts(), 5);
    }
}
