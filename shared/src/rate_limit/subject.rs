//! Whose requests are counted, and under which policies.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::policy::{self, Policy};
use crate::{queue::index::keys, tenancy::TenantId, tiers::Tier};

/// The network of a client: its address, or for IPv6 the 64 bits of the network in which a client
/// chooses its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network of an address.
    pub fn of(client: IpAddr) -> Self {
        Self(match client.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The counters that a request is checked against. All are in one slot of a Redis Cluster.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The hash tag of the keys.
    tag: String,
    charges: Vec<Charge>,
    network: Option<ClientNetwork>,
}

/// One counter of a subject.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) policy: Policy,
    /// The credential, if the counter is its own.
    credential: Option<Uuid>,
}

impl Subject {
    /// A credential of a tenant: an API key, an API client or a user.
    pub fn credential(tenant: TenantId, tier: Tier, id: Uuid) -> Self {
        let own = Charge { policy: policy::of_credential(tier), credential: Some(id) };
        let common = policy::of_tenant(tier).map(|policy| Charge { policy, credential: None });
        Self { tag: tenant.to_string(), charges: std::iter::once(own).chain(common).collect(), network: None }
    }

    /// An anonymous client.
    pub fn anonymous(network: ClientNetwork) -> Self {
        Self { network: Some(network), ..Self::with(network.0.to_string(), &[policy::ANONYMOUS]) }
    }

    /// Anything else that requests are counted for.
    pub fn with(tag: String, policies: &[Policy]) -> Self {
        let charges = policies.iter().map(|&policy| Charge { policy, credential: None }).collect();
        Self { tag, charges, network: None }
    }

    /// The network of an anonymous client.
    pub(super) fn network(&self) -> Option<ClientNetwork> {
        self.network
    }

    pub(super) fn charges(&self) -> &[Charge] {
        &self.charges
    }

    /// The key of a counter in Redis.
    pub(super) fn key(&self, prefix: &str, charge: &Charge) -> String {
        let key = keys::rate_limit(prefix, &self.tag, charge.policy.name);
        charge.credential.map_or(key.clone(), |credential| format!("{key}:{credential}"))
    }

    /// What distinguishes a counter from others of the same policy.
    pub(super) fn identity<'a>(&'a self, charge: &'a Charge) -> (&'a str, Option<Uuid>) {
        (&self.tag, charge.credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> ClientNetwork {
        ClientNetwork::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn the_keys_of_a_subject_share_a_hash_tag() {
        let subject = Subject::credential(TenantId::new(Uuid::nil()), Tier::Free, Uuid::max());
        let keys: Vec<_> = subject.charges().iter().map(|charge| subject.key("rota", charge)).collect();
        insta::assert_snapshot!(keys.join("\n"), @r"
        rota:rate:{00000000-0000-0000-0000-000000000000}:burst:ffffffff-ffff-ffff-ffff-ffffffffffff
        rota:rate:{00000000-0000-0000-0000-000000000000}:hourly
        rota:rate:{00000000-0000-0000-0000-000000000000}:daily
        ");
        let subject = Subject::anonymous(network("2001:db8::1"));
        assert_eq!(subject.key("rota", &subject.charges()[0]), "rota:rate:{2001:db8::}:anonymous");
    }
}
