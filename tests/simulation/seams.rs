//! The seams of a simulated process: every call to the outside is counted, traced, and a place to die.
//!
//! A crash is a panic that carries [`Crashed`]: it unwinds out of the real code exactly where the call was made,
//! and the world throws away what the process held in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir::clock::Clock;

/// The panic of a simulated `kill -9`.
pub struct Crashed;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The call has had no effect.
    Before,
    /// The call has had its effect and its caller never learns so.
    After,
}

/// What all processes of a world share with it: clock, call counter, trace.
#[derive(Clone, Default)]
pub struct Seams(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    boot_ms: u64,
    calls: u64,
    crash_at: Option<(u64, Side)>,
    trace: Option<Vec<String>>,
}

impl Seams {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A crash never happens while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call to the outside.
    pub fn call<T>(&self, name: &'static str, act: impl FnOnce() -> T) -> T {
        let number = self.count();
        if name != "fill" {
            self.note(|| format!("call {number}: {name}"));
        }
        self.die_at(number, Side::Before);
        let result = act();
        self.die_at(number, Side::After);
        result
    }

    fn count(&self) -> u64 {
        let mut inner = self.inner();
        inner.calls += 1;
        inner.calls
    }

    fn die_at(&self, number: u64, side: Side) {
        let dies = self.inner().crash_at.take_if(|at| *at == (number, side)).is_some();
        if dies {
            std::panic::resume_unwind(Box::new(Crashed));
        }
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// Whoever makes call number `number` dies there.
    pub fn crash_at(&self, number: u64, side: Side) {
        self.inner().crash_at = Some((number, side));
    }

    pub fn is_crash_planned(&self) -> bool {
        self.inner().crash_at.is_some()
    }

    pub fn cancel_crash(&self) {
        self.inner().crash_at = None;
    }

    pub fn keep_trace(&self) {
        self.inner().trace = Some(Vec::new());
    }

    /// Writes a line into the trace, if one is kept.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut inner = self.inner();
        let boot_ms = inner.boot_ms;
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("{boot_ms:>7} {}", line()));
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.inner().trace.clone().unwrap_or_default()
    }

    pub fn now_ms(&self) -> u64 {
        self.inner().boot_ms
    }

    pub fn advance(&self, by_ms: u64) {
        self.inner().boot_ms += by_ms;
    }
}

/// The wall clock begins here; the records' times lie around it.
pub const WALL_START_MS: i64 = 1_700_000_000_000;

/// The two clocks of one process; its wall clock may be wrong.
pub struct SimClock {
    pub seams: Seams,
    pub wall_error_ms: i64,
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        WALL_START_MS + self.seams.now_ms() as i64 + self.wall_error_ms
    }

    fn boot_ms(&self) -> u64 {
        self.seams.now_ms()
    }
}
