//! Rate limit for panic reports on standard error. A kind that panics thousands of times would
//! otherwise spend more time on reports and their backtraces, under one lock, than on its runs.
//!
//! Invariant: the first panics of each second are reported in full, and the number of omitted
//! reports is logged with the next one. The panic of a run is recorded in its job's errors in any
//! case.

use std::{
    panic,
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

/// Period over which reports are counted.
const SPAN: Duration = Duration::from_secs(1);
/// Maximum number of reports per `SPAN`.
const MOST: u32 = 3;

/// Installs the limit for this process, once.
pub fn bound_reports() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        let reports = Mutex::new(Reports::new(Instant::now()));
        panic::set_hook(Box::new(move |info| {
            let taken = reports.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
            if let Some(left_out) = taken {
                if left_out > 0 {
                    tracing::error!(left_out, "more threads panicked than are reported");
                }
                report(info);
            }
        }));
    });
}

struct Reports {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Reports {
    const fn new(since: Instant) -> Self {
        Self { since, written: 0, left_out: 0 }
    }

    /// The number of reports omitted before this one; `None` if this one is omitted too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= SPAN {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= MOST {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_are_reported_and_the_others_counted() {
        let began = Instant::now();
        let mut reports = Reports::new(began);
        let reported: Vec<_> = (0..100).filter_map(|_| reports.take(began)).collect();
        assert_eq!(reported, [0, 0, 0]);
        assert_eq!(reports.take(began + SPAN / 2), None);
        assert_eq!(reports.take(began + SPAN), Some(98));
        assert_eq!(reports.take(began + SPAN), Some(0));
    }
}
