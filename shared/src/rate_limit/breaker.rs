//! Keeps requests from waiting for a Redis that does not respond.
//!
//! Invariant: after a failure nobody tries for [`PAUSE`], then one request does. The others do not
//! wait for the result.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Time without a try after a failure.
const PAUSE: Duration = Duration::from_secs(1);
const CLOSED: u64 = 0;

/// Whether calls are tried.
pub(super) struct Breaker {
    started: Instant,
    /// When the next call is tried, in milliseconds since `started`; [`CLOSED`] if all are.
    next_try_ms: AtomicU64,
}

impl Breaker {
    pub(super) fn closed() -> Self {
        Self { started: Instant::now(), next_try_ms: AtomicU64::new(CLOSED) }
    }

    /// Whether the caller may try.
    pub(super) fn may_try(&self) -> bool {
        let next = self.next_try_ms.load(Ordering::Relaxed);
        let claim =
            || self.next_try_ms.compare_exchange(next, self.after_pause(), Ordering::Relaxed, Ordering::Relaxed);
        next == CLOSED || (self.elapsed_ms() >= next && claim().is_ok())
    }

    /// Notes a failure. Returns whether it is the first one.
    pub(super) fn open(&self) -> bool {
        self.next_try_ms.swap(self.after_pause(), Ordering::Relaxed) == CLOSED
    }

    /// Notes a success. Returns whether it ends an outage.
    pub(super) fn close(&self) -> bool {
        // Most calls succeed; they only read.
        self.next_try_ms.load(Ordering::Relaxed) != CLOSED && self.next_try_ms.swap(CLOSED, Ordering::Relaxed) != CLOSED
    }

    fn after_pause(&self) -> u64 {
        self.elapsed_ms() + u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX / 2)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_one_caller_tries() {
        let breaker = Breaker::closed();
        assert!(breaker.may_try() && breaker.may_try());
        assert!(breaker.open(), "the first failure");
        assert!(!breaker.open() && !breaker.may_try());
        breaker.next_try_ms.store(breaker.elapsed_ms().max(1), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(breaker.may_try(), "the pause is over");
        assert!(!breaker.may_try(), "one tries");
        assert!(breaker.close() && !breaker.close());
        assert!(breaker.may_try() && breaker.may_try());
    }
}
