//! Webhook endpoints, which receive events about a tenant's jobs.
//!
//! Invariant: an endpoint is either enabled or has a reason for being disabled. Its secrets are in
//! [`super::webhook_secrets`], its messages in [`super::webhook_deliveries`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// The data of a new endpoint.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// The endpoint's id.
    pub id: Uuid,
    /// The URL that messages are posted to.
    pub url: String,
    /// The URL in the form used for comparison: a tenant has one endpoint per URL.
    pub url_key: String,
    /// Free text for people.
    pub description: Option<String>,
    /// Subscribed event types; at least one.
    pub events: Vec<String>,
    /// Only jobs of these kinds; all if `None`.
    pub kinds: Option<Vec<String>>,
}

/// A stored endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: Uuid,
    /// The URL that messages are posted to.
    pub url: String,
    /// Free text for people.
    pub description: Option<String>,
    /// Subscribed event types.
    pub events: Vec<String>,
    /// Only jobs of these kinds; all if `None`.
    pub kinds: Option<Vec<String>>,
    /// Time of the first failure since the last success.
    pub failing_since: Option<DateTime<Utc>>,
    /// Time since when the endpoint is disabled.
    pub disabled_at: Option<DateTime<Utc>>,
    /// `gone`, `failing` or `manual`.
    pub disabled_reason: Option<String>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// Time of the owner's last change.
    pub updated_at: DateTime<Utc>,
}

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// It responded with 410.
    Gone,
    /// It failed for too long.
    Failing,
    /// Its owner disabled it.
    Manual,
}

impl DisabledReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Manual => "manual",
        }
    }
}

