//! What others may look at of a pipeline that runs: its dead letters and its outbox.
//!
//! Owns nothing that keeps the state directory open: when the pipeline ends, there is nothing to look at.

use crate::config::plan::PipelinePlan;
use crate::state::letters::Letters;
use crate::state::rocks::RocksStore;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub struct Desk {
    pub plan: PipelinePlan,
    open: Mutex<Option<(Weak<RocksStore>, Weak<Letters>)>>,
}

impl Desk {
    pub fn new(plan: PipelinePlan) -> Desk {
        Desk { plan, open: Mutex::new(None) }
    }

    /// The pipeline has opened its directory.
    pub fn open(&self, store: &Arc<RocksStore>, letters: &Arc<Letters>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Arc::downgrade(store), Arc::downgrade(letters)));
    }

    /// `None` while the pipeline does not run.
    pub fn letters(&self) -> Option<Arc<Letters>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.1.upgrade()
    }

    /// `None` while the pipeline does not run.
    pub fn store(&self) -> Option<Arc<RocksStore>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.0.upgrade()
    }
}
