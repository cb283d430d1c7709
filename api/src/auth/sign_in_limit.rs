//! A bound on guesses of a password: attempts per account and address of the client.
//!
//! Invariant: attempts from one address delay nobody at another, so a stranger cannot lock a user
//! out. The bound holds per process and needs no store, so it is never open.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};

/// Attempts at once, and per minute from then on.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(10).expect("is not zero");
/// Entries from which on those without effect are dropped.
const KEPT: usize = 100_000;

/// Counts the attempts of this process.
pub struct SignInLimit {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>,
    hasher: RandomState,
}

impl Default for SignInLimit {
    fn default() -> Self {
        Self { limiter: RateLimiter::keyed(Quota::per_minute(ATTEMPTS)), hasher: RandomState::new() }
    }
}

impl SignInLimit {
    /// Counts an attempt; if there were too many, how long to wait.
    pub fn attempt(&self, client: IpAddr, account: &str) -> Result<(), Duration> {
        if self.limiter.len() > KEPT {
            self.limiter.retain_recent();
        }
        let key = self.hasher.hash_one((network(client), account));
        let refused = self.limiter.check_key(&key).err();
        refused.map_or(Ok(()), |not_until| Err(not_until.wait_time_from(DefaultClock::default().now())))
    }
}

/// The address, or the network of 64 bits in which an IPv6 client chooses its addresses.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn attempts_are_bounded_for_each_account_and_client() {
        let limit = SignInLimit::default();
        for _ in 0..ATTEMPTS.get() {
            assert_eq!(limit.attempt(ip("192.0.2.1"), "ada@example.com"), Ok(()));
        }
        let wait = limit.attempt(ip("192.0.2.1"), "ada@example.com").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(6), "{wait:?}");
        assert!(limit.attempt(ip("::ffff:192.0.2.1"), "ada@example.com").is_err(), "the same address");
        assert_eq!(limit.attempt(ip("192.0.2.2"), "ada@example.com"), Ok(()), "another client");
        assert_eq!(limit.attempt(ip("192.0.2.1"), "bob@example.com"), Ok(()), "another account");
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        assert_eq!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:1:ffff::")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:2::1")));
        assert_ne!(network(ip("192.0.2.1")), network(ip("192.0.2.2")));
    }
}
