//! Numbers of the process that belong to no pipeline: what it is, and how busy its workers are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Publishes them when called; the busy share is that since the call before.
pub fn publisher(busy_ns: Vec<Arc<AtomicU64>>) -> Arc<dyn Fn() + Send + Sync> {
    let before = Mutex::new((Instant::now(), vec![0u64; busy_ns.len()]));
    Arc::new(move || {
        let version = env!("CARGO_PKG_VERSION");
        let (librdkafka, rocksdb) = (crate::source::client_version(), crate::state::engine_version());
        metrics::gauge!("weir_build_info", "version" => version, "librdkafka" => librdkafka, "rocksdb" => rocksdb)
            .set(1.0);
        let mut before = before.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let elapsed_ns = before.0.elapsed().as_nanos().max(1) as f64;
        before.0 = Instant::now();
        for (worker, busy) in busy_ns.iter().enumerate() {
            let now = busy.load(Relaxed);
            let share = (now - before.1[worker]) as f64 / elapsed_ns;
            before.1[worker] = now;
            metrics::gauge!("weir_worker_busy_ratio", "worker" => worker.to_string()).set(share.min(1.0));
        }
    })
}
