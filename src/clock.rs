//! The door through which time comes in. Nothing below `runtime` holds a clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Two clocks: the wall (for `note_ms` and `max_future`), and one that never goes back.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since some start, running on while the machine sleeps (`CLOCK_BOOTTIME`): leases,
    /// batch ages, backoff.
    fn boot_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as i64
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn boot_ms(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid timespec for the call to fill; CLOCK_BOOTTIME exists since Linux 2.6.39.
        let code = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
        assert_eq!(code, 0, "CLOCK_BOOTTIME is readable");
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn boot_ms(&self) -> u64 {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as u64
    }
}
