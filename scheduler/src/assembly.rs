//! Builds a scheduler from its configuration and runs it.

use std::{sync::Arc, time::Duration};

use jobs::registry::Registry;
use shared::{
    background,
    clock::Clock,
    config::SchedulerConfig,
    db::PoolSettings,
    ids,
    leadership::Candidate,
    stores::{OpenError, Stores},
};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    elector::{self, TERM_TTL},
    process::{SchedulerSettings, serve},
};

/// Retention of finished jobs.
const KEEP_JOBS: Duration = Duration::from_hours(30 * 24);

/// Connections for the election and the health checks.
const CONTROL_CONNECTIONS: u32 = 2;

/// Runs a scheduler until it receives a stop signal: election and health checks on the current
/// runtime, services on `services`. A connection belongs to the runtime on which it was opened, so
/// each runtime opens its own.
pub async fn run(config: SchedulerConfig, services: Handle) -> anyhow::Result<()> {
    shared::faults::arm(config.environment.fault);
    let few = PoolSettings { max_connections: CONTROL_CONNECTIONS, ..PoolSettings::default() };
    let control = Stores::open(&config.database, &config.redis, "rota-scheduler", few)?;
    let queues = Registry::new(config.environment.test_kinds).queues();
    config.redis.shards.require_known(&queues)?;
    let settings = SchedulerSettings {
        queues: queues.into_iter().collect(),
        tick: config.timing.tick,
        reconcile: config.timing.reconcile,
        lease: config.timing.lease,
        keep_jobs: KEEP_JOBS,
    };
    let config = Arc::new(config);
    let around = Arc::clone(&config);
    background::run(
        &around.environment,
        &around.telemetry,
        around.http.listen,
        Arc::new(control.clone()),
        env!("CARGO_PKG_VERSION"),
        async |stop| {
            let (publish, leadership) = watch::channel(None);
            let (clock, done) = (Clock::system(), CancellationToken::new());
            let candidate = Candidate::new(control.system, ids::new_id(&clock), TERM_TTL);
            // The term ends after the services, so this leader has stopped before the next one
            // starts.
            let election = tokio::spawn(elector::elect(candidate, publish, done.clone()));
            let scheduled = services.spawn(async move {
                let stores = Stores::open(&config.database, &config.redis, "rota-scheduler", PoolSettings::default())?;
                tokio::spawn(stores.clone().tidy());
                serve(settings, stores, clock, leadership, stop).await;
                Ok::<_, OpenError>(())
            });
            let scheduled = scheduled.await;
            done.cancel();
            election.await?;
            Ok(scheduled??)
        },
    )
    .await?
}
