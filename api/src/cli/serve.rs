//! `api serve`.

use std::sync::Arc;

use anyhow::Context as _;
use jobs::{registry::Registry, unsubscribe::UnsubscribeLinks};
use shared::{
    clock::Clock,
    compute::{ComputePool, ComputeSettings},
    config::{ApiConfig, Env},
    db::PoolSettings,
    queue::{producer::Producer, shard_agreement},
    shutdown::Shutdown,
    stores::Stores,
    telemetry::{logging, metrics},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::KeyRing,
    job_events::{JobEvents, StreamLimits},
    router::router,
    routes,
    server::{self, HttpSettings},
    state::{AppState, Parts},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serves until SIGTERM, then finishes the requests in flight.
pub async fn serve(env: &Env) -> anyhow::Result<()> {
    let config = ApiConfig::load(env)?;
    logging::init(&config.telemetry)?;
    let handle = metrics::install()?;
    let shutdown = Shutdown::new()?;
    shared::faults::arm(config.environment.fault);
    tokio::spawn(metrics::run_upkeep(handle.clone(), VERSION, shutdown.token()));
    config.redis.shards.require_known(&Registry::new(config.environment.test_kinds).queues())?;
    let stores = Stores::open(
        &config.database,
        &config.redis,
        "rota-api",
        PoolSettings { max_connections: 20, ..PoolSettings::default() },
    )?;
    let state = state(&config, stores.clone(), shutdown.token());
    let producer = state.producer.clone();
    let listener = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {} (HOST, PORT)", config.http.listen))?;
    tracing::info!(listen = %config.http.listen, version = VERSION, "serving");
    let router = router(state, Arc::new(stores)).merge(routes::metrics::router(handle));
    let report = server::serve(listener, router, HttpSettings::default(), shutdown.token()).await;
    producer.finish().await;
    tracing::info!(cut_off = report.cut_off, "ended");
    Ok(())
}

/// What handlers need, over stores that are open; streams of events end at `stop`.
pub fn state(config: &ApiConfig, stores: Stores, stop: CancellationToken) -> AppState {
    let clock = Clock::system();
    let registry = Arc::new(Registry::new(config.environment.test_kinds));
    let queues: Vec<_> = registry.queues().into_iter().collect();
    tokio::spawn(shard_agreement::watch(stores.index.clone(), queues.clone(), stop.clone()));
    AppState::from(Parts {
        producer: Producer::start(&stores.system, stores.index.clone(), clock.clone()),
        registry,
        events: JobEvents::start(&stores.index, &queues, StreamLimits::default(), stop),
        keys: KeyRing::new(stores.system.clone()),
        outbound: Arc::new((&config.outbound).into()),
        unsubscribe_links: UnsubscribeLinks::new(config.links.clone()),
        compute: ComputePool::start(ComputeSettings::refusing()),
        stores,
        clock,
    })
}
