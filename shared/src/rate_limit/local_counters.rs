//! The counters of this process, for the time in which Redis is unavailable.
//!
//! Invariant: without Redis, all APIs together admit no more than a limit in any of its windows:
//! each has a share, of which one half may come at once and the other half evenly in the course of
//! the window. The memory is bounded: counters are cells of a table of fixed size, in which two
//! subjects rarely have the same one.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::{
    decision::{Decision, PolicyState},
    policy::{Algorithm, Policy},
    subject::{Charge, Subject},
};

/// Counters of each policy.
const CELLS: u64 = 1 << 18;

type Cells = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// Counts the requests that this process decides alone.
#[derive(Default)]
pub(super) struct LocalCounters {
    shares: Mutex<Shares>,
    hasher: RandomState,
}

/// The counters for a number of APIs.
#[derive(Default)]
struct Shares {
    apis: u32,
    cells: HashMap<Policy, Arc<Cells>>,
}

impl LocalCounters {
    /// Checks a request against this process's share of each policy. A policy that admits it is
    /// charged, even if another one refuses it.
    pub(super) fn admit(&self, subject: &Subject, apis: u32) -> Decision {
        Decision(subject.charges().iter().map(|charge| self.check(subject, charge, apis)).collect())
    }

    fn check(&self, subject: &Subject, charge: &Charge, apis: u32) -> PolicyState {
        let policy = charge.policy;
        let cell = self.hasher.hash_one(subject.identity(charge)) % CELLS;
        match self.cells(policy, apis).check_key(&cell) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                PolicyState { policy, remaining, more_in: state.quota().replenish_interval(), refuses: false }
            }
            Err(not_until) => {
                let more_in = not_until.wait_time_from(DefaultClock::default().now());
                PolicyState { policy, remaining: 0, more_in, refuses: true }
            }
        }
    }

    /// The counters of a policy. The number of APIs does not change while they are in use.
    fn cells(&self, policy: Policy, apis: u32) -> Arc<Cells> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.apis != apis {
            *shares = Shares { apis, cells: HashMap::new() };
        }
        let new = || Arc::new(RateLimiter::keyed(share(policy, apis)).with_middleware());
        Arc::clone(shares.cells.entry(policy).or_insert_with(new))
    }
}

/// The share of one of several APIs, at least one request.
fn share(policy: Policy, apis: u32) -> Quota {
    let share = (policy.limit / apis.max(1)).max(1);
    let (at_once, later) = match policy.algorithm {
        Algorithm::TokenBucket => (share, share),
        Algorithm::FixedWindow | Algorithm::SlidingWindow => (share.div_ceil(2), (share / 2).max(1)),
    };
    let at_once = NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(policy.window / later).unwrap_or(Quota::per_hour(NonZeroU32::MIN));
    quota.allow_burst(at_once)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, time::Duration};

    use uuid::Uuid;

    use super::*;
    use crate::{
        rate_limit::{ClientNetwork, policy},
        tenancy::TenantId,
        tiers::Tier,
    };

    #[test]
    fn apis_share_a_limit() {
        for (apis, at_once, later) in [(1, 25, 25), (2, 13, 12), (3, 8, 8), (50, 1, 1), (100, 1, 1)] {
            let quota = share(policy::ANONYMOUS, apis);
            assert_eq!(quota.burst_size().get(), at_once, "{apis} APIs");
            assert_eq!(quota.replenish_interval(), policy::ANONYMOUS.window / later, "{apis} APIs");
        }
        let quota = share(policy::of_credential(Tier::Free), 2);
        assert_eq!((quota.burst_size().get(), quota.replenish_interval()), (25, Duration::from_millis(3_600)));
    }

    #[test]
    fn credentials_of_a_tenant_share_its_hour() {
        let counters = LocalCounters::default();
        let subject = |id| Subject::credential(TenantId::new(Uuid::nil()), Tier::Free, Uuid::from_u128(id));
        let admitted = |id| (0..60).filter(|_| counters.admit(&subject(id), 1).violated().next().is_none()).count();
        assert_eq!((admitted(1), admitted(2)), (50, 0), "half of 100 at once");
        let refused = counters.admit(&subject(3), 1);
        let names: Vec<_> = refused.violated().map(|state| state.policy.name).collect();
        assert_eq!(names, ["hourly"]);
        assert!(refused.retry_after().is_some_and(|seconds| (1..=80).contains(&seconds)));
    }

    #[test]
    fn many_clients_need_bounded_memory() {
        let counters = LocalCounters::default();
        for number in 0..CELLS * 2 {
            let address = Ipv6Addr::from_bits(u128::from(number) << 64);
            counters.admit(&Subject::anonymous(ClientNetwork::of(address.into())), 1);
        }
        let cells = counters.cells(policy::ANONYMOUS, 1).len() as u64;
        assert!(cells <= CELLS && cells > CELLS / 2, "{cells}");
    }
}
