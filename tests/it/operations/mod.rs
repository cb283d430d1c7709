//! Running the processes: signals, unusable stores, too few connections, a pooler, any number of
//! instances, secrets that must not leave them.

mod connections;
mod formation;
mod secrets;
mod signals;
mod unfit_stores;

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{eventually::eventually, free_port::free_port, postgres::DatabaseUrls, process::ProcessSpec};

/// For anything that must happen; only a failing test takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// One of our programs with its required variables, and its readiness URL.
fn program(name: &str, urls: &DatabaseUrls, redis_url: &str) -> Result<(ProcessSpec, String)> {
    let port = free_port()?;
    let spec = ProcessSpec::binary(name)?
        .env("DATABASE_URL", &urls.app)
        .env("DATABASE_SYSTEM_URL", &urls.system)
        .env("REDIS_URL", redis_url)
        .env("ENVIRONMENT", "test")
        .env("ROTA_LOG_FORMAT", "pretty")
        .env("ROTA_TEST_KINDS", "1")
        .env("ROTA_TICK_MS", "100")
        .env("ROTA_RECONCILE_MS", "200")
        .env(if name == "api" { "PORT" } else { "METRICS_PORT" }, port.to_string());
    let spec = if name == "api" { spec.arg("serve") } else { spec };
    Ok((spec, format!("http://127.0.0.1:{port}/api/health/readiness")))
}

/// Waits until `is_expected` accepts one check of the readiness response and its status; returns
/// the check.
async fn readiness(url: &str, part: &str, what: &str, is_expected: impl Fn(u16, &Value) -> bool) -> Value {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a plain client");
    eventually(PATIENCE, what, async || {
        let answer = client.get(url).send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.ok()?;
        let check = body["checks"].as_array()?.iter().find(|check| check["name"] == part)?.clone();
        is_expected(status, &check).then_some(check)
    })
    .await
}

fn redis_url() -> Result<String> {
    let url = std::env::var_os("REDIS_URL").context("REDIS_URL is not set; bin/test sets it")?;
    Ok(url.to_string_lossy().into_owned())
}
