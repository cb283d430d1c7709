//! Following jobs: who follows which, how many may, and what they are told.
//!
//! Invariant: a notice from the index only makes a follower look again; what it is told comes from the ledger, in its tenant's
//! transaction. Losing notices costs seconds, as everyone looks again by itself. [`followers`] passes notices on, [`seats`]
//! counts streams, [`snapshot`] is what is told, [`stream`] the life of one stream.

mod followers;
mod seats;
mod snapshot;
mod stream;

use std::time::Duration;

use shared::{
    queue::{Index, Notices, QueueName},
    tenancy::TenantId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{followers::Followers, seats::Seats};
pub use self::{
    followers::Following,
    seats::{Full, Seat},
    snapshot::Snapshot,
    stream::Follower,
};

/// How many streams there may be, and their pace.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of one tenant in this process; default 100.
    pub per_tenant: usize,
    /// In this process; default 2,000, which leaves most connections to requests.
    pub per_process: usize,
    /// How long a stream may be silent; default 15 s, below the patience of proxies.
    pub heartbeat: Duration,
    /// How often a follower looks without a notice; default 5 s.
    pub look_again: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            per_tenant: 100,
            per_process: 2_000,
            heartbeat: Duration::from_secs(15),
            look_again: Duration::from_secs(5),
        }
    }
}

/// The streams of this process. Cheap to clone.
#[derive(Clone)]
pub struct JobEvents {
    followers: Followers,
    seats: Seats,
    limits: StreamLimits,
    stop: CancellationToken,
}

impl JobEvents {
    /// Listens to the index until `stop`, which ends all streams too, so that they do not hold up a drain.
    pub fn start(index: &Index, queues: &[QueueName], limits: StreamLimits, stop: CancellationToken) -> Self {
        let (followers, seats) = (Followers::default(), Seats::new(limits.per_tenant, limits.per_process));
        tokio::spawn(followers.clone().pass_on(Notices::watch(index, queues, stop.clone())));
        tokio::spawn(seats.clone().report(stop.clone()));
        Self { followers, seats, limits, stop }
    }

    /// A place for another stream of this tenant.
    pub fn seat(&self, tenant: TenantId) -> Result<Seat, Full> {
        self.seats.take(tenant)
    }

    fn follow(&self, job: Uuid) -> Following {
        self.followers.follow(job)
    }

    /// The pace of streams.
    pub const fn limits(&self) -> &StreamLimits {
        &self.limits
    }

    const fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}
