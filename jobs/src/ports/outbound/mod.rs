//! Requests to URLs that tenants choose, guarded against access to private networks (SSRF).
//!
//! Invariant: no request is sent before [`Target`] has checked the URL and, if the host is a name,
//! [`resolver`] the addresses that the connection then uses. Redirects are not followed, proxies
//! from the environment are not used, and a response is read up to [`MAX_ANSWER_BYTES`] within
//! [`TIMEOUT`]. The head of the response decides; an incomplete body is ignored.

mod address;
mod hosts;
mod resolver;
mod target;
#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{Client, RequestBuilder, Response, header::HeaderMap, redirect};
use shared::{config::OutboundConfig, error_text::with_causes};

use self::hosts::Hosts;
pub use self::{
    hosts::{HostPermit, PER_HOST},
    resolver::{ForbiddenAddress, LookedUp, Lookup, SystemLookup},
    target::{Target, TargetError},
};

/// Time-out of the whole request, from the DNS look-up to the end of the response.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// Time-out for the test-only kinds.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Maximum bytes of a response that are read.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Maximum bytes of a response that are kept.
const KEPT_ANSWER_BYTES: usize = 1_024;

/// Destinations allowed in addition to the public internet over https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    /// Whether `http` is allowed.
    pub allow_http: bool,
    /// Networks that are allowed although they are not public.
    pub allowed_networks: Vec<IpNet>,
}

impl From<&OutboundConfig> for OutboundPolicy {
    fn from(config: &OutboundConfig) -> Self {
        Self { allow_http: config.allow_http, allowed_networks: config.allowed_networks.clone() }
    }
}

/// Sends requests to URLs that tenants choose. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: Client,
    policy: Arc<OutboundPolicy>,
    hosts: Hosts,
    timeout: Duration,
}

/// A response, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body, for humans.
    pub beginning: String,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL is refused.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The name resolves to an address that is not permitted.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenAddress),
    /// The time-out passed.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection failed.
    #[error("{}", with_causes(.0))]
    Failed(reqwest::Error),
}

impl Outbound {
    /// A client with this policy, which resolves names through the operating system.
    pub fn new(policy: OutboundPolicy) -> Result<Self, reqwest::Error> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// A client that resolves names in another way.
    pub fn with_lookup(policy: OutboundPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        Self::build(policy, lookup, TIMEOUT)
    }

    /// A client for the test-only kinds. Measuring programs run a server on this machine, which may
    /// be slow.
    pub(crate) fn for_test_kinds() -> Result<Self, reqwest::Error> {
        let allowed_networks =
            vec![Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8).into(), Ipv6Net::from(Ipv6Addr::LOCALHOST).into()];
        let policy = OutboundPolicy { allow_http: true, allowed_networks };
        Self::build(policy, Arc::new(SystemLookup), TEST_TIMEOUT)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the guarded client")]
    fn build(policy: OutboundPolicy, lookup: Arc<dyn Lookup>, timeout: Duration) -> Result<Self, reqwest::Error> {
        let policy = Arc::new(policy);
        let client = Client::builder()
            .user_agent(concat!("Rota/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver::GuardedResolver { lookup, policy: Arc::clone(&policy) })
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Every request opens its own connection, so that each one is checked against the
            // name's current addresses.
            .pool_max_idle_per_host(0)
            .timeout(timeout)
            .build()?;
        Ok(Self { client, policy, hosts: Hosts::default(), timeout })
    }

    /// The permit for a request to the host of this URL, to be held while the request runs; `None`
    /// if the host already has the maximum number of requests from this process.
    pub fn permit(&self, url: &str) -> Option<HostPermit> {
        self.hosts.take(url)
    }

    /// Posts a body and reads the beginning of the response.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: String) -> Result<Answer, OutboundError> {
        let target = Target::parse(url, &self.policy)?;
        self.send(self.client.post(target.url().clone()).headers(headers).body(body)).await
    }

    /// Sends a GET request and reads the beginning of the response.
    pub async fn get(&self, url: &str) -> Result<Answer, OutboundError> {
        let target = Target::parse(url, &self.policy)?;
        self.send(self.client.get(target.url().clone())).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, OutboundError> {
        let answer = request.send().await.map_err(|error| OutboundError::of(error, self.timeout))?;
        let status = answer.status().as_u16();
        Ok(Answer { status, beginning: beginning(answer).await })
    }
}

/// Reads the body, so that the server sees its response accepted, but only up to a limit. The body
/// is for humans: the server has acted according to its status, and would act again if a body that
/// breaks off or never ends counted as no response.
async fn beginning(mut answer: Response) -> String {
    let (mut kept, mut read) = (Vec::new(), 0);
    while read < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read += chunk.len();
        let missing = KEPT_ANSWER_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }
    // PostgreSQL's jsonb does not allow NUL.
    String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}")
}

impl OutboundError {
    fn of(error: reqwest::Error, timeout: Duration) -> Self {
        let forbidden = sources(&error).find_map(|source| source.downcast_ref::<ForbiddenAddress>());
        match forbidden {
            Some(forbidden) => Self::Forbidden(*forbidden),
            None if error.is_timeout() => Self::TimedOut(timeout),
            None => Self::Failed(error.without_url()),
        }
    }
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
