//! Rota assembled inside a test: a private database, a private Redis prefix, workers and schedulers
//! that start and stop on request.
//!
//! Invariant: the parts and the unprivileged roles are the same as in the processes; only `main` is
//! missing.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use jobs::{
    account_links::AccountLinks,
    account_mail::AccountMails,
    campaign_mail::CampaignMails,
    environment::Environment,
    ports::{
        mail::{MailSettings, Mailer},
        outbound::{Outbound, OutboundPolicy},
    },
    registry::Registry,
    unsubscribe::UnsubscribeLinks,
};
use scheduler::process::{SchedulerSettings, schedule};
use shared::{
    clock::Clock,
    compute::{ComputePool, ComputeSettings},
    config::{Env, LinkConfig, LinkKey, TestKinds},
    db::{PoolSettings, SystemDb, TenantDb, migrate},
    ids,
    queue::{
        Index, IndexSettings, NewJob, Priority, ShardCounts, enqueue::Producer, ledger::request::EnqueueRequest,
        observe::inspect,
    },
    store::{tenants::OwnerConnection, webhook_secrets::SecretReader},
    stores::Stores,
    tenancy::TenantId,
};
use tempfile::TempDir;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::{capacity::handler_runtime::HandlerRuntime, process::WorkerSettings, worker::work};

use crate::postgres::{DatabaseUrls, SharedServer, TestDatabase};

/// The system of one test.
pub struct TestSystem {
    /// URLs of its database.
    pub urls: DatabaseUrls,
    /// Transactions of tenants.
    pub tenants: TenantDb,
    /// Database access of the queue itself, across tenants.
    pub system: SystemDb,
    /// The index, under a private prefix.
    pub index: Index,
    /// Commits jobs.
    pub producer: Producer,
    /// All kinds, including the test-only ones.
    pub registry: Arc<Registry>,
    /// Sends mails, into a folder unless the test configures otherwise.
    pub mailer: Mailer,
    /// The time source.
    pub clock: Clock,
    /// The first part of every Redis key.
    pub prefix: String,
    /// URL of its Redis.
    pub redis_url: String,
    /// The default folder for mails.
    pub mails: TempDir,
    _database: Option<TestDatabase>,
}

/// A worker or scheduler that runs inside the test.
pub struct Running<T> {
    stop: CancellationToken,
    task: JoinHandle<T>,
}

impl<T> Running<T> {
    /// Requests a stop and waits until it is complete.
    pub async fn stop(self) -> T {
        self.stop.cancel();
        self.task.await.expect("the task does not panic")
    }
}

impl TestSystem {
    /// A system on the servers that `DATABASE_OWNER_URL` and `REDIS_URL` name.
    pub async fn start() -> Result<Self> {
        let database = SharedServer::from_env()?.create_database().await?;
        let env = Env::from_process();
        let redis_url = env.get("REDIS_URL").context("REDIS_URL is not set; bin/test sets it")?.to_owned();
        let urls = database.urls().clone();
        Self::on(urls, redis_url, Some(database)).await
    }

    /// A system on the given servers.
    pub async fn on(urls: DatabaseUrls, redis_url: String, database: Option<TestDatabase>) -> Result<Self> {
        crate::tls::install_crypto_provider();
        migrate::migrate(&urls.owner, &urls.app, &urls.system).await?;
        let clock = Clock::system();
        let prefix = format!("test-{}", ids::new_id(&clock).simple());
        let index = open_index(&redis_url, &prefix, ShardCounts::default())?;
        let tenants = TenantDb::open(&urls.app, "test", PoolSettings::default())?;
        let system = SystemDb::open(&urls.system, "test", PoolSettings::default())?;
        let producer = Producer::start(&system, index.clone(), clock.clone());
        let mails = tempfile::tempdir()?;
        let mailer = Mailer::from_url(&format!("file:{}", mails.path().display()), MailSettings::default())?;
        Ok(Self {
            mailer,
            mails,
            urls,
            tenants,
            system,
            index,
            producer,
            registry: Arc::new(Registry::new(TestKinds::One)),
            clock,
            prefix,
            redis_url,
            _database: database,
        })
    }

    /// The same system, with another `ROTA_QUEUE_SHARDS` for all parts started from now on.
    pub fn split(mut self, shards: &str) -> Result<Self> {
        self.index = self.index_split(shards)?;
        self.producer = Producer::start(&self.system, self.index.clone(), self.clock.clone());
        Ok(self)
    }

    /// The index as seen by a process with this `ROTA_QUEUE_SHARDS`.
    pub fn index_split(&self, shards: &str) -> Result<Index> {
        open_index(&self.redis_url, &self.prefix, shards.parse()?)
    }

