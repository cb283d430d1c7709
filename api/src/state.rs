//! What handlers have at hand. One for the process, cheap to clone.

use std::sync::Arc;

use jobs::{ports::outbound::OutboundPolicy, registry::Registry, unsubscribe::UnsubscribeLinks};
use shared::{clock::Clock, queue::producer::Producer, stores::Stores};

use crate::{auth::KeyRing, job_events::JobEvents};

/// The state of all routes under `/api/v1`.
#[derive(Clone)]
pub struct AppState {
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
    /// Where webhooks may go.
    pub outbound: Arc<OutboundPolicy>,
    /// Checks the links in mails.
    pub unsubscribe_links: UnsubscribeLinks,
    /// The time.
    pub clock: Clock,
}
