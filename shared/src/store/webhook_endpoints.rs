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

/// Adds an endpoint; `false` if the tenant has `limit` of them. Two requests of a tenant that race wait for each other here.
pub async fn create(transaction: &mut TenantTx, new: &NewEndpoint, limit: i64) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let lock = format!("webhook_endpoints {tenant}");
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", lock).execute(&mut **transaction).await?;
    let added = sqlx::query!(
        "insert into webhook_endpoints (tenant_id, id, url, description, events, kinds)
         select $1, $2, $3, $4, $5, $6 where (select count(*) from webhook_endpoints where tenant_id = $1) < $7",
        tenant,
        new.id,
        new.url,
        new.description,
        &new.events,
        new.kinds.as_deref(),
        limit
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

/// Writes what the owner may change.
pub async fn update(transaction: &mut TenantTx, changed: &NewEndpoint) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update webhook_endpoints set url = $3, description = $4, events = $5, kinds = $6, updated_at = now()
         where tenant_id = $1 and id = $2",
        tenant,
        changed.id,
        changed.url,
        changed.description,
        &changed.events,
        changed.kinds.as_deref()
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
        "update webhook_endpoints set disabled_at = null, disabled_reason = null, failing_since = null
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
        "update webhook_endpoints set failing_since = null where tenant_id = $1 and id = $2 and failing_since is not null",
        tenant,
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A message did not arrive. Returns whether the endpoint has failed for `patience` without a success, and is disabled for it.
pub async fn note_failure(transaction: &mut TenantTx, id: Uuid, patience: Duration) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let too_long = sqlx::query_scalar!(
        r#"update webhook_endpoints set failing_since = coalesce(failing_since, now())
           where tenant_id = $1 and id = $2 and disabled_at is null
           returning failing_since <= now() - make_interval(secs => $3) as "too_long!""#,
        tenant,
        id,
        patience.as_secs_f64()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    if too_long == Some(true) {
        disable(transaction, id, DisabledReason::Failing).await?;
    }
    Ok(too_long == Some(true))
}
