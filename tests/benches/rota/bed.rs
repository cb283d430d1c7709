//! Stores and processes for one run of one figure: everything is new, so figures do not depend on
//! their order.
//!
//! PostgreSQL syncs every commit. Redis is configured as `docs/OPERATIONS.md` recommends: without
//! persistence, since everything in it can be rebuilt.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::queue::{Index, IndexSettings, QueueName, ShardCounts};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    free_port::free_port,
    postgres::{PostgresOptions, PrivatePostgres},
    process::{ProcessSpec, ProcessUnderTest},
    redis_server::{PrivateRedis, RedisOptions},
};
use uuid::Uuid;

use crate::figures::Figure;

const PATIENCE: Duration = Duration::from_mins(2);

/// A tenant that sends jobs.
pub struct Tenant {
    /// The tenant's id in the ledger.
    pub id: Uuid,
    /// A key with every scope.
    pub api_key: String,
}

/// A complete installation.
pub struct Bed {
    /// The ledger.
    pub postgres: PrivatePostgres,
    /// The index.
    pub redis: PrivateRedis,
    /// The API's port.
    pub port: u16,
    /// As many as the figure needs.
    pub tenants: Vec<Tenant>,
    /// The API.
    pub api: ProcessUnderTest,
    /// The scheduler.
    pub scheduler: ProcessUnderTest,
    settings: Settings,
}

/// Settings of the processes that a figure may change.
#[derive(Clone, Copy)]
struct Settings {
    lease: Option<Duration>,
    kinds: &'static str,
}

/// A worker and its metrics port.
pub struct Worker {
    /// The process.
    pub process: ProcessUnderTest,
    /// The port of `/metrics`.
    pub port: u16,
}

impl Bed {
    /// Starts stores, API and scheduler.
    pub async fn make(figure: &Figure) -> Result<Self> {
        let own = Settings { lease: figure.lease, kinds: figure.kinds };
        let settings =
            vec![("shared_buffers".to_owned(), "512MB".to_owned()), ("max_wal_size".to_owned(), "4GB".to_owned())];
        let postgres = PrivatePostgres::new(PostgresOptions { fsync: true, settings }).await?;
        let redis = PrivateRedis::new(RedisOptions::default()).await?;
        let (port, scheduler_port) = (free_port()?, free_port()?);
        let spec =
            |name: &str| Ok::<_, anyhow::Error>(spec(name, &postgres, &redis, own)?.env("PORT", port.to_string()));
        spec("api")?.arg("migrate").start()?.wait_exit(PATIENCE).await?;
        let mut demo = spec("api")?.args(["demo", "--json", "--tenants", &figure.tenants.to_string()]).start()?;
        demo.wait_exit(PATIENCE).await?;
        let tenants = made(&demo.output()?)?;
        let mut scheduler = spec("scheduler")?.env("METRICS_PORT", scheduler_port.to_string()).start()?;
        let mut api = spec("api")?.arg("serve").start()?;
        scheduler.wait_ready(&ready(scheduler_port), PATIENCE).await?;
        api.wait_ready(&ready(port), PATIENCE).await?;
        let bed = Self { postgres, redis, port, tenants, api, scheduler, settings: own };
        bed.index_is_whole().await?;
        Ok(bed)
    }

    /// Starts a worker with this many slots.
    pub async fn worker(&self, slots: usize) -> Result<Worker> {
        let port = free_port()?;
        let mut process = spec("worker", &self.postgres, &self.redis, self.settings)?
            .env("METRICS_PORT", port.to_string())
            .env("WORKER_CONCURRENCY", slots.to_string())
            .start()?;
        process.wait_ready(&ready(port), PATIENCE).await?;
        Ok(Worker { process, port })
    }

    /// Runs an operator's command.
    pub async fn operate(&self, arguments: &[&str]) -> Result<()> {
        let mut command = spec("api", &self.postgres, &self.redis, self.settings)?.args(arguments).start()?;
        let status = command.wait_exit(PATIENCE).await?;
        ensure!(status.success(), "api {}: {}", arguments.join(" "), command.output()?);
        Ok(())
    }

    /// A connection as the owner, which sees everything.
    pub async fn owner(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.postgres.urls().owner).await?)
    }

    /// The index as the processes see it.
    pub fn index(&self) -> Result<Index> {
        let response_timeout = Duration::from_secs(10);
        let (prefix, shards) = ("rota".to_owned(), ShardCounts::default());
        Ok(Index::open(&IndexSettings { url: self.redis.url(), prefix, response_timeout, shards })?)
    }

    /// Waits until the leader has built the whole index in the ledger's current epoch.
    pub async fn index_is_whole(&self) -> Result<()> {
        let (index, mut owner) = (self.index()?, self.owner().await?);
        eventually(PATIENCE, "the index is built", async || {
            let epoch: i64 = sqlx::query_scalar("select epoch from index_epochs where queue = 'default'")
                .fetch_optional(&mut owner)
                .await
                .ok()??;
            let status = index.status(&queue()).await.ok()?;
            (status.state == shared::queue::IndexState::Ready && status.complete && status.epoch == epoch).then_some(())
        })
        .await;
        Ok(())
    }
}

impl Worker {
    /// Stops the worker as a roll-out does.
    pub async fn stop(mut self) -> Result<()> {
        self.process.sigterm()?;
        self.process.wait_exit(PATIENCE).await?;
        Ok(())
    }
}

/// The queue of all test-only kinds.
pub fn queue() -> QueueName {
    "default".parse().expect("a valid queue name")
}

fn made(printed: &str) -> Result<Vec<Tenant>> {
    let line = printed.lines().find(|line| line.starts_with('{')).context("the demo prints one JSON object")?;
    let demo: Value = serde_json::from_str(line)?;
    let tenant = |tenant: &Value| {
        let api_key = tenant["api_key"].as_str()?.to_owned();
        Some(Tenant { id: tenant["id"].as_str()?.parse().ok()?, api_key })
    };
    demo["tenants"].as_array().into_iter().flatten().map(tenant).collect::<Option<_>>().context("tenants with keys")
}

fn spec(name: &str, postgres: &PrivatePostgres, redis: &PrivateRedis, own: Settings) -> Result<ProcessSpec> {
    let urls = postgres.urls();
    let spec = ProcessSpec::binary(name)?
        .env("DATABASE_URL", &urls.app)
        .env("DATABASE_SYSTEM_URL", &urls.system)
        .env("DATABASE_OWNER_URL", &urls.owner)
        .env("REDIS_URL", redis.url())
        .env("ENVIRONMENT", "test")
        .env("ROTA_TEST_KINDS", own.kinds)
        .env("RUST_LOG", "warn");
    Ok(match own.lease {
        Some(lease) => spec.env("ROTA_LEASE_MS", lease.as_millis().to_string()),
        None => spec,
    })
}

fn ready(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/health/readiness")
}
