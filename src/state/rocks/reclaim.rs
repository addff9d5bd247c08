//! What RocksDB may forget of `seen` while it compacts: chunks whose newest time the window has passed, and the past
//! of tasks that were set aside.
//!
//! Reads never depend on it. A compaction works with the horizons of the moment it began.

use crate::state::keys::{SEEN_PREFIX_LEN, seen_chunk_parts, seen_prefix};
use crate::state::seen::newest_ms;
use crate::types::TaskNo;
use rocksdb::CompactionDecision as Decision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

type Prefix = [u8; SEEN_PREFIX_LEN];

/// What may go.
#[derive(Clone, Default, Debug)]
struct Horizons {
    of_step: BTreeMap<Prefix, i64>,
    retired: BTreeSet<[u8; 4]>,
}

/// The published horizons of one store; clones share them.
#[derive(Clone, Default, Debug)]
pub(super) struct Reclaim(Arc<Mutex<Horizons>>);

impl Reclaim {
    pub fn set_horizon(&self, task: TaskNo, step: u16, horizon_ms: i64) {
        let mut horizons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let published = horizons.of_step.entry(seen_prefix(task, step)).or_insert(horizon_ms);
        *published = horizon_ms.max(*published);
    }

    pub fn set_retired(&self, task: TaskNo) {
        let mut horizons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        horizons.of_step.retain(|prefix, _| prefix[..4] != task.0.to_be_bytes());
        horizons.retired.insert(task.0.to_be_bytes());
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
    /// The step that the keys now belong to, and what may go of it: keys come in order.
    current: Option<(Prefix, Rule)>,
}

#[derive(Clone, Copy)]
enum Rule {
    Keep,
    Below(i64),
    Retired,
}

impl Sieve {
    #[inline]
    fn rule(&mut self, prefix: Prefix) -> Rule {
        match self.current {
            Some((current, rule)) if current == prefix => rule,
            _ => self.change_to(prefix),
        }
    }

    fn change_to(&mut self, prefix: Prefix) -> Rule {
        let is_retired = prefix.first_chunk().is_some_and(|task| self.horizons.retired.contains(task));
        let rule = match self.horizons.of_step.get(&prefix) {
            _ if is_retired => Rule::Retired,
            Some(&horizon_ms) => Rule::Below(horizon_ms),
            None => Rule::Keep,
        };
        self.current = Some((prefix, rule));
        rule
    }
}

impl CompactionFilter for Sieve {
    #[inline]
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        let Some(prefix) = key.first_chunk() else { return Decision::Keep };
        match self.rule(*prefix) {
            Rule::Retired => Decision::Remove,
            Rule::Below(horizon_ms) if is_passed_chunk(key, value, horizon_ms) => Decision::Remove,
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
