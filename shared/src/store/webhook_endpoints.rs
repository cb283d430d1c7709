//! Where tenants want to hear of their jobs' ends.
//!
//! Invariant: an endpoint is enabled or has a reason why it is not. Its secrets are in [`super::webhook_secrets`], its messages in
//! [`super::webhook_deliveries`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// The endpoint's id.
    pub id: Uuid,
    /// Where messages are posted to.
    pub url: String,
    /// The URL as it is compared: a tenant has one endpoint for each.
    pub url_key: String,
    /// For people.
    pub description: Option<String>,
    /// Event types it hears of; at least one.
    pub events: Vec<String>,
    /// Only jobs of these kinds; all if `None`.
    pub kinds: Option<Vec<String>>,
}

/// An endpoint as it stands.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: Uuid,
    /// Where messages are posted to.
    pub url: String,
    /// For people.
    pub description: Option<String>,
    /// Event types it hears of.
    pub events: Vec<String>,
    /// Only jobs of these kinds; all if `None`.
    pub kinds: Option<Vec<String>>,
    /// The first failure since the last success.
    pub failing_since: Option<DateTime<Utc>>,
    /// Since when nothing is sent.
    pub disabled_at: Option<DateTime<Utc>>,
    /// `gone`, `failing` or `manual`.
    pub disabled_reason: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its owner changed it last.
    pub updated_at: DateTime<Utc>,
}

/// Why nothing is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// It failed for too long.
    Failing,
    /// Its owner wants it so.
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

/// The other endpoint that has the URL of this one, if there is one. Two requests of a tenant that race wait for each other here, until
/// the first one's transaction ends.
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

/// Adds an endpoint after [`holder_of_url`]; `false` if the tenant has `limit` of them.
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

/// The endpoint of this id.
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

/// The endpoint of this id, which nobody else changes until the transaction ends.
pub async fn find_for_update(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Endpoint>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!("select id from webhook_endpoints where tenant_id = $1 and id = $2 for update", tenant, id)
        .fetch_optional(&mut **transaction)
        .await?;
    find(transaction, id).await
}

/// A page of endpoints, the newest first, older than `before`.
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

/// Writes what the owner may change, after [`holder_of_url`].
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

/// Removes an endpoint and its secrets. Its deliveries are out of reach from then on, and go when their time is over.
pub async fn delete(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let deleted = sqlx::query!("delete from webhook_endpoints where tenant_id = $1 and id = $2", tenant, id);
    Ok(deleted.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// Lets messages go out again, as if nothing had failed; `false` if there is no such endpoint.
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

/// Sends nothing more there; the first reason stays. `false` if there is no such endpoint.
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

/// A message arrived. Writes nothing if none had failed.
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

/// Failures in a row after which an endpoint is tried by one message at a time.
pub const OPENS_AFTER: i32 = 5;
/// Between two tries of an endpoint that fails: 10 s at first, twice as long each time, up to this many seconds.
const LONGEST_PROBE_PAUSE: f64 = 900.0;

/// Whether a message may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Now,
    /// The endpoint fails; again after this long.
    After(Duration),
}

/// The turn of a message to an endpoint that fails: one message is tried at a time, and has `lease` for it; the others wait.
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

/// A message did not arrive. Returns whether the endpoint has failed for `patience` without a success, and is disabled for it.
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
