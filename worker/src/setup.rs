//! Builds a worker from its configuration and runs it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::future::{BoxFuture, FutureExt as _};
use jobs::{
    account_links::AccountLinks,
    account_mail::AccountMails,
    campaign_mail::CampaignMails,
    environment::Environment,
    ports::{
        mail::{MailSettings, Mailer},
        outbound::Outbound,
    },
    registry::Registry,
    unsubscribe::UnsubscribeLinks,
};
use shared::{
    background,
    clock::Clock,
    compute::{ComputePool, ComputeSettings},
    config::{QueueFilter, WorkerConfig},
    db::PoolSettings,
    health::{Check, CheckState, HealthChecks},
    queue::{QueueName, enqueue::Producer},
    store::webhook_secrets::SecretReader,
    stores::{OpenError, Stores},
};
use tokio::runtime::Handle;

use crate::{capacity::handler_runtime::HandlerRuntime, process::WorkerSettings, worker::work};

/// How long a run waits for a connection while other transactions of its tenant use the tenant's
/// share.
const SHARE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long running jobs may continue after SIGTERM. Below the 30 s after which most supervisors
/// kill.
const GRACE: Duration = Duration::from_secs(20);
/// Connections for the worker itself: fetching, finishing, checks.
const MACHINERY_CONNECTIONS: u32 = 6;
/// Upper bound of connections for handlers. One per slot up to this bound.
const MAX_CONNECTIONS: u32 = 20;

/// Runs a worker until it receives a stop signal: handlers on `handlers`, everything else on the
/// current runtime.
pub async fn run(config: WorkerConfig, handlers: Handle) -> anyhow::Result<()> {
    shared::faults::arm(config.environment.fault);
    let config = Arc::new(config);
    let stores = open_stores(&config, MACHINERY_CONNECTIONS)?;
    let handlers = HandlerRuntime::new(handlers);
    let registry = Arc::new(Registry::new(config.environment.test_kinds));
    config.redis.shards.require_known(&registry.queues())?;
    let settings = WorkerSettings {
        queues: queues(&registry, &config.slots.queues)?,
        slots: config.slots.concurrency.get(),
        lease: config.timing.lease,
        grace: GRACE,
    };
    let checks = Checks { stores: stores.clone(), handlers: handlers.clone() };
    background::run(
        &config.environment,
        &config.telemetry,
        config.http.listen,
        Arc::new(checks),
        env!("CARGO_PKG_VERSION"),
        async |stop| {
            let environment = {
                let config = Arc::clone(&config);
                handlers.handle.spawn(async move { environment(&config) }).await??
            };
            work(settings, stores.system, stores.index, registry, environment, handlers, stop).await
        },
    )
    .await?
}

/// The readiness checks of a worker.
struct Checks {
    stores: Stores,
    handlers: HandlerRuntime,
}

impl HealthChecks for Checks {
    fn check(&self) -> BoxFuture<'_, Vec<Check>> {
        async move {
            let mut checks = self.stores.check().await;
            checks.push(if self.handlers.is_stalled() {
                Check::failing("handlers", CheckState::Degraded, "handlers block all threads of their runtime")
            } else {
                Check::up("handlers")
            });
            checks
        }
        .boxed()
    }

    fn maintain(&self) -> BoxFuture<'_, ()> {
        self.stores.maintain()
    }
}

/// Opens the stores on the current runtime: a connection belongs to the runtime on which it was
/// opened.
fn open_stores(config: &WorkerConfig, max_connections: u32) -> Result<Stores, OpenError> {
    // A job waits for a connection instead of failing: the connections are in use by runs of its
    // own tenant, which are bounded in time.
    let pool = PoolSettings { max_connections, share_timeout: SHARE_TIMEOUT, ..PoolSettings::default() };
    Stores::open(&config.database, &config.redis, "rota-worker", pool)
}

/// Builds the handlers' environment. Call it on the handlers' runtime.
fn environment(config: &WorkerConfig) -> anyhow::Result<Environment> {
    let clock = Clock::system();
    let slots = u32::try_from(config.slots.concurrency.get()).unwrap_or(u32::MAX);
    let stores = open_stores(config, slots.min(MAX_CONNECTIONS))?;
    tokio::spawn(stores.clone().tidy());
    Ok(Environment {
        tenants: stores.tenants.clone(),
        producer: Producer::start(&stores.system, stores.index.clone(), clock.clone()),
        index: stores.index.clone(),
        outbound: Outbound::new((&config.outbound).into()).context("HTTP client for webhooks")?,
        webhook_secrets: SecretReader::new(stores.system.clone()),
        mailer: mailer(config)?,
        compute: ComputePool::start(ComputeSettings::waiting()),
        campaign_mails: CampaignMails::default(),
        unsubscribe_links: UnsubscribeLinks::new(config.links.clone()),
        account_mails: AccountMails::new(AccountLinks::new(config.links.clone()), config.mail.from.clone()),
        clock,
    })
}

fn mailer(config: &WorkerConfig) -> anyhow::Result<Mailer> {
    let settings = MailSettings {
        connections: config.mail.connections.get(),
        timeout: config.mail.timeout,
        relay_probe: config.mail.relay_probe,
        relay_patience: config.mail.relay_patience,
        hello_name: None,
    };
    Mailer::from_url(&config.mail.transport.expose(), settings).context("SMTP_URL")
}

/// Resolves the queue filter. A queue that no kind uses is an error, since it is most likely a
/// typo.
fn queues(registry: &Registry, filter: &QueueFilter) -> anyhow::Result<Vec<QueueName>> {
    let known = registry.queues();
    if let QueueFilter::Only(names) = filter
        && let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str()))
    {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        bail!("WORKER_QUEUES: unknown queue {unknown:?}; known queues: {}", known.join(", "));
    }
    Ok(known.into_iter().filter(|queue| filter.serves(queue.as_ref())).collect())
}
