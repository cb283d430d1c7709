//! Starts and stops the scheduler's tasks.

use std::time::Duration;

use shared::{
    clock::Clock,
    ids,
    leadership::Candidate,
    queue::{
        QueueName, index::eviction, limits::Limiter, repair::check::Checker, repair::reconcile::Reconciler,
        repair::shard_agreement,
    },
    stores::Stores,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    elector::{self, Leadership, TERM_TTL},
    maintainer::Services,
    services::{
        CampaignKeeper, Cascader, Cleaner, Crawler, Depth, Expirer, IndexChecker, IndexKeeper, LimitKeeper,
        MonthDropper, Promoter, Rescuer, Sweeper,
    },
};

/// Limits are compared once per this many reconciliations: commands push their changes, this only
/// repairs them.
const LIMITS_EVERY: u32 = 5;
/// The invariants of the index are checked once per this many reconciliations.
const CHECK_EVERY: u32 = 60;
/// Pages of the crawl per reconciliation interval.
const CRAWLED_PAGES: u32 = 10;

/// Settings of a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerSettings {
    /// All queues.
    pub queues: Vec<QueueName>,
    /// How often the scheduler looks for due jobs and expired leases.
    pub tick: Duration,
    /// How often the index is compared with the ledger.
    pub reconcile: Duration,
    /// Duration of a lease that the index has lost, unless its holder renews it.
    pub lease: Duration,
    /// Retention of finished jobs.
    pub keep_jobs: Duration,
}

/// Campaigns for leadership and runs the services while leading, until `stop`.
pub async fn schedule(settings: SchedulerSettings, stores: Stores, clock: Clock, stop: CancellationToken) {
    let (publish, leadership) = watch::channel(None);
    let candidate = Candidate::new(stores.system.clone(), ids::new_id(&clock), TERM_TTL);
    // The term ends after the services, so this leader has stopped before the next one starts.
    let services_done = CancellationToken::new();
    let election = tokio::spawn(elector::elect(candidate, publish, services_done.clone()));
    serve(settings, stores, clock, leadership, stop).await;
    services_done.cancel();
    if let Err(error) = election.await {
        tracing::error!(%error, "the election task failed");
    }
}

/// Runs the services while `leadership` holds a term, until `stop`.
pub async fn serve(
    settings: SchedulerSettings,
    stores: Stores,
    clock: Clock,
    leadership: Leadership,
    stop: CancellationToken,
) {
    let Stores { tenants, system: db, index } = stores;
    let SchedulerSettings { queues, tick, reconcile, lease, keep_jobs } = settings;
    let reconciler = Reconciler::new(db.clone(), index.clone());

    tokio::spawn(eviction::warn(index.clone(), stop.clone()));
    // Also on standby: once this scheduler leads, its shard count is the valid one.
    tokio::spawn(shard_agreement::watch(index.clone(), queues.clone(), stop.clone()));
    let mut services = Services::new(leadership, stop);
    let promoter = Promoter::new(reconciler.clone(), tick);
    let rescuer = Rescuer::new(db.clone(), index.clone(), queues.clone(), tick);
    let keeper = IndexKeeper::new(reconciler.clone(), queues.clone(), reconcile);
    let limit_keeper =
        LimitKeeper::new(Limiter::new(db.clone(), index.clone()), queues.clone(), reconcile * LIMITS_EVERY);
    let checker = Checker::new(db.clone(), index.clone(), lease);
    let checker = IndexChecker::new(checker, queues.clone(), reconcile * CHECK_EVERY);
    let crawler = Crawler::new(reconciler.clone(), queues.clone(), reconcile / CRAWLED_PAGES);
    let sweeper = Sweeper::new(reconciler, queues.clone(), reconcile);
    services.start(promoter);
    services.start(rescuer);
    services.start(keeper);
    services.start(limit_keeper);
    services.start(checker);
    services.start(crawler);
    services.start(sweeper);
    services.start(Expirer::new(db.clone(), index.clone()));
    services.start(Cascader::new(db.clone(), index.clone()));
    services.start(Cleaner::new(db.clone(), keep_jobs));
    let campaign_keeper = CampaignKeeper::new(db.clone(), tenants, clock.clone());
    services.start(campaign_keeper);
    services.start(MonthDropper::new(db.clone(), keep_jobs));
    services.start(Depth::new(db, index, queues, clock));

    services.ended().await;
}
