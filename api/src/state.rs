//! What handlers have at hand. One for the process.

use std::{ops::Deref, sync::Arc};

use jobs::{ports::outbound::OutboundPolicy, registry::Registry, unsubscribe::UnsubscribeLinks};
use shared::{
    clock::Clock,
    compute::{Busy, ComputePool},
    queue::producer::Producer,
    stores::Stores,
    tenancy::TenantId,
};

use crate::{
    auth::KeyRing, dependency_quota::DependencyQuota, in_flight::InFlightBytes, job_events::JobEvents, uploads::Uploads,
};

/// The state of all routes under `/api/v1`. One pointer: every route and extractor of a request has its own.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// What the state is made of.
pub struct Parts {
    /// Ledger and index.
    pub stores: Stores,
    /// Commits jobs.
    pub producer: Producer,
    /// The kinds there are.
    pub registry: Arc<Registry>,
    /// Checks API keys.
    pub keys: KeyRing,
    /// Streams of job events.
    pub events: JobEvents,
    /// Bytes of bodies and answers in memory.
    pub in_flight: InFlightBytes,
    /// Files that are being sent to us.
    pub uploads: Uploads,
    /// Where webhooks may go.
    pub outbound: Arc<OutboundPolicy>,
    /// Checks the links in mails.
    pub unsubscribe_links: UnsubscribeLinks,
    /// How many dependencies jobs may have.
    pub dependencies: DependencyQuota,
    /// Where templates and large documents of tenants are computed.
    pub compute: ComputePool,
    /// The time.
    pub clock: Clock,
}

/// Documents up to this are examined in a few milliseconds.
const LARGE_BYTES: usize = 256 * 1024;

impl AppState {
    /// Runs `work` on a document of a tenant: here if it is small, on the compute pool otherwise.
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
