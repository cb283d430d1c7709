//! The bound on the anonymous networks that this process counts in Redis.
//!
//! Invariant: a flood of addresses cannot fill Redis, which the queue needs. A network beyond the
//! bound is counted by this process alone.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::subject::ClientNetwork;

/// Networks per [`PERIOD`]; each needs 100 to 600 bytes in Redis.
const MOST: usize = 50_000;
/// The window of the policy of anonymous clients, after which Redis forgets a network.
const PERIOD: Duration = Duration::from_hours(1);

/// The networks of the current period, as hashes.
#[derive(Default)]
pub(super) struct KnownNetworks {
    seen: Mutex<Seen>,
    hasher: RandomState,
}

struct Seen {
    since: Instant,
    networks: HashSet<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { since: Instant::now(), networks: HashSet::new() }
    }
}

impl KnownNetworks {
    /// Whether a network may be counted in Redis.
    pub(super) fn admit(&self, network: ClientNetwork) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.since.elapsed() >= PERIOD {
            *seen = Seen::default();
        }
        let network = self.hasher.hash_one(network);
        seen.networks.contains(&network) || (seen.networks.len() < MOST && seen.networks.insert(network))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn networks_beyond_the_bound_are_not_admitted() {
        let known = KnownNetworks::default();
        let network = |number: usize| ClientNetwork::of(Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into());
        let admitted = (0..MOST * 3).filter(|number| known.admit(network(*number))).count();
        assert_eq!(admitted, MOST);
        assert!(known.admit(network(0)) && !known.admit(network(MOST)));
    }
}
