//! A bound on attempts, by whoever makes them or whatever they concern.
//!
//! Invariant: the bound holds per process and needs no store, so it is never open; and it needs
//! bounded memory.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};

/// The bound on the memory: all keys share this many counters.
const CELLS: u64 = 1 << 18;

/// Counts the attempts of this process by key.
pub struct KeyedLimit {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>,
    hasher: RandomState,
}

impl KeyedLimit {
    /// Accepts this many attempts for each key.
    pub fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::keyed(quota), hasher: RandomState::new() }
    }

    /// Counts an attempt; if there were too many, how long to wait.
    pub fn attempt(&self, key: impl Hash) -> Result<(), Duration> {
        let cell = self.hasher.hash_one(key) % CELLS;
        let refused = self.limiter.check_key(&cell).err();
        refused.map_or(Ok(()), |not_until| Err(not_until.wait_time_from(DefaultClock::default().now())))
    }
}
