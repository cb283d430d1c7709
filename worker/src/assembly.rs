//! From the configuration to a working worker.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use jobs::{
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
    queue::{QueueName, producer::Producer},
    store::webhook_secrets::SecretReader,
    stores::Stores,
};

use crate::process::{WorkerSettings, work};

/// How long a run waits for other transactions of its tenant.
const SHARE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long running jobs may go on after SIGTERM; below the 30 s after which most supervisors kill.
const GRACE: Duration = Duration::from_secs(20);
/// What a process needs beside one connection for each slot that is in its database: fetcher, finishers.
const MACHINERY_CONNECTIONS: u32 = 4;
const MAX_CONNECTIONS: u32 = 20;

/// Runs a worker until it is told to stop.
pub async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    shared::faults::arm(config.environment.fault);
    let slots = u32::try_from(config.slots.concurrency.get()).unwrap_or(u32::MAX);
    let pool = PoolSettings {
        max_connections: slots.saturating_add(MACHINERY_CONNECTIONS).min(MAX_CONNECTIONS),
        // A job waits rather than fails: what it waits for are runs of its own tenant, which are bounded in time.
        share_timeout: SHARE_TIMEOUT,
        ..PoolSettings::default()
    };
    let stores = Stores::open(&config.database, &config.redis, "rota-worker", pool)?;
    let registry = Arc::new(Registry::new(config.environment.test_kinds));
    config.redis.shards.require_known(&registry.queues())?;
    let settings = WorkerSettings {
        queues: queues(&registry, &config.slots.queues)?,
        slots: config.slots.concurrency.get(),
        lease: config.timing.lease,
        grace: GRACE,
    };
    background::run(
        &config.telemetry,
        config.http.listen,
        Arc::new(stores.clone()),
        env!("CARGO_PKG_VERSION"),
        async |stop| {
            let environment = environment(&config, &stores)?;
            work(settings, stores.system, stores.index, registry, environment, stop).await
        },
    )
    .await?
}

fn environment(config: &WorkerConfig, stores: &Stores) -> anyhow::Result<Environment> {
    let clock = Clock::system();
    Ok(Environment {
        tenants: stores.tenants.clone(),
        producer: Producer::start(&stores.system, stores.index.clone(), clock.clone()),
        index: stores.index.clone(),
        http: reqwest::Client::builder().timeout(Duration::from_mins(1)).build().context("HTTP client")?,
        outbound: Outbound::new((&config.outbound).into()).context("HTTP client for webhooks")?,
        webhook_secrets: SecretReader::new(stores.system.clone()),
        mailer: mailer(config)?,
        compute: ComputePool::start(ComputeSettings::waiting()),
        campaign_mails: CampaignMails::default(),
        unsubscribe_links: UnsubscribeLinks::new(config.links.clone()),
        clock,
    })
}

fn mailer(config: &WorkerConfig) -> anyhow::Result<Mailer> {
    let settings =
        MailSettings { connections: config.mail.connections.get(), timeout: config.mail.timeout, hello_name: None };
    Mailer::from_url(&config.mail.transport.expose(), settings).context("SMTP_URL")
}

/// The queues that are served; a name no kind waits in is a slip.
fn queues(registry: &Registry, filter: &QueueFilter) -> anyhow::Result<Vec<QueueName>> {
    let known = registry.queues();
    if let QueueFilter::Only(names) = filter
        && let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str()))
    {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        bail!("WORKER_QUEUES: there is no queue {unknown:?}; there are: {}", known.join(", "));
    }
    Ok(known.into_iter().filter(|queue| filter.serves(queue.as_ref())).collect())
}
