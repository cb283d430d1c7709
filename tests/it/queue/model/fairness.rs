//! The model of fairness: while two tenants both have work waiting, the work charged to them grows
//! at the same rate.
//!
//! Start-time fair queueing keeps two backlogged tenants of the same weight within about one run of
//! each other. Here each may also have leases whose run time is only estimated, and one fetch may
//! serve a lone tenant several times before the other becomes active.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{LONGEST_MS, TENANTS, WIDEST_FETCH};

#[derive(Debug, Default)]
pub struct Fairness {
    /// Charged run time.
    worked_ms: [u64; TENANTS],
    /// Per pair of tenants that both have work waiting: the charges at the start of that period.
    since: BTreeMap<(usize, usize), [u64; TENANTS]>,
    most_held: usize,
}

impl Fairness {
    /// Charges a run.
    pub fn charge(&mut self, tenant: usize, ran_ms: u64) {
        self.worked_ms[tenant] += ran_ms;
    }

    /// The index has lost all charges.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Updates the model after a step with the tenants that have work waiting and the number of
    /// leases. Returns a description of unfairness.
    pub fn observe(&mut self, waiting: &BTreeSet<usize>, held: usize) -> Option<String> {
        self.most_held = self.most_held.max(held);
        for first in 0..TENANTS {
            for second in first + 1..TENANTS {
                let pair = (first, second);
                if !waiting.contains(&first) || !waiting.contains(&second) {
                    self.since.remove(&pair);
                    continue;
                }
                let began = *self.since.entry(pair).or_insert(self.worked_ms);
                let worked = |tenant: usize| self.worked_ms[tenant] - began[tenant];
                let apart = worked(first).abs_diff(worked(second));
                if apart > self.bound_ms() {
                    return Some(format!(
                        "tenants {pair:?} had {} and {} ms of work while both waited",
                        worked(first),
                        worked(second)
                    ));
                }
            }
        }
        None
    }

    fn bound_ms(&self) -> u64 {
        LONGEST_MS * (self.most_held + 2 * WIDEST_FETCH) as u64
    }
}
