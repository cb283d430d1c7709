//! The engine without processes: a test enqueues, fetches as an idle worker, and rescues as the
//! leader, one step at a time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::{
    ids,
    leadership::Candidate,
    queue::{
        DirectDispatch, FetchScope, Notice, Notices,
        dispatch::{Consumer, Fetched},
        repair::rescue::{self, RescueReport},
    },
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{PATIENCE, build_index, queue, shard};

/// A worker whose last fetch found nothing, subscribed to notifications.
pub struct Idle {
    pub process: Uuid,
    pub consumer: Consumer,
    pub notices: Notices,
    stop: CancellationToken,
}

impl Idle {
    /// Subscribes, and fetches once to be marked as ready.
    pub async fn start(system: &TestSystem, lease: Duration) -> Result<Self> {
        let process = ids::new_id(&system.clock);
        let stop = CancellationToken::new();
        let (mut notices, subscription) = Notices::listen(&system.index, vec![shard()], process, stop.clone());
        assert_eq!(notices.next().await, Some(Notice::Connected));
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), lease).with_ready_marks(subscription);
        let idle = Self { process, consumer, notices, stop };
        idle.finds_nothing().await?;
        Ok(idle)
    }

    /// Fetches, and asserts that nothing is leased.
    pub async fn finds_nothing(&self) -> Result<()> {
        assert_eq!(self.consumer.fetch(&shard(), 5).await?.taken, 0);
        Ok(())
    }

    /// The next notification.
    pub async fn next_notice(&mut self) -> Result<Notice> {
        timeout(PATIENCE, self.notices.next()).await?.context("the subscription is open")
    }

    /// The last notification before the subscription stops.
    pub async fn stop(&mut self) -> Option<Notice> {
        self.stop.cancel();
        self.notices.next().await
    }

    /// Fetches like a worker with all other slots busy.
    pub async fn fetch_next(&self, jobs: usize, welcome: FetchScope) -> Result<()> {
        let fetched = self.consumer.fetch_from(&[(&shard(), jobs)], welcome).await.remove(0)?;
        assert_eq!(fetched.taken, jobs);
        Ok(())
    }

    /// Fetches up to three jobs of newly active tenants only, like a worker with only reserved
    /// permits free.
    pub async fn fetch_newly_active(&self) -> Result<Fetched> {
        Ok(self.consumer.fetch_from(&[(&shard(), 3)], FetchScope::NewlyActive).await.remove(0)?)
    }

    /// The next notification, which must be a direct dispatch.
    pub async fn direct_dispatch(&mut self) -> Result<DirectDispatch> {
        match self.next_notice().await? {
            Notice::Dispatched(from, dispatch) if from == shard() => Ok(dispatch),
            other => panic!("expected a direct dispatch, got {other:?}"),
        }
    }
}

/// A system with one tenant and an empty index, and without worker and scheduler.
pub async fn scene() -> Result<(TestSystem, TenantId)> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    build_index(&system).await;
    Ok((system, tenant))
}

/// Enqueues this many jobs that do nothing.
pub async fn commit(system: &TestSystem, tenant: TenantId, jobs: usize) -> Result<Vec<Uuid>> {
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await
}

/// The number of leased jobs in the index.
pub async fn leased_count(system: &TestSystem) -> Result<u64> {
    Ok(system.index.status(&queue()).await?.leased)
}

/// Waits until this many jobs are available and none is leased.
pub async fn indexed_and_free(system: &TestSystem, jobs: u64) {
    eventually(PATIENCE, "the jobs wait and none is leased", async || {
        let depth = system.index.depth(&queue()).await.ok()?;
        (depth.available == jobs && leased_count(system).await.ok()? == 0).then_some(())
    })
    .await;
}

/// Rescues as the leading scheduler does.
pub async fn rescue_all(system: &TestSystem) -> Result<RescueReport> {
    let candidate = Candidate::new(system.system.clone(), ids::new_id(&system.clock), PATIENCE);
    let term = candidate.campaign().await?.context("no other candidate leads")?;
    let report = rescue::rescue(&system.system, &system.index, &queue(), &term).await?;
    candidate.resign().await?;
    Ok(report)
}
