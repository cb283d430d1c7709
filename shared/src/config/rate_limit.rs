//! Limits on the rate of requests, and the proxies that say where a request comes from.
//!
//! Invariant: a network that covers all addresses is refused, because any client could then claim
//! any address.

use ipnet::IpNet;

use super::environment::Environment;
use super::reader::{Reader, Variable};

const ENABLED: Variable = Variable::new("RATE_LIMIT_ENABLED", "0 or 1");
const TRUSTED_PROXIES: Variable = Variable::new(
    "ROTA_TRUSTED_PROXIES",
    "networks such as 10.2.0.0/16 or fd00:2::/64, separated by commas, and not all addresses",
);

/// The rate limit section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimitConfig {
    /// `RATE_LIMIT_ENABLED`, 0 or 1 (also `false` or `true`); default 1 in production, otherwise 0,
    /// because tests and benchmarks send more than any tier may. Attempts to sign in are always
    /// limited.
    pub enabled: bool,
    /// `ROTA_TRUSTED_PROXIES`, separated by commas; default none. Their `X-Forwarded-For` is used.
    pub trusted_proxies: Vec<IpNet>,
}

impl RateLimitConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let enabled = reader.or(ENABLED, environment.is_production(), |text| match text {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        });
        Self { enabled, trusted_proxies: reader.or(TRUSTED_PROXIES, Vec::new(), parse_networks) }
    }
}

fn parse_networks(text: &str) -> Option<Vec<IpNet>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok().filter(|network: &IpNet| network.prefix_len() > 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::env::Env;
    use super::*;

    #[test]
    fn limits_are_on_in_production_only() {
        let enabled = |environment, pairs: &[(&str, &str)]| {
            let env: Env = pairs.iter().copied().collect();
            RateLimitConfig::read(&mut Reader::new(&env), environment).enabled
        };
        assert!(enabled(Environment::Production, &[]));
        assert!(!enabled(Environment::Production, &[("RATE_LIMIT_ENABLED", "false")]));
        assert!(!enabled(Environment::Development, &[]) && !enabled(Environment::Test, &[]));
        assert!(enabled(Environment::Test, &[("RATE_LIMIT_ENABLED", "1")]));
    }

    #[test]
    fn proxies_are_networks_but_not_all_addresses() {
        assert_eq!(parse_networks("10.2.0.0/16, fd00::/64,127.0.0.1/32").map(|networks| networks.len()), Some(3));
        for refused in ["0.0.0.0/0", "::/0", "10.0.0.1", "proxy", "10.0.0.0/33"] {
            assert_eq!(parse_networks(refused), None, "{refused}");
        }
    }
}
