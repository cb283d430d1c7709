//! Cost of a start in addition to the run: measured by workers, charged by `lua/lib/fair_share.lua`.
//!
//! Invariant: a process that does not measure the cost sends an empty value, which never replaces a
//! measurement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const NOT_MEASURED: u64 = u64::MAX;

/// Cost of a start in worker time, shared by the clones of an [`super::Index`].
#[derive(Clone, Debug)]
pub struct StartCost {
    us: Arc<AtomicU64>,
}

impl Default for StartCost {
    fn default() -> Self {
        Self { us: Arc::new(AtomicU64::new(NOT_MEASURED)) }
    }
}

impl StartCost {
    /// Sets the measured cost.
    pub fn set(&self, cost: Duration) {
        self.us.store(u64::try_from(cost.as_micros()).unwrap_or(NOT_MEASURED), Ordering::Relaxed);
    }

    /// In milliseconds, as the scripts read it; empty if this process has not measured it.
    pub(super) fn as_ms(&self) -> String {
        match self.us.load(Ordering::Relaxed) {
            NOT_MEASURED => String::new(),
            us => format!("{}.{:03}", us / 1_000, us % 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_formatted_in_milliseconds() {
        let cost = StartCost::default();
        assert_eq!(cost.as_ms(), "");
        for (set, written) in [(0, "0.000"), (7, "0.007"), (1_250, "1.250"), (90_000, "90.000")] {
            cost.clone().set(Duration::from_micros(set));
            assert_eq!(cost.as_ms(), written);
        }
    }
}
