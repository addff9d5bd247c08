//! What RocksDB may forget of `seen` while it compacts: chunks whose newest time the window has passed. (The past of a
//! task that was set aside goes by a deleted range, `ledger::clear_retired`.)
//!
//! Reads never depend on it. A compaction works with the horizons of the moment it began.

use crate::state::keys::{SEEN_PREFIX_LEN, seen_chunk_parts, seen_prefix};
use crate::state::seen::newest_ms;
use crate::types::TaskNo;
use rocksdb::CompactionDecision as Decision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

type Prefix = [u8; SEEN_PREFIX_LEN];

/// Below which time a step's chunks may go.
type Horizons = BTreeMap<Prefix, i64>;

/// The published horizons of one store; clones share them.
#[derive(Clone, Default, Debug)]
pub(super) struct Reclaim(Arc<Mutex<Horizons>>);

impl Reclaim {
    pub fn set_horizon(&self, task: TaskNo, step: u16, horizon_ms: i64) {
        let mut horizons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let published = horizons.entry(seen_prefix(task, step)).or_insert(horizon_ms);
        *published = horizon_ms.max(*published);
    }
}

impl CompactionFilterFactory for Reclaim {
    type Filter = Sieve;

    fn create(&mut self, _: CompactionFilterContext) -> Sieve {
        let horizons = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Sieve { horizons, current: None }
    }

    fn name(&self) -> &CStr {
        c"weir.seen"
    }
}

/// What one compaction lets go.
pub(super) struct Sieve {
    horizons: Horizons,
    /// The step that the keys now belong to, and its horizon: keys come in order.
    current: Option<(Prefix, Option<i64>)>,
}

impl Sieve {
    #[inline]
    fn horizon_ms(&mut self, prefix: Prefix) -> Option<i64> {
        match self.current {
            Some((current, horizon_ms)) if current == prefix => horizon_ms,
            _ => self.change_to(prefix),
        }
    }

    fn change_to(&mut self, prefix: Prefix) -> Option<i64> {
        let horizon_ms = self.horizons.get(&prefix).copied();
        self.current = Some((prefix, horizon_ms));
        horizon_ms
    }
}

impl CompactionFilter for Sieve {
    #[inline]
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        let Some(prefix) = key.first_chunk() else { return Decision::Keep };
        match self.horizon_ms(*prefix) {
            Some(horizon_ms) if is_passed_chunk(key, value, horizon_ms) => Decision::Remove,
            _ => Decision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"weir.seen"
    }
}

/// Readers take a chunk that is gone for an empty one; manifests and journals they need.
fn is_passed_chunk(key: &[u8], value: &[u8], horizon_ms: i64) -> bool {
    seen_chunk_parts(key).is_some() && newest_ms(value).is_some_and(|newest_ms| newest_ms < horizon_ms)
}
