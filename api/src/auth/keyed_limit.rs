//! A bound on attempts, by whoever makes them or whatever they concern.
//!
//! Invariant: the bound holds per process and needs no store, so it is never open; and it needs
//! bounded memory.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};

/// Entries from which on those without effect are dropped.
const KEPT: usize = 100_000;

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
        if self.limiter.len() > KEPT {
            self.limiter.retain_recent();
        }
        let refused = self.limiter.check_key(&self.hasher.hash_one(key)).err();
        refused.map_or(Ok(()), |not_until| Err(not_until.wait_time_from(DefaultClock::default().now())))
    }
}

/// The address, or the network of 64 bits in which an IPv6 client chooses its addresses.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
