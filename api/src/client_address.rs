//! Where a client is, if proxies are in front of the API.
//!
//! Invariant: nobody but a trusted proxy says where a client is. `X-Forwarded-For` is read from the
//! right, where the last proxy wrote, up to the first address that is not of a trusted proxy; what
//! is left of it was sent by the client.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{FromRef, FromRequestParts};
use http::{HeaderMap, HeaderName, request::Parts};
use ipnet::IpNet;
use shared::http_server::PeerAddr;

use crate::{
    problem::{Problem, ProblemCode},
    state::AppState,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// More proxies than any request passes.
const MAX_HOPS: usize = 16;

/// The networks of the proxies whose word counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// The address of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl TrustedProxies {
    /// Trusts proxies in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The address of the client whose request the peer sent.
    fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let fields = headers.get_all(FORWARDED_FOR).iter().rev();
        // A field that is not text ends the list like an entry that is not an address.
        let mut hops = fields.flat_map(|field| field.to_str().unwrap_or_default().rsplit(',')).map(address);
        let mut client = peer.to_canonical();
        for _ in 0..MAX_HOPS {
            if !self.trusts(client) {
                break;
            }
            let Some(Some(hop)) = hops.next() else { break };
            client = hop;
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address, some proxies add the port.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress
where
    AppState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // The server attaches it to every request.
        let PeerAddr(peer) = parts.extensions.get().ok_or(ProblemCode::Internal)?;
        Ok(Self(AppState::from_ref(state).proxies.client_of(peer.ip(), &parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, fields: &[&str]) -> String {
        let proxies = TrustedProxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, field.parse().unwrap());
        }
        proxies.client_of(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_not_of_a_proxy_is_the_client() {
        let trusted = ["10.0.0.0/8", "fd00::/64"];
        for (peer, fields, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9 ,10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            ("fd00::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["203.0.113.9:1234"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client(&trusted, peer, fields), expected, "{peer} {fields:?}");
        }
        assert_eq!(client(&[], "10.0.0.1", &["203.0.113.9"]), "10.0.0.1", "no proxy is trusted");
    }

    #[test]
    fn a_long_list_is_read_in_part() {
        let list = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["203.0.113.9", &list]), "10.0.0.2");
    }
}
