//! The state of all handlers. One per process.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use jobs::{
    account_links::AccountLinks, ports::outbound::OutboundPolicy, registry::Registry, unsubscribe::UnsubscribeLinks,
};
use shared::{
    clock::Clock,
    compute::{Busy, ComputePool},
    identity::refresh_token::RefreshTokens,
    queue::enqueue::Producer,
    rate_limit::RateLimiter,
    stores::Stores,
    tenancy::TenantId,
};

use crate::{
    auth::{Authenticator, MailLimit, SignInLimit},
    client_address::TrustedProxies,
    dependency_quota::DependencyQuota,
    in_flight::InFlightBytes,
    job_events::JobEvents,
    openapi::WithoutQuery,
    uploads::Uploads,
};

/// The state of all routes under `/api/v1`. A single pointer, since every route and extractor of a
/// request has a clone.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// The contents of the state.
pub struct Parts {
    /// Ledger and index.
    pub stores: Stores,
    /// Commits jobs.
    pub producer: Producer,
    /// The known job kinds.
    pub registry: Arc<Registry>,
    /// Verifies credentials.
    pub authenticator: Authenticator,
    /// Makes and verifies refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Hashes passwords. A pool of its own, because strangers decide how much work it has.
    pub passwords: ComputePool,
    /// Bounds the attempts to sign in.
    pub sign_ins: SignInLimit,
    /// Bounds the mails that strangers request.
    pub mails: MailLimit,
    /// Limits the rate of requests; none if that is disabled.
    pub rate_limiter: Option<RateLimiter>,
    /// The proxies that say where a client is.
    pub proxies: TrustedProxies,
    /// Streams of job events.
    pub events: JobEvents,
    /// Bytes of request and response bodies in memory.
    pub in_flight: InFlightBytes,
    /// Uploaded files.
    pub uploads: Uploads,
    /// The permitted targets of webhooks.
    pub outbound: Arc<OutboundPolicy>,
    /// Checks the unsubscribe links in mails.
    pub unsubscribe_links: UnsubscribeLinks,
    /// Checks the links in mails about accounts.
    pub account_links: AccountLinks,
    /// Limits on the dependencies of jobs.
    pub dependencies: DependencyQuota,
    /// Processes templates and large documents of tenants.
    pub compute: ComputePool,
    /// Operations whose query string must be empty; known once the router is built.
    pub without_query: OnceLock<WithoutQuery>,
    /// The clock.
    pub clock: Clock,
}

/// Documents up to this size are processed in a few milliseconds.
const LARGE_BYTES: usize = 256 * 1024;

impl AppState {
    /// Runs `work` on a document of a tenant: on this thread if the document is small, otherwise on
    /// the compute pool.
    pub async fn examine<T: Send + 'static>(
        &self,
        tenant: TenantId,
        size_bytes: usize,
        work: impl FnOnce(&Parts) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        if size_bytes <= LARGE_BYTES {
            return Ok(work(self));
        }
        let state = self.clone();
        self.compute.run(tenant, "examine_document", move || work(&state)).await
    }
}

impl From<Parts> for AppState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