    /// Adds a tenant.
    pub async fn tenant(&self, slug: &str) -> Result<TenantId> {
        let mut owner = OwnerConnection::open(&self.urls.owner).await?;
        Ok(owner.ensure_tenant(ids::new_id(&self.clock), slug, slug, "professional").await?.0)
    }

    /// A job of a kind, with the defaults of the kind.
    pub fn job(&self, tenant: TenantId, kind: &str, args: &serde_json::Value) -> NewJob {
        let kind = self.registry.get(kind).expect("the kind exists");
        NewJob {
            id: ids::new_id(&self.clock),
            tenant,
            queue: kind.queue.clone(),
            kind: kind.name.into(),
            args: serde_json::value::to_raw_value(args).expect("a value is JSON"),
            priority: Priority::DEFAULT,
            max_attempts: kind.max_attempts,
            run_at: None,
            expires_at: None,
            args_version: kind.args_version,
            relations: None,
        }
    }

    /// Commits jobs and returns their ids.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Uuid>> {
        let ids = jobs.iter().map(|job| job.id).collect();
        self.producer.enqueue(EnqueueRequest { jobs, idempotency: None }).await?;
        Ok(ids)
    }

    /// A job's state as seen by its tenant.
    pub async fn state(&self, tenant: TenantId, id: Uuid) -> Result<Option<inspect::JobRecord>> {
        let mut transaction = self.tenants.begin(tenant).await?;
        Ok(inspect::find(&mut transaction, &self.index, id).await?)
    }

    /// Starts a worker for all queues.
    pub fn worker(&self, slots: usize, lease: Duration) -> Running<Result<()>> {
        self.worker_with(Arc::clone(&self.registry), slots, lease)
    }

    /// Starts a worker for all queues with a different set of kinds, like a worker of another
    /// release.
    pub fn worker_with(&self, registry: Arc<Registry>, slots: usize, lease: Duration) -> Running<Result<()>> {
        let stop = CancellationToken::new();
        let settings = WorkerSettings {
            queues: self.registry.queues().into_iter().collect(),
            slots,
            lease,
            grace: Duration::from_secs(5),
        };
        let handlers = HandlerRuntime::new(Handle::current());
        let work = work(
            settings,
            self.system.clone(),
            self.index.clone(),
            registry,
            self.environment(),
            handlers,
            stop.clone(),
        );
        Running { stop, task: tokio::spawn(work) }
    }

    /// Starts a scheduler with short intervals.
    pub fn scheduler(&self) -> Running<()> {
        let stop = CancellationToken::new();
        let settings = SchedulerSettings {
            queues: self.registry.queues().into_iter().collect(),
            tick: Duration::from_millis(100),
            reconcile: Duration::from_millis(200),
            lease: Duration::from_secs(2),
            keep_jobs: Duration::from_hours(24),
        };
        let work = schedule(settings, self.stores(), self.clock.clone(), stop.clone());
        Running { stop, task: tokio::spawn(work) }
    }

    /// All stores.
    pub fn stores(&self) -> Stores {
        Stores { tenants: self.tenants.clone(), system: self.system.clone(), index: self.index.clone() }
    }

    /// The signer of the unsubscribe links in mails.
    pub fn unsubscribe_links(&self) -> UnsubscribeLinks {
        UnsubscribeLinks::new(link_config())
    }

    /// The signer of the links in mails about accounts.
    pub fn account_links(&self) -> AccountLinks {
        AccountLinks::new(link_config())
    }

    /// Allows webhooks to sinks on loopback, which the default policy forbids.
    pub fn outbound_policy() -> OutboundPolicy {
        OutboundPolicy { allow_http: true, allowed_networks: vec!["127.0.0.0/8".parse().expect("a network")] }
    }

    fn environment(&self) -> Environment {
        Environment {
            tenants: self.tenants.clone(),
            producer: self.producer.clone(),
            index: self.index.clone(),
            outbound: Outbound::new(Self::outbound_policy()).expect("a client without special settings can be made"),
            webhook_secrets: SecretReader::new(self.system.clone()),
            mailer: self.mailer.clone(),
            compute: ComputePool::start(ComputeSettings::waiting()),
            campaign_mails: CampaignMails::default(),
            unsubscribe_links: self.unsubscribe_links(),
            account_mails: AccountMails::new(self.account_links(), "no-reply@rota.test".parse().expect("an address")),
            clock: self.clock.clone(),
        }
    }
}

fn link_config() -> LinkConfig {
    let key = LinkKey::parse(&"k".repeat(32)).expect("long enough");
    LinkConfig { public_url: "http://rota.test".parse().expect("a URL"), key }
}

fn open_index(url: &str, prefix: &str, shards: ShardCounts) -> Result<Index> {
    let response_timeout = Duration::from_secs(2);
    Ok(Index::open(&IndexSettings { url: url.to_owned(), prefix: prefix.to_owned(), response_timeout, shards })?)
}
