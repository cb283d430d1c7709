//! Recipients: one lead in one campaign, which gets one mail.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// The data of one mail.
#[derive(Clone, Debug)]
pub struct Addressee {
    /// pending, queued, sent, rejected, suppressed, failed or cancelled.
    pub state: String,
    /// The campaign.
    pub campaign_id: Uuid,
    /// The campaign's state.
    pub campaign_state: String,
    /// The campaign's generation when this was read.
    pub generation: i32,
    /// The address as written.
    pub email: String,
    /// The address in the form used for comparison.
    pub email_key: String,
    /// The template variables.
    pub variables: serde_json::Value,
    /// Whether the address is suppressed.
    pub suppressed: bool,
    /// The date of the mail that may have been accepted although no reply arrived.
    pub handed_over_at: Option<DateTime<Utc>>,
    /// Time of the first failure in this generation that counts against this mail.
    pub failing_since: Option<DateTime<Utc>>,
    /// How often the mail may have been accepted although no reply arrived.
    pub unanswered: i16,
    /// The last failure that concerns the sender, if it happened in this generation.
    pub refusal: Option<String>,
}

/// Number of a campaign's recipients in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CampaignProgress)]
pub struct Counts {
    /// No mail is queued yet.
    pub pending: i64,
    /// A job will send the mail.
    pub queued: i64,
    /// The mail server accepted the mail.
    pub sent: i64,
    /// The mail server refused the address permanently.
    pub rejected: i64,
    /// The address is on the suppression list.
    pub suppressed: i64,
    /// The mail was given up after the last attempt.
    pub failed: i64,
    /// The campaign was cancelled before the mail was queued.
    pub cancelled: i64,
}

/// Adds leads to a campaign and ignores those that it already has. Returns the number of new ones.
pub async fn add(transaction: &mut TenantTx, campaign: Uuid, recipients: &[(Uuid, Uuid)]) -> Result<u64, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let (ids, leads): (Vec<Uuid>, Vec<Uuid>) = recipients.iter().copied().unzip();
    let result = sqlx::query!(
        "insert into recipients (tenant_id, id, campaign_id, lead_id)
         select $1, id, $2, lead_id from unnest($3::uuid[], $4::uuid[]) as t (id, lead_id)
         on conflict (tenant_id, campaign_id, lead_id) do nothing",
        tenant,
        campaign,
        &ids,
        &leads
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected())
}

/// Counts a campaign's recipients by state.
pub async fn counts(transaction: &mut TenantTx, campaign: Uuid) -> Result<Counts, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let rows = sqlx::query!(
        r#"select state, count(*) as "count!" from recipients where tenant_id = $1 and campaign_id = $2 group by state"#,
        tenant,
        campaign
    )
    .fetch_all(&mut **transaction)
    .await?;
    let count = |state: &str| rows.iter().find(|row| row.state == state).map_or(0, |row| row.count);
    Ok(Counts {
        pending: count("pending"),
        queued: count("queued"),
        sent: count("sent"),
        rejected: count("rejected"),
        suppressed: count("suppressed"),
        failed: count("failed"),
        cancelled: count("cancelled"),
    })
}

/// The next recipients whose mail is not queued yet.
pub async fn pending(transaction: &mut TenantTx, campaign: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        "select id from recipients where tenant_id = $1 and campaign_id = $2 and state = 'pending' order by id limit $3 for update skip locked",
        tenant,
        campaign,
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// Records the jobs that send the mails of pending recipients.
pub async fn queue(transaction: &mut TenantTx, recipients_and_jobs: &[(Uuid, Uuid)]) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let (ids, jobs): (Vec<Uuid>, Vec<Uuid>) = recipients_and_jobs.iter().copied().unzip();
    sqlx::query!(
        "update recipients r set state = 'queued', job_id = i.job_id from unnest($2::uuid[], $3::uuid[]) as i (id, job_id)
         where r.tenant_id = $1 and r.id = i.id and r.state = 'pending'",
        tenant,
        &ids,
        &jobs
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// The addressee of a mail, with the state that decides whether it is still sent.
pub async fn addressee(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Addressee>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Addressee,
        r#"select r.state, r.campaign_id, c.state as campaign_state, c.send_generation as generation, l.email, l.email_key, l.variables,
                  r.handed_over_at, r.unanswered,
                  case when r.refused_in = c.send_generation then r.failing_since end as failing_since,
                  case when r.refused_in = c.send_generation then r.refusal end as refusal,
                  exists (select from suppressions s where s.tenant_id = r.tenant_id and s.email_key = l.email_key) as "suppressed!"
           from recipients r
           join campaigns c on c.tenant_id = r.tenant_id and c.id = r.campaign_id
           join leads l on l.tenant_id = r.tenant_id and l.id = r.lead_id
           where r.tenant_id = $1 and r.id = $2"#,
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// The recipient that a preview is written for: the one with this address, or else any.
pub async fn for_preview(
    transaction: &mut TenantTx,
    campaign: Uuid,
    email_key: Option<&str>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        "select r.id from recipients r join leads l on l.tenant_id = r.tenant_id and l.id = r.lead_id
         where r.tenant_id = $1 and r.campaign_id = $2 and ($3::text is null or l.email_key = $3)
         order by r.id limit 1",
        tenant,
        campaign,
        email_key
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Records the outcome of a mail, unless it was already sent.
pub async fn finish(
    transaction: &mut TenantTx,
    id: Uuid,
    state: &str,
    reason: Option<&str>,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update recipients set state = $3, reason = $4, sent_at = case when $3 = 'sent' then now() end, refusal = null
         where tenant_id = $1 and id = $2 and state <> 'sent'",
        tenant,
        id,
        state,
        reason
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Whether a mail of the campaign was accepted since then.
pub async fn any_sent_since(
    transaction: &mut TenantTx,
    campaign: Uuid,
    since: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!(
        r#"select exists (select from recipients
             where tenant_id = $1 and campaign_id = $2 and state = 'sent' and sent_at >= $3) as "any_sent!""#,
        tenant,
        campaign,
        since
    )
    .fetch_one(&mut **transaction)
    .await
}

/// Marks as failed the queued recipients whose job ended without sending (discarded as poison,
/// cancelled manually, or dropped with its month's partition). Returns the number of recipients
/// that are not done yet.
pub async fn settle_orphans(transaction: &mut TenantTx, campaign: Uuid) -> Result<i64, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update recipients r set state = 'failed', reason = coalesce('its job was ' || j.state, 'its job is gone')
         from recipients o left join jobs j on j.id = o.job_id
         where o.tenant_id = $1 and o.campaign_id = $2 and o.state = 'queued' and (j.id is null or j.state in ('discarded', 'cancelled'))
           and r.tenant_id = o.tenant_id and r.id = o.id and r.state = 'queued'",
        tenant,
        campaign
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query_scalar!(
        r#"select count(*) as "open!" from recipients where tenant_id = $1 and campaign_id = $2 and state in ('pending', 'queued')"#,
        tenant,
        campaign
    )
    .fetch_one(&mut **transaction)
    .await
}
