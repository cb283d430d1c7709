//! From the configuration to a working scheduler.

use std::{sync::Arc, time::Duration};

use jobs::registry::Registry;
use shared::{background, clock::Clock, config::SchedulerConfig, db::PoolSettings, stores::Stores};

use crate::process::{SchedulerSettings, schedule};

/// How long finished jobs are kept.
const KEEP_JOBS: Duration = Duration::from_hours(30 * 24);

/// Runs a scheduler until it is told to stop.
pub async fn run(config: SchedulerConfig) -> anyhow::Result<()> {
    shared::faults::arm(config.environment.fault);
    let stores = Stores::open(&config.database, &config.redis, "rota-scheduler", PoolSettings::default())?;
    let queues = Registry::new(config.environment.test_kinds).queues();
    config.redis.shards.require_known(&queues)?;
    let settings = SchedulerSettings {
        queues: queues.into_iter().collect(),
        tick: config.timing.tick,
        reconcile: config.timing.reconcile,
        lease: config.timing.lease,
        keep_jobs: KEEP_JOBS,
    };
    background::run(
        &config.environment,
        &config.telemetry,
        config.http.listen,
        Arc::new(stores.clone()),
        env!("CARGO_PKG_VERSION"),
        async |stop| {
            schedule(settings, stores, Clock::system(), stop).await;
        },
    )
    .await?;
    Ok(())
}
