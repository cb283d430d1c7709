//! Webhook deliveries and their state.
//!
//! Invariant: a delivery is sent by one job at a time, the one that it names; its log keeps the
//! newest [`LOGGED_ATTEMPTS`] attempts. The states are `pending`, `delivered`, `failed` (given up)
//! and `held` (its endpoint is disabled).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// Maximum number of attempts in a delivery's log.
pub const LOGGED_ATTEMPTS: i32 = 20;

/// The data of a new delivery.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// The message's id.
    pub id: Uuid,
    /// The endpoint that receives it.
    pub endpoint_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// The exact body that is sent.
    pub body: String,
    /// The job that sends it.
    pub delivery_job_id: Uuid,
}

/// A delivery without its body and log.
#[derive(Clone, Debug)]
pub struct DeliverySummary {
    /// The message's id.
    pub id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// The job whose event it is; `None` for a test.
    pub job_id: Option<Uuid>,
    /// `pending`, `delivered`, `failed` or `held`.
    pub state: String,
    /// Number of attempts so far.
    pub attempt_count: i32,
    /// When the next attempt is due.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Time of the event.
    pub created_at: DateTime<Utc>,
    /// Time of the successful attempt.
    pub delivered_at: Option<DateTime<Utc>>,
}

/// The body of a delivery, and its attempts.
#[derive(Debug)]
pub struct DeliveryLog {
    /// The body of the message.
    pub body: Box<RawValue>,
    /// The newest attempts, oldest first.
    pub attempts: serde_json::Value,
}

/// One attempt, as stored in the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub struct LoggedAttempt {
    /// Start of the attempt.
    pub at: DateTime<Utc>,
    /// HTTP status of the response.
    pub status: Option<u16>,
    /// Milliseconds until the response was read or the attempt failed.
    pub duration_ms: u64,
    /// Why the attempt failed.
    pub error: Option<String>,
    /// Beginning of the response body.
    pub answer: Option<String>,
}

/// The data that a sender needs.
#[derive(Debug)]
pub struct Outgoing {
    /// The endpoint that receives it.
    pub endpoint_id: Uuid,
    /// The endpoint's URL.
    pub url: String,
    /// Whether the endpoint is disabled.
    pub disabled: bool,
    /// The exact body to send.
    pub body: String,
    /// As in [`DeliverySummary::state`].
    pub state: String,
    /// The job that may send the delivery.
    pub delivery_job_id: Uuid,
}

/// Adds a delivery that was not caused by a job.
pub async fn create(transaction: &mut TenantTx, new: &NewDelivery) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into webhook_deliveries (tenant_id, id, endpoint_id, event_type, body, delivery_job_id) values ($1, $2, $3, $4, $5, $6)",
        tenant,
        new.id,
        new.endpoint_id,
        new.event_type,
        new.body,
        new.delivery_job_id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A page of an endpoint's deliveries older than `before`, newest first. A pending delivery whose
/// job has ended is listed as failed.
pub async fn list(
    transaction: &mut TenantTx,
    endpoint: Uuid,
    state: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeliverySummary>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        DeliverySummary,
        r#"select d.id, event_type, job_id, shown.state as "state!", attempt_count,
                  case when shown.state = 'pending' then j.run_at end as next_attempt_at, created_at, delivered_at
           from webhook_deliveries d
           left join jobs j on j.id = d.delivery_job_id and j.state not in ('completed', 'cancelled', 'discarded')
           cross join lateral (select case when d.state = 'pending' and j.id is null then 'failed' else d.state end as state) shown
           where d.tenant_id = $1 and endpoint_id = $2 and d.id < $3 and ($4::text is null or shown.state = $4)
           order by d.id desc limit $5"#,
        tenant,
        endpoint,
        before.unwrap_or(Uuid::max()),
        state,
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// One of an endpoint's deliveries.
pub async fn find(
    transaction: &mut TenantTx,
    endpoint: Uuid,
    id: Uuid,
) -> Result<Option<DeliverySummary>, sqlx::Error> {
    let next = Uuid::from_u128(id.as_u128().saturating_add(1));
    let newest = list(transaction, endpoint, None, Some(next), 1).await?.pop();
    Ok(newest.filter(|delivery| delivery.id == id))
}

/// The body of a delivery, and its attempts.
pub async fn log(transaction: &mut TenantTx, id: Uuid) -> Result<Option<DeliveryLog>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let row =
        sqlx::query!("select body, attempts from webhook_deliveries where tenant_id = $1 and id = $2", tenant, id)
            .fetch_optional(&mut **transaction)
            .await?;
    row.map(|row| {
        let body = RawValue::from_string(row.body).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(DeliveryLog { body, attempts: row.attempts })
    })
    .transpose()
}

/// The data to send; `None` if the delivery or its endpoint is gone.
pub async fn outgoing(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Outgoing>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Outgoing,
        r#"select endpoint_id, url, disabled_at is not null as "disabled!", body, state, delivery_job_id
           from webhook_deliveries d join webhook_endpoints e on e.tenant_id = d.tenant_id and e.id = d.endpoint_id
           where d.tenant_id = $1 and d.id = $2"#,
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Records an attempt by the job that may send the delivery, and the resulting state.
pub async fn record(
    transaction: &mut TenantTx,
    id: Uuid,
    job: Uuid,
    attempt: &LoggedAttempt,
    state: &str,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let entry = serde_json::to_value(attempt).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "update webhook_deliveries set
           state = $5, attempt_count = attempt_count + 1, delivered_at = case when $5 = 'delivered' then now() end,
           attempts = case when jsonb_array_length(attempts) < $6 then attempts else attempts - 0 end || $4::jsonb
         where tenant_id = $1 and id = $2 and delivery_job_id = $3",
        tenant,
        id,
        job,
        entry,
        state,
        LOGGED_ATTEMPTS
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Holds a delivery until its endpoint is enabled.
pub async fn hold(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update webhook_deliveries set state = 'held' where tenant_id = $1 and id = $2 and state = 'pending'",
        tenant,
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// The oldest held deliveries of an endpoint, locked.
pub async fn held(transaction: &mut TenantTx, endpoint: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        "select id from webhook_deliveries where tenant_id = $1 and endpoint_id = $2 and state = 'held' order by id limit $3 for update",
        tenant,
        endpoint,
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// Makes deliveries pending again, each to be sent by its job in `jobs`. A delivery that another
/// job is still sending is skipped. Returns the number of changed deliveries.
pub async fn resend(transaction: &mut TenantTx, deliveries: &[Uuid], jobs: &[Uuid]) -> Result<u64, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let sent = sqlx::query!(
        "update webhook_deliveries d set state = 'pending', delivered_at = null, delivery_job_id = i.job_id
         from unnest($2::uuid[], $3::uuid[]) as i (id, job_id)
         where d.tenant_id = $1 and d.id = i.id
           and not (d.state = 'pending' and exists (
             select from jobs j where j.id = d.delivery_job_id and j.state not in ('completed', 'cancelled', 'discarded')))",
        tenant,
        deliveries,
        jobs
    );
    Ok(sent.execute(&mut **transaction).await?.rows_affected())
}
