//! Rota as installed: the real binaries, private stores, a mail server that counts, and a tenant
//! with a key.
//!
//! Invariant: nothing is shared with other tests, so every fault may be injected into every part;
//! the roles get the variables of `.env.sample` and nothing else. `faults` breaks things, `client`
//! acts as the tenant, `accounts` checks the result.

mod accounts;
mod client;
mod faults;
mod links;
mod role;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use accounts::{Mails, leads_csv};
pub use client::{Answer, ApiClient};
pub use links::{Link, Links};
pub use role::Role;

use crate::{
    free_port::free_port,
    postgres::{PostgresOptions, PrivatePostgres},
    process::ProcessSpec,
    redis_server::{PrivateRedis, RedisOptions},
    smtp_sink::{SinkOptions, SmtpSink},
};

/// For a debug build on a busy machine; a process that takes longer is broken.
pub const READY_TIMEOUT: Duration = Duration::from_mins(1);
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// Settings that a test may change.
#[derive(Debug)]
pub struct InstallationOptions {
    /// Worker processes. With 0 there is no scheduler either and nothing is sent, which is enough
    /// for a test of the API.
    pub workers: usize,
    /// Limit on mails accepted per second, so that a campaign lasts long enough to inject faults.
    pub mails_per_second: Option<u32>,
    /// Additional variables for all roles.
    pub env: Vec<(&'static str, String)>,
}

impl Default for InstallationOptions {
    fn default() -> Self {
        Self { workers: 2, mails_per_second: None, env: Vec::new() }
    }
}

/// All parts. Fields drop in order: the processes before the servers they are connected to.
#[derive(Debug)]
pub struct Installation {
    pub api: Role,
    pub workers: Vec<Role>,
    pub scheduler: Option<Role>,
    /// The mail server.
    pub sink: SmtpSink,
    /// Proxies between every process and its stores.
    pub links: Links,
    pub redis: PrivateRedis,
    pub postgres: PrivatePostgres,
    /// The tenant of the tests.
    pub tenant: ApiClient,
    /// A second tenant, to test isolation from the first.
    pub neighbour: ApiClient,
}

impl Installation {
    /// Starts everything and waits until it is ready: two workers, no limit on mails.
    pub async fn start() -> Result<Self> {
        Self::start_with(InstallationOptions::default()).await
    }

    pub async fn start_with(options: InstallationOptions) -> Result<Self> {
        // Only processes crash here, which loses no written data; syncing would test the disk.
        let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
        let redis = PrivateRedis::new(RedisOptions::default()).await?;
        let links = Links::start(&postgres, &redis).await?;
        let sink =
            SmtpSink::start_with(SinkOptions { accept_per_second: options.mails_per_second, ..SinkOptions::default() })
                .await?;
        let api_port = free_port()?;
        let owner = |name: &str| -> Result<ProcessSpec> {
            let urls = postgres.urls();
            Ok(ProcessSpec::binary(name)?
                .env("DATABASE_OWNER_URL", &urls.owner)
                .env("DATABASE_URL", &urls.app)
                .env("DATABASE_SYSTEM_URL", &urls.system)
                .env("ENVIRONMENT", "test"))
        };
        run(owner("api")?.arg("migrate")).await?;
        let demo = run(owner("api")?.args(["demo", "--tenants", "2", "--json"])).await?;
        let (tenant, neighbour) = (tenant(&demo, 0, api_port)?, tenant(&demo, 1, api_port)?);

        let spec = |name: &str, link: &Link| -> Result<ProcessSpec> {
            let urls = link.database_urls(postgres.urls())?;
            let mut spec = ProcessSpec::binary(name)?
                .env("DATABASE_URL", urls.app)
                .env("DATABASE_SYSTEM_URL", urls.system)
                .env("REDIS_URL", link.redis_url())
                .env("SMTP_URL", sink.url())
                .env("PORT", api_port.to_string())
                .env("ENVIRONMENT", "test")
                .env("ROTA_TEST_KINDS", "1")
                .env("ROTA_LEASE_MS", "2000")
                .env("ROTA_TICK_MS", "100")
                .env("ROTA_RECONCILE_MS", "200");
            for (name, value) in &options.env {
                spec = spec.env(name, value);
            }
            Ok(spec)
        };
        let mut api = Role::start("api", spec("api", &links.api)?.arg("serve"), api_port)?;
        let mut workers = Vec::new();
        for number in 1..=options.workers {
            let port = free_port()?;
            let spec = spec("worker", &links.worker)?.env("METRICS_PORT", port.to_string());
            workers.push(Role::start(&format!("worker {number}"), spec, port)?);
        }
        let mut scheduler = None;
        if options.workers > 0 {
            let port = free_port()?;
            let spec = spec("scheduler", &links.scheduler)?.env("METRICS_PORT", port.to_string());
            scheduler = Some(Role::start("scheduler", spec, port)?);
        }
        for role in std::iter::once(&mut api).chain(&mut workers).chain(&mut scheduler) {
            role.ready().await?;
        }
        Ok(Self { api, workers, scheduler, sink, links, redis, postgres, tenant, neighbour })
    }

    /// All processes.
    pub fn roles(&mut self) -> impl Iterator<Item = &mut Role> {
        std::iter::once(&mut self.api).chain(&mut self.workers).chain(&mut self.scheduler)
    }

    /// The processes that ended without being stopped by the test.
    pub fn ended_by_themselves(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for role in self.roles() {
            if let Some(status) = role.process.exit_status()? {
                ended.push(format!("{} ({status})", role.name));
            }
        }
        Ok(ended)
    }
}

/// Runs a command to completion and returns its output.
async fn run(spec: ProcessSpec) -> Result<String> {
    let mut process = spec.start()?;
    let status = process.wait_exit(COMMAND_TIMEOUT).await?;
    let output = process.output()?;
    ensure!(status.success(), "{status}: {output}");
    Ok(output)
}

fn tenant(demo: &str, number: usize, api_port: u16) -> Result<ApiClient> {
    let json = demo.lines().find(|line| line.starts_with('{')).context("api demo prints a JSON object")?;
    let demo: Value = serde_json::from_str(json)?;
    let key = demo["tenants"][number]["api_key"].as_str().context("a demo tenant has an API key")?;
    ApiClient::new(format!("http://127.0.0.1:{api_port}"), key.to_owned())
}
