//! `api serve`.

use std::sync::{Arc, OnceLock};

use jobs::{account_links::AccountLinks, registry::Registry, unsubscribe::UnsubscribeLinks};
use shared::{
    clock::Clock,
    compute::{ComputePool, ComputeSettings},
    config::{ApiConfig, Env, HttpConfig, Listen},
    db::PoolSettings,
    health::{self, HealthChecks},
    http_server::{self, DrainReport, bind, probe::Probe},
    identity::refresh_token::RefreshTokens,
    queue::{enqueue::Producer, index::eviction, repair::shard_agreement},
    rate_limit::{RateLimitSettings, RateLimiter},
    shutdown::Shutdown,
    stores::Stores,
    telemetry::{logging, metrics},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Authenticator, MailLimit, SignInLimit},
    client_address::TrustedProxies,
    dependency_quota::DependencyQuota,
    in_flight::{InFlightBytes, InFlightLimits},
    job_events::{JobEvents, StreamLimits},
    router::router,
    server::{self, HttpSettings},
    state::{AppState, Parts},
    uploads::Uploads,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serves until SIGTERM, then finishes the requests in flight.
pub async fn serve(env: &Env) -> anyhow::Result<()> {
    let config = ApiConfig::load(env)?;
    logging::init(&config.telemetry)?;
    config.environment.warn_if_assumed();
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
    let state = state(&config, stores.clone(), shutdown.token())?;
    let producer = state.producer.clone();
    let (listener, listen) = bind(config.http.listen, "HOST, PORT").await?;
    tracing::info!(%listen, version = VERSION, "serving");
    let checks: Arc<dyn HealthChecks> = Arc::new(stores);
    tokio::spawn(health::watch(Arc::clone(&checks), shutdown.token()));
    let router = router(state, Arc::clone(&checks));
    // The probe stops last: an orchestrator observes the drain through it.
    let end = CancellationToken::new();
    let probe = match config.metrics {
        Some(HttpConfig { listen }) => {
            Some(tokio::spawn(probe(listen, Probe { metrics: handle, checks }, end.clone()).await?))
        }
        None => None,
    };
    let report = server::serve(listener, router, HttpSettings::default(), shutdown.token()).await;
    producer.finish().await;
    end.cancel();
    if let Some(probe) = probe {
        probe.await?;
    }
    tracing::info!(cut_off = report.cut_off, "ended");
    Ok(())
}

/// Serves metrics and health on their own address until `end`.
async fn probe(
    listen: Listen,
    probe: Probe,
    end: CancellationToken,
) -> anyhow::Result<impl Future<Output = DrainReport>> {
    let (listener, listen) = bind(listen, "HOST, METRICS_PORT").await?;
    tracing::info!(%listen, "serving metrics");
    Ok(http_server::probe::serve(listener, probe, end))
}

/// Builds the state of the handlers over open stores; event streams end at `stop`.
pub fn state(config: &ApiConfig, stores: Stores, stop: CancellationToken) -> anyhow::Result<AppState> {
    let clock = Clock::system();
    let registry = Registry::new(config.environment.test_kinds).with_max_args_bytes(config.limits.max_args_bytes);
    let registry = Arc::new(registry);
    let queues: Vec<_> = registry.queues().into_iter().collect();
    tokio::spawn(eviction::warn(stores.index.clone(), stop.clone()));
    tokio::spawn(shard_agreement::watch(stores.index.clone(), queues.clone(), stop.clone()));
    let limiter = || RateLimiter::start(&stores.index, RateLimitSettings::default(), stop.clone());
    let rate_limiter = config.rate_limits.enabled.then(limiter).transpose()?;
    Ok(AppState::from(Parts {
        without_query: OnceLock::new(),
        producer: Producer::start(&stores.system, stores.index.clone(), clock.clone()),
        registry,
        events: JobEvents::start(&stores.index, &queues, StreamLimits::default(), stop),
        authenticator: Authenticator::new(stores.system.clone(), config.tokens.access_tokens.clone(), clock.clone()),
        refresh_tokens: RefreshTokens::new(config.links.key.expose()),
        passwords: ComputePool::start(ComputeSettings::refusing()),
        sign_ins: SignInLimit::default(),
        mails: MailLimit::default(),
        rate_limiter,
        proxies: TrustedProxies::new(config.rate_limits.trusted_proxies.clone()),
        dependencies: DependencyQuota::new(config.dependencies),
        in_flight: InFlightBytes::new(InFlightLimits::default()),
        uploads: Uploads::new(&config.limits),
        outbound: Arc::new((&config.outbound).into()),
        unsubscribe_links: UnsubscribeLinks::new(config.links.clone()),
        account_links: AccountLinks::new(config.links.clone()),
        compute: ComputePool::start(ComputeSettings::refusing()),
        stores,
        clock,
    }))
}
