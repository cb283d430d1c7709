//! Limits on the rate of requests. `counting` has the exactness of the shared counters, `outage`
//! the time without Redis, `responses` what clients see, `clients` where anonymous clients are.

mod clients;
mod counting;
mod outage;
mod responses;

use std::time::Duration;

use anyhow::Result;
use shared::{
    authz::Permission,
    config::RateLimitConfig,
    rate_limit::{RateLimitSettings, RateLimiter},
    tenancy::TenantId,
};
use tests::{
    system::TestSystem,
    test_app::{AppLimits, TestApp},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Any cheap operation that requires a credential, and one that requires none.
const COUNTED: &str = "/api/v1/permissions/me";
const ANONYMOUS: &str = "/api/v1/auth/token/verify";

/// Limits in effect. A test process on a busy machine may take longer to read a response than a
/// request may wait, and the decision would then be local; only tests of an outage have the short
/// time-out.
fn limits() -> AppLimits {
    let rates = RateLimitConfig { enabled: true, ..RateLimitConfig::default() };
    let rate_settings = RateLimitSettings { response_timeout: Duration::from_secs(10) };
    AppLimits { rates, rate_settings, ..AppLimits::default() }
}

async fn limited_app() -> Result<TestApp> {
    TestApp::with(TestSystem::start().await?, limits()).await
}

/// A limiter without an API.
fn limiter(system: &TestSystem) -> Result<(RateLimiter, DropGuard)> {
    let stop = CancellationToken::new();
    Ok((RateLimiter::start(&system.index, limits().rate_settings, stop.clone())?, stop.drop_guard()))
}

/// A tenant of a tier.
async fn tenant(app: &TestApp, tier: &str) -> Result<TenantId> {
    let tenant = app.system.tenant(tier).await?;
    set_tier(app, tenant, tier).await?;
    Ok(tenant)
}

async fn set_tier(app: &TestApp, tenant: TenantId, tier: &str) -> Result<()> {
    tests::sql::execute(&app.system.urls.owner, &format!("update tenants set tier = '{tier}' where id = '{tenant}'"))
        .await
}

/// The text of a key with all permissions.
async fn key(app: &TestApp, tenant: TenantId) -> Result<String> {
    let scopes: Vec<&str> = Permission::of_tenants().map(Permission::as_str).collect();
    Ok(app.key(tenant, &scopes, None).await?.1)
}
