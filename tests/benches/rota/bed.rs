//! Stores and processes for one figure: everything is new, so that figures do not depend on their order.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tests::{
    free_port::free_port,
    postgres::{PostgresOptions, PrivatePostgres},
    process::{ProcessSpec, ProcessUnderTest},
    redis_server::{PrivateRedis, RedisOptions},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A whole installation.
pub struct Bed {
    /// The ledger.
    pub postgres: PrivatePostgres,
    /// The index.
    pub redis: PrivateRedis,
    /// Where the API listens.
    pub port: u16,
    /// A key with every scope.
    pub api_key: String,
    /// The API.
    pub api: ProcessUnderTest,
    /// The scheduler.
    pub scheduler: ProcessUnderTest,
}

impl Bed {
    /// Starts stores, API and scheduler.
    pub async fn make() -> Result<Self> {
        let settings =
            vec![("shared_buffers".to_owned(), "512MB".to_owned()), ("max_wal_size".to_owned(), "4GB".to_owned())];
        let postgres = PrivatePostgres::new(PostgresOptions { fsync: true, settings }).await?;
        let redis = PrivateRedis::new(RedisOptions { append_only: true }).await?;
        let (port, scheduler_port) = (free_port()?, free_port()?);
        let spec = |name: &str| Ok::<_, anyhow::Error>(spec(name, &postgres, &redis)?.env("PORT", port.to_string()));
        spec("api")?.arg("migrate").start()?.wait_exit(PATIENCE).await?;
        let mut demo = spec("api")?.args(["demo", "--json"]).start()?;
        demo.wait_exit(PATIENCE).await?;
        let printed = demo.output()?;
        let line = printed.lines().find(|line| line.starts_with('{')).context("the demo prints one JSON object")?;
        let bootstrap: Value = serde_json::from_str(line)?;
        let api_key = bootstrap["tenants"][0]["api_key"].as_str().context("the tenant has a key")?.to_owned();
        let mut scheduler = spec("scheduler")?.env("METRICS_PORT", scheduler_port.to_string()).start()?;
        let mut api = spec("api")?.arg("serve").start()?;
        scheduler.wait_ready(&ready(scheduler_port), PATIENCE).await?;
        api.wait_ready(&ready(port), PATIENCE).await?;
        Ok(Self { postgres, redis, port, api_key, api, scheduler })
    }

    /// Starts a worker with this many slots.
    pub async fn worker(&self, slots: usize) -> Result<ProcessUnderTest> {
        let port = free_port()?;
        let mut worker = spec("worker", &self.postgres, &self.redis)?
            .env("METRICS_PORT", port.to_string())
            .env("WORKER_CONCURRENCY", slots.to_string())
            .start()?;
        worker.wait_ready(&ready(port), PATIENCE).await?;
        Ok(worker)
    }

    /// A connection that sees everything.
    pub async fn owner(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.postgres.urls().owner).await?)
    }
}

fn spec(name: &str, postgres: &PrivatePostgres, redis: &PrivateRedis) -> Result<ProcessSpec> {
    let urls = postgres.urls();
    Ok(ProcessSpec::binary(name)?
        .env("DATABASE_URL", &urls.app)
        .env("DATABASE_SYSTEM_URL", &urls.system)
        .env("DATABASE_OWNER_URL", &urls.owner)
        .env("REDIS_URL", redis.url())
        .env("ENVIRONMENT", "test")
        .env("ROTA_TEST_KINDS", "1")
        .env("RUST_LOG", "warn"))
}

fn ready(port: u16) -> String {
    format!("http://127.0.0.1:{port}/api/health/readiness")
}
