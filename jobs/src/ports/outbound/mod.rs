//! Requests to addresses that tenants chose, where a request must not become a way into our own network (SSRF).
//!
//! Invariant: nothing is asked before [`Target`] has judged the URL and, where the host is a name, [`resolver`] the
//! addresses that the connection then goes to. Redirects are not followed, proxies of the environment not used, and an answer is
//! read up to [`MAX_ANSWER_BYTES`] within [`TIMEOUT`]. Its head is the answer; what of its body does not come is not missed.

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

/// For everything from the look-up to the end of the answer.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// As above, for the test-only kinds.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);
/// More of an answer is not read.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// What is kept of an answer.
const KEPT_ANSWER_BYTES: usize = 1_024;

/// Where requests may go beside the public internet by https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    /// Whether `http` will do.
    pub allow_http: bool,
    /// Networks that are permitted although they are not public.
    pub allowed_networks: Vec<IpNet>,
}

impl From<&OutboundConfig> for OutboundPolicy {
    fn from(config: &OutboundConfig) -> Self {
        Self { allow_http: config.allow_http, allowed_networks: config.allowed_networks.clone() }
    }
}

/// Asks where tenants say. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: Client,
    policy: Arc<OutboundPolicy>,
    hosts: Hosts,
    timeout: Duration,
}

/// An answer, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// How its body begins, for people to read.
    pub beginning: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL is not asked.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The name leads where no request may go.
    #[error(transparent)]
    Forbidden(#[from] ForbiddenAddress),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection failed.
    #[error("{}", with_causes(.0))]
    Failed(reqwest::Error),
}

impl Outbound {
    /// A client under this policy, which looks names up as the operating system does.
    pub fn new(policy: OutboundPolicy) -> Result<Self, reqwest::Error> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// A client that looks names up another way.
    pub fn with_lookup(policy: OutboundPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        Self::build(policy, lookup, TIMEOUT)
    }

    /// For the test-only kinds: whoever measures from outside has a server on this machine, and lets it be slow.
    pub(crate) fn for_test_kinds() -> Result<Self, reqwest::Error> {
        let allowed_networks =
            vec![Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8).into(), Ipv6Net::from(Ipv6Addr::LOCALHOST).into()];
        let policy = OutboundPolicy { allow_http: true, allowed_networks };
        Self::build(policy, Arc::new(SystemLookup), TEST_TIMEOUT)
    }

    #[expect(clippy::disallowed_methods, reason = "the guarded client is made here")]
    fn build(policy: OutboundPolicy, lookup: Arc<dyn Lookup>, timeout: Duration) -> Result<Self, reqwest::Error> {
        let policy = Arc::new(policy);
        let client = Client::builder()
            .user_agent(concat!("Rota/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver::GuardedResolver { lookup, policy: Arc::clone(&policy) })
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Every request is a connection of its own, so that each is judged by what its name means now.
            .pool_max_idle_per_host(0)
            .timeout(timeout)
            .build()?;
        Ok(Self { client, policy, hosts: Hosts::default(), timeout })
    }

    /// The right to a request to the host of this URL, to be held for as long as it takes; `None` while the host has as many requests
    /// of this process as it may.
    pub fn permit(&self, url: &str) -> Option<HostPermit> {
        self.hosts.take(url)
    }

    /// Posts a body and reads how the answer begins.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: String) -> Result<Answer, OutboundError> {
        let target = Target::parse(url, &self.policy)?;
        self.send(self.client.post(target.url().clone()).headers(headers).body(body)).await
    }

    /// Gets and reads how the answer begins.
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

/// Reads the body, so that the other side sees its answer taken, but no more of it than is reasonable. It is for people to read: the
/// other side has acted by its status, and would act again if a body that breaks off or does not end counted as no answer.
async fn beginning(mut answer: Response) -> String {
    let (mut kept, mut read) = (Vec::new(), 0);
    while read < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        read += chunk.len();
        let missing = KEPT_ANSWER_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }
    // PostgreSQL's jsonb holds no NUL.
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
