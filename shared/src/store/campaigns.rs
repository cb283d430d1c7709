//! Campaigns: content, sender and sending state.
//!
//! Invariant: every change of state names the states that it may start from, so of two racing
//! requests only one succeeds.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// The data of a new campaign.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// The campaign's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// Template of the subject.
    pub subject: String,
    /// Template of the plain text.
    pub text_body: String,
    /// Template of the HTML.
    pub html_body: Option<String>,
    /// Sender's address.
    pub from_address: String,
    /// Sender's name.
    pub from_name: Option<String>,
}

/// A stored campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The campaign's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// draft, scheduled, sending, paused, cancelled or completed.
    pub state: String,
    /// Template of the subject.
    pub subject: String,
    /// Template of the plain text.
    pub text_body: String,
    /// Template of the HTML.
    pub html_body: Option<String>,
    /// Sender's address.
    pub from_address: String,
    /// Sender's name.
    pub from_name: Option<String>,
    /// When sending begins, if not immediately.
    pub send_at: Option<DateTime<Utc>>,
    /// When sending began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last recipient was done, or the campaign was cancelled.
    pub finished_at: Option<DateTime<Utc>>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// Why the campaign is paused: `requested`, `relay_unavailable`, `refused` or `job_ended`.
    pub pause_reason: Option<String>,
    /// Details of the reason, such as a refusal's stage and codes.
    pub pause_detail: Option<String>,
    /// Number of starts and resumptions. A fan-out job of an earlier generation has no effect.
    pub send_generation: i32,
}

/// Adds a draft.
pub async fn create(transaction: &mut TenantTx, new: &NewCampaign) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into campaigns (tenant_id, id, name, subject, text_body, html_body, from_address, from_name) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        tenant,
        new.id,
        new.name,
        new.subject,
        new.text_body,
        new.html_body,
        new.from_address,
        new.from_name
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// The campaign of this id.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Campaign>, sqlx::Error> {
    sqlx::query_as!(
        Campaign,
        "select id, name, state, subject, text_body, html_body, from_address, from_name, send_at, started_at, finished_at, created_at, pause_reason, pause_detail, send_generation
         from campaigns where id = $1",
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Maximum bytes of a text in a page of campaigns.
pub const INLINE_BYTES: i32 = 1_024;

/// A campaign in a page. A text longer than [`INLINE_BYTES`] is omitted, and not read from the
/// table: its length is known without reading it.
#[derive(Clone, Debug)]
pub struct ListedCampaign {
    /// The campaign's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// draft, scheduled, sending, paused, cancelled or completed.
    pub state: String,
    /// Template of the subject.
    pub subject: Option<String>,
    /// Template of the plain text.
    pub text_body: Option<String>,
    /// Template of the HTML.
    pub html_body: Option<String>,
    /// Whether an HTML template exists that is omitted here.
    pub html_omitted: bool,
    /// Sender's address.
    pub from_address: String,
    /// Sender's name, its first 200 characters.
    pub from_name: Option<String>,
    /// Why the campaign is paused.
    pub pause_reason: Option<String>,
    /// Details of the reason.
    pub pause_detail: Option<String>,
    /// When sending begins, if not immediately.
    pub send_at: Option<DateTime<Utc>>,
    /// When sending began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last recipient was done, or the campaign was cancelled.
    pub finished_at: Option<DateTime<Utc>>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
}

/// A page of campaigns older than `before`, newest first.
pub async fn list(
    transaction: &mut TenantTx,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ListedCampaign>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ListedCampaign,
        r#"select id, name, state, from_address, left(from_name, 200) as from_name, send_at, started_at, finished_at, created_at, pause_reason, pause_detail,
                  case when octet_length(subject) <= $4 then subject end as "subject?",
                  case when octet_length(text_body) <= $4 then text_body end as "text_body?",
                  case when octet_length(html_body) <= $4 then html_body end as html_body,
                  coalesce(octet_length(html_body) > $4, false) as "html_omitted!"
           from campaigns where tenant_id = $1 and id < $2 order by id desc limit $3"#,
        tenant,
        before.unwrap_or(Uuid::max()),
        limit,
        INLINE_BYTES
    )
    .fetch_all(&mut **transaction)
    .await
}

/// Starts or resumes sending with this job, immediately or at `send_at`, which is kept for a later
/// resumption. Returns the new generation, or `None` from another state.
pub async fn start(
    transaction: &mut TenantTx,
    id: Uuid,
    from: &[&str],
    send_at: Option<DateTime<Utc>>,
    job: Uuid,
) -> Result<Option<i32>, sqlx::Error> {
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    sqlx::query_scalar!(
        "update campaigns set
           state = case when $3::timestamptz > now() then 'scheduled' else 'sending' end,
           send_at = coalesce($3, send_at),
           pause_reason = null, pause_detail = null, refusals = 0, refusal = null,
           started_at = case when $3::timestamptz > now() then started_at else coalesce(started_at, now()) end,
           send_generation = send_generation + 1, send_job_id = $4
         where id = $1 and state = any($2) returning send_generation",
        id,
        &from,
        send_at,
        job
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Pauses sending; `false` from another state. A campaign that was paused automatically becomes
/// paused at a person's request.
pub async fn pause(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let result =
        sqlx::query!(
            "update campaigns set state = 'paused', pause_reason = 'requested', pause_detail = null
             where id = $1 and (state in ('sending', 'scheduled') or (state = 'paused' and pause_reason <> 'requested'))",
            id
        )
        .execute(&mut **transaction)
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Stops sending permanently, and cancels the recipients whose mail is not queued yet; `false` from
/// a final state.
pub async fn cancel(transaction: &mut TenantTx, id: Uuid) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "update campaigns set state = 'cancelled', finished_at = now(), pause_reason = null, pause_detail = null where id = $1 and state in ('draft', 'scheduled', 'sending', 'paused')",
        id
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!("update recipients set state = 'cancelled' where campaign_id = $1 and state = 'pending'", id)
        .execute(&mut **transaction)
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Records that the time of a scheduled campaign has come. Keeps the row locked, so that a pause
/// waits for the caller's page.
pub async fn begin_sending(transaction: &mut TenantTx, id: Uuid, generation: i32) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "update campaigns set state = 'sending', started_at = coalesce(started_at, now())
         where id = $1 and send_generation = $2 and state in ('scheduled', 'sending')",
        id,
        generation
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Marks a campaign as completed.
pub async fn complete(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update campaigns set state = 'completed', finished_at = now() where id = $1 and state = 'sending'",
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
