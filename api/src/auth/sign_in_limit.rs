//! A bound on guesses of a password: attempts per account and address of the client.
//!
//! Invariant: attempts from one address delay nobody at another, so a stranger cannot lock a user
//! out.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::Quota;
use shared::rate_limit::ClientNetwork;

use super::keyed_limit::KeyedLimit;

/// Attempts at once, and per minute from then on.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(10).expect("is not zero");

/// Counts the attempts of this process.
pub struct SignInLimit(KeyedLimit);

impl Default for SignInLimit {
    fn default() -> Self {
        Self(KeyedLimit::new(Quota::per_minute(ATTEMPTS)))
    }
}

impl SignInLimit {
    /// Counts an attempt; if there were too many, how long to wait.
    pub fn attempt(&self, client: IpAddr, account: &str) -> Result<(), Duration> {
        self.0.attempt((ClientNetwork::of(client), account))
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
}
