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

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use reqwest::{Client, Response, header::HeaderMap, redirect};
use shared::config::OutboundConfig;

use self::hosts::Hosts;
pub use self::{
    hosts::{HostPermit, PER_HOST},
    resolver::{ForbiddenAddress, LookedUp, Lookup, SystemLookup},
    target::{Target, TargetError},
};

/// For everything from the look-up to the end of the answer.
pub const TIMEOUT: Duration = Duration::from_secs(15);
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
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The connection failed.
    #[error("{}", causes(.0))]
    Failed(reqwest::Error),
}

impl Outbound {
    /// A client under this policy, which looks names up as the operating system does.
    pub fn new(policy: OutboundPolicy) -> Result<Self, reqwest::Error> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// A client that looks names up another way.
    pub fn with_lookup(policy: OutboundPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        let policy = Arc::new(policy);
        let client = Client::builder()
            .user_agent(concat!("Rota/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver::GuardedResolver { lookup, policy: Arc::clone(&policy) })
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Every request is a connection of its own, so that each is judged by what its name means now.
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, policy, hosts: Hosts::default() })
    }

    /// The right to a request to the host of this URL, to be held for as long as it takes; `None` while the host has as many requests
    /// of this process as it may.
    pub fn permit(&self, url: &str) -> Option<HostPermit> {
        self.hosts.take(url)
    }

    /// Posts a body and reads how the answer begins.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: String) -> Result<Answer, OutboundError> {
        let target = Target::parse(url, &self.policy)?;
        let answer = self.client.post(target.url().clone()).headers(headers).body(body).send().await?;
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

impl From<reqwest::Error> for OutboundError {
    fn from(error: reqwest::Error) -> Self {
        let forbidden = sources(&error).find_map(|source| source.downcast_ref::<ForbiddenAddress>());
        match forbidden {
            Some(forbidden) => Self::Forbidden(*forbidden),
            None if error.is_timeout() => Self::TimedOut,
            None => Self::Failed(error.without_url()),
        }
    }
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What went wrong, from the outside in: the outermost text alone says only that a request failed.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for source in sources(error) {
        let text = source.to_string();
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
