//! Allowed destinations of requests on a tenant's behalf: webhooks, so far.
//!
//! Invariant: in production no request is unencrypted, and private networks are closed except for
//! those listed here. A network that covers all addresses is refused, because it would disable the
//! guard.

use ipnet::IpNet;

use super::environment::Environment;
use super::reader::{Reader, Variable};

const ALLOWED_NETWORKS: Variable = Variable::new(
    "ROTA_WEBHOOK_ALLOWED_NETWORKS",
    "networks such as 10.1.0.0/16 or fd00:1::/32, separated by commas; for IPv4 /8 at the widest, for IPv6 /16",
);
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;

/// The outbound section.
#[derive(Clone, Debug, Default)]
pub struct OutboundConfig {
    /// Whether `http` is allowed: everywhere except in production.
    pub allow_http: bool,
    /// `ROTA_WEBHOOK_ALLOWED_NETWORKS`, separated by commas; default none. Private networks that
    /// requests may nevertheless go to.
    pub allowed_networks: Vec<IpNet>,
}

impl OutboundConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        Self {
            allow_http: !environment.is_production(),
            allowed_networks: reader.or(ALLOWED_NETWORKS, Vec::new(), parse_networks),
        }
    }
}

fn parse_networks(text: &str) -> Option<Vec<IpNet>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok().filter(is_narrow)).collect()
}

fn is_narrow(network: &IpNet) -> bool {
    let widest = if network.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    network.prefix_len() >= widest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed_and_too_wide_ones_refused() {
        let networks = |text: &str| parse_networks(text).map(|networks| networks.len());
        assert_eq!(networks(""), Some(0));
        assert_eq!(networks("127.0.0.0/8, fd00::/16 ,10.1.2.3/32"), Some(3));
        for refused in ["0.0.0.0/0", "0.0.0.0/7", "::/0", "fc00::/15", "10.0.0.0", "10.0.0.0/33", "all"] {
            assert_eq!(networks(refused), None, "{refused}");
        }
    }
}
