//! A bound on the mails that strangers make Rota send: by client, and by address.
//!
//! Invariant: the bounds count requests, not mails, so they do not tell whether an address has an
//! account. The ledger bounds the mails of one account and of one address besides, for all
//! processes.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::Quota;
use shared::rate_limit::ClientNetwork;

use super::keyed_limit::KeyedLimit;

/// Requests of one client at once, and per hour from then on.
const OF_CLIENT: NonZeroU32 = NonZeroU32::new(20).expect("is not zero");
/// Requests for one address at once, and per hour from then on.
const OF_ADDRESS: NonZeroU32 = NonZeroU32::new(5).expect("is not zero");

/// Counts the requests of this process.
pub struct MailLimit {
    clients: KeyedLimit,
    addresses: KeyedLimit,
}

impl Default for MailLimit {
    fn default() -> Self {
        Self {
            clients: KeyedLimit::new(Quota::per_hour(OF_CLIENT)),
            addresses: KeyedLimit::new(Quota::per_hour(OF_ADDRESS)),
        }
    }
}

impl MailLimit {
    /// Counts a request of a client; if there were too many, how long to wait.
    pub fn of_client(&self, client: IpAddr) -> Result<(), Duration> {
        self.clients.attempt(ClientNetwork::of(client))
    }

    /// Counts a request for an address, from whichever client; if there were too many, how long to
    /// wait.
    pub fn of_address(&self, email_key: &str) -> Result<(), Duration> {
        self.addresses.attempt(email_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_each_limit() {
        let limit = MailLimit::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..OF_CLIENT.get() {
            assert_eq!(limit.of_client(ip("192.0.2.1")), Ok(()));
        }
        let wait = limit.of_client(ip("192.0.2.1")).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_mins(3), "{wait:?}");
        assert_eq!(limit.of_client(ip("192.0.2.2")), Ok(()), "another client");
        for _ in 0..OF_ADDRESS.get() {
            assert_eq!(limit.of_address("ada@example.com"), Ok(()));
        }
        let wait = limit.of_address("ada@example.com").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_mins(12), "{wait:?}");
        assert_eq!(limit.of_address("bob@example.com"), Ok(()), "another address");
    }
}
