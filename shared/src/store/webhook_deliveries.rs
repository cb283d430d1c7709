//! Messages to endpoints, and what became of each.
//!
//! Invariant: a delivery is sent by one job at a time, the one it names; its log keeps the newest [`LOGGED_ATTEMPTS`] attempts.
//! The states are `pending`, `delivered`, `failed` (given up) and `held` (its endpoint is disabled).

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// Attempts that a delivery's log keeps.
pub const LOGGED_ATTEMPTS: i32 = 20;

/// A message that is to be sent.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// The message's id.
    pub id: Uuid,
    /// Whom it is for.
    pub endpoint_id: Uuid,
    /// What it tells.
    pub event_type: String,
    /// The bytes that are sent.
    pub body: String,
    /// The job that sends it.
    pub delivery_job_id: Uuid,
}

/// A delivery without its body and log.
#[derive(Clone, Debug)]
pub struct DeliverySummary {
    /// The message's id.
    pub id: Uuid,
    /// What it tells.
    pub event_type: String,
    /// Whose end it tells of.
    pub job_id: Option<Uuid>,
    /// `pending`, `delivered`, `failed` or `held`.
    pub state: String,
    /// Attempts so far.
    pub attempt_count: i32,
    /// When the next attempt is due.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When the event came about.
    pub created_at: DateTime<Utc>,
    /// When an attempt was answered with success.
    pub delivered_at: Option<DateTime<Utc>>,
}

/// What was sent, and how it was answered each time.
#[derive(Debug)]
pub struct DeliveryLog {
    /// The body of the message.
    pub body: Box<RawValue>,
    /// The newest attempts, the oldest of them first.
    pub attempts: serde_json::Value,
}

/// One attempt, as the log keeps it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub struct LoggedAttempt {
    /// When it began.
    pub at: DateTime<Utc>,
    /// Of the answer.
    pub status: Option<u16>,
    /// Until the answer was read, or the attempt failed.
    pub duration_ms: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// How the answer's body begins.
    pub answer: Option<String>,
}

/// What a sender needs to know.
#[derive(Debug)]
pub struct Outgoing {
    /// Whom it is for.
    pub endpoint_id: Uuid,
    /// Where to.
    pub url: String,
    /// Whether nothing is to be sent there.
    pub disabled: bool,
    /// The bytes to send.
    pub body: String,
    /// As in [`DeliverySummary::state`].
    pub state: String,
    /// The job that may send it.
    pub delivery_job_id: Uuid,
}

/// Adds a message that no job's end caused.
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

/// A page of an endpoint's deliveries, the newest first, older than `before`. One whose job ended without it is failed.
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

/// What was sent, and how it was answered.
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

/// What is to be sent where; `None` if the delivery or its endpoint is gone.
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

/// Notes an attempt of the job that may send the delivery, and the state it led to.
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

/// Leaves a delivery until its endpoint is enabled.
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

/// The oldest deliveries that wait for their endpoint, locked.
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

/// Makes deliveries pending again, each to be sent by its job in `jobs`. One that another job is still at is left alone; returns how
/// many there were.
pub async fn send_again(transaction: &mut TenantTx, deliveries: &[Uuid], jobs: &[Uuid]) -> Result<u64, sqlx::Error> {
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
