//! The real parts that tests start, hurt and stop: Kafka, ClickHouse, Redis, and a proxy that loses things.
//!
//! A test target takes it with `mod support;` (or `#[path]`). Promises: everything listens on loopback, lives in a
//! temporary folder, ends with the test process however that ends, and every wait has a deadline that says what
//! it waited for.
#![allow(dead_code)] // Every target uses another part of it.

pub mod clickhouse;
pub mod disk;
pub mod kafka;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod standin;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Long enough for two cores with eight busy processes; only what hangs ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Asks until there is an answer, and fails with the sentence when `wait` has passed.
pub fn wait_for<T>(what: &str, wait: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < wait, "waited {wait:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Draws a seed, and says it: `WEIR_SEED` repeats a run's choices.
pub fn seed(what: &str) -> u64 {
    let drawn = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(drawn);
    println!("{what}: WEIR_SEED={seed}");
    seed
}

/// A free loopback port below the range that outgoing connections take theirs from, so that a part which is away
/// for a while finds its port free when it comes back.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    // Test processes run side by side: each begins at a place of its own.
    let begin = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin + step % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
