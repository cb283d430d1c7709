//! Streams of job events: subscriptions, stream limits and the events.
//!
//! Invariant: a notification from the index only triggers a read; the data of an event comes from
//! the ledger, in the tenant's transaction. A lost notification costs seconds, since every stream
//! also polls. [`followers`] distributes notifications, [`open_streams`] counts streams, [`snapshot`] is
//! the data of an event, [`stream`] is the life of one stream.

mod followers;
mod open_streams;
mod snapshot;
mod stream;

use std::time::Duration;

use shared::{
    queue::{Index, Notices, QueueName},
    tenancy::TenantId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{followers::Followers, open_streams::OpenStreams};
pub use self::{followers::Following, open_streams::StreamPermit, snapshot::Snapshot, stream::Follower};
use crate::tenant_counts::Full;

/// Limits and pace of streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Streams of one tenant in this process; default 100.
    pub per_tenant: usize,
    /// Streams in this process; default 2,000, which leaves most connections to requests.
    pub per_process: usize,
    /// Longest silence before a keep-alive comment; default 15 s, below the idle timeout of
    /// proxies.
    pub heartbeat: Duration,
    /// How often a follower reads its job without a notification; default 5 s.
    pub poll_interval: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            per_tenant: 100,
            per_process: 2_000,
            heartbeat: Duration::from_secs(15),
            poll_interval: Duration::from_secs(5),
        }
    }
}

/// The streams of this process. Cheap to clone.
#[derive(Clone)]
pub struct JobEvents {
    followers: Followers,
    open_streams: OpenStreams,
    limits: StreamLimits,
    stop: CancellationToken,
}

impl JobEvents {
    /// Subscribes to the index until `stop`, which also ends all streams, so that they do not delay
    /// a drain.
    pub fn start(index: &Index, queues: &[QueueName], limits: StreamLimits, stop: CancellationToken) -> Self {
        let (followers, open_streams) = (Followers::default(), OpenStreams::new(limits.per_tenant, limits.per_process));
        tokio::spawn(followers.clone().pass_on(Notices::watch(index, queues, stop.clone())));
        tokio::spawn(open_streams.clone().report(stop.clone()));
        Self { followers, open_streams, limits, stop }
    }

    /// Admits another stream of this tenant within the stream limits.
    pub fn open(&self, tenant: TenantId) -> Result<StreamPermit, Full> {
        self.open_streams.take(tenant)
    }

    fn follow(&self, job: Uuid) -> Following {
        self.followers.follow(job)
    }

    /// Limits and pace of streams.
    pub const fn limits(&self) -> &StreamLimits {
        &self.limits
    }

    const fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}