/// The other endpoint with the URL of this one, if there is one. Concurrent requests of a tenant
/// wait here until the first one's transaction ends.
pub async fn holder_of_url(transaction: &mut TenantTx, endpoint: &NewEndpoint) -> Result<Option<Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let lock = format!("webhook_endpoints {tenant}");
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", lock).execute(&mut **transaction).await?;
    sqlx::query_scalar!(
        "select id from webhook_endpoints where tenant_id = $1 and url_key = $2 and id <> $3",
        tenant,
        endpoint.url_key,
        endpoint.id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Adds an endpoint after [`holder_of_url`]; `false` if the tenant already has `limit` endpoints.
pub async fn create(transaction: &mut TenantTx, new: &NewEndpoint, limit: i64) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let added = sqlx::query!(
        "insert into webhook_endpoints (tenant_id, id, url, description, events, kinds, url_key)
         select $1, $2, $3, $4, $5, $6, $8 where (select count(*) from webhook_endpoints where tenant_id = $1) < $7",
        tenant,
        new.id,
        new.url,
        new.description,
        &new.events,
        new.kinds.as_deref(),
        limit,
        new.url_key
    );
    Ok(added.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// The endpoint with this id.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Endpoint>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Endpoint,
        "select id, url, description, events, kinds, failing_since, disabled_at, disabled_reason, created_at, updated_at
         from webhook_endpoints where tenant_id = $1 and id = $2",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// The endpoint with this id, locked until the transaction ends.
pub async fn find_for_update(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Endpoint>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!("select id from webhook_endpoints where tenant_id = $1 and id = $2 for update", tenant, id)
        .fetch_optional(&mut **transaction)
        .await?;
    find(transaction, id).await
}

/// A page of endpoints older than `before`, newest first.
pub async fn list(transaction: &mut TenantTx, before: Option<Uuid>, limit: i64) -> Result<Vec<Endpoint>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Endpoint,
        "select id, url, description, events, kinds, failing_since, disabled_at, disabled_reason, created_at, updated_at
         from webhook_endpoints where tenant_id = $1 and id < $2 order by id desc limit $3",
        tenant,
        before.unwrap_or(Uuid::max()),
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// Updates the fields that the owner may change, after [`holder_of_url`].
pub async fn update(transaction: &mut TenantTx, changed: &NewEndpoint) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update webhook_endpoints set url = $3, description = $4, events = $5, kinds = $6, updated_at = now(), url_key = $7,
           failure_count = case when url = $3 then failure_count else 0 end, probe_at = case when url = $3 then probe_at end
         where tenant_id = $1 and id = $2",
        tenant,
        changed.id,
        changed.url,
        changed.description,
        &changed.events,
        changed.kinds.as_deref(),
        changed.url_key
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Removes an endpoint and its secrets. Its deliveries are no longer reachable, and are deleted
/// when their retention ends.
pub async fn delete(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let deleted = sqlx::query!("delete from webhook_endpoints where tenant_id = $1 and id = $2", tenant, id);
    Ok(deleted.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// Enables an endpoint and resets its failures; `false` if the endpoint does not exist.
pub async fn enable(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let enabled = sqlx::query!(
        "update webhook_endpoints set disabled_at = null, disabled_reason = null, failing_since = null, failure_count = 0, probe_at = null
         where tenant_id = $1 and id = $2",
        tenant,
        id
    );
    Ok(enabled.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// Disables an endpoint; the first reason is kept. `false` if the endpoint does not exist.
pub async fn disable(transaction: &mut TenantTx, id: Uuid, reason: DisabledReason) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let disabled = sqlx::query!(
        "update webhook_endpoints set disabled_at = coalesce(disabled_at, now()), disabled_reason = coalesce(disabled_reason, $3)
         where tenant_id = $1 and id = $2",
        tenant,
        id,
        reason.as_str()
    );
    Ok(disabled.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// Records a success. Writes nothing if there were no failures.
pub async fn note_success(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update webhook_endpoints set failing_since = null, failure_count = 0, probe_at = null
         where tenant_id = $1 and id = $2 and failing_since is not null",
        tenant,
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Consecutive failures after which an endpoint gets one message at a time.
pub const OPENS_AFTER: i32 = 5;
/// Maximum pause between two attempts to a failing endpoint, in seconds. The pause starts at 10 s
/// and doubles each time.
const LONGEST_PROBE_PAUSE: f64 = 900.0;

/// Whether a message may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may be sent now.
    Now,
    /// The endpoint is failing; retry after this time.
    After(Duration),
}

/// Decides whether a message may be sent. A failing endpoint gets one message at a time, for at
/// most `lease`; the others wait.
pub async fn take_turn(transaction: &mut TenantTx, id: Uuid, lease: Duration) -> Result<Turn, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let taken = sqlx::query_scalar!(
        "update webhook_endpoints set probe_at = now() + make_interval(secs => $3)
         where tenant_id = $1 and id = $2 and failure_count >= $4 and coalesce(probe_at, now()) <= now() returning id",
        tenant,
        id,
        lease.as_secs_f64(),
        OPENS_AFTER
    );
    if taken.fetch_optional(&mut **transaction).await?.is_some() {
        return Ok(Turn::Now);
    }
    let seconds = sqlx::query_scalar!(
        r#"select greatest(extract(epoch from probe_at - now()), 1)::float8 as "seconds!" from webhook_endpoints
           where tenant_id = $1 and id = $2 and failure_count >= $3 and probe_at is not null"#,
        tenant,
        id,
        OPENS_AFTER
    );
    let seconds = seconds.fetch_optional(&mut **transaction).await?;
    Ok(seconds.map_or(Turn::Now, |seconds| Turn::After(Duration::from_secs_f64(seconds))))
}

/// Records a failure. Returns whether the endpoint has failed for `patience` without a success and
/// is therefore disabled.
pub async fn note_failure(transaction: &mut TenantTx, id: Uuid, patience: Duration) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let too_long = sqlx::query_scalar!(
        r#"update webhook_endpoints set failing_since = coalesce(failing_since, now()), failure_count = failure_count + 1,
             probe_at = case when failure_count + 1 >= $4
               then now() + make_interval(secs => least($5, 10 * 2 ^ least(failure_count + 1 - $4, 10))) end
           where tenant_id = $1 and id = $2 and disabled_at is null
           returning failing_since <= now() - make_interval(secs => $3) as "too_long!""#,
        tenant,
        id,
        patience.as_secs_f64(),
        OPENS_AFTER,
        LONGEST_PROBE_PAUSE
    )
    .fetch_optional(&mut **transaction)
    .await?;
    if too_long == Some(true) {
        disable(transaction, id, DisabledReason::Failing).await?;
    }
    Ok(too_long == Some(true))
}
