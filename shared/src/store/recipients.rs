//! Recipients: one lead in one campaign, the unit of "one mail".

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// What a mail is made from.
#[derive(Clone, Debug)]
pub struct Addressee {
    /// pending, queued, sent, rejected, suppressed, failed or cancelled.
    pub state: String,
    /// The campaign.
    pub campaign_id: Uuid,
    /// The campaign's state.
    pub campaign_state: String,
    /// Which start of the campaign this was read under.
    pub generation: i32,
    /// The address as written.
    pub email: String,
    /// The address as compared.
    pub email_key: String,
    /// What templates may use.
    pub variables: serde_json::Value,
    /// Whether the address must not be written to.
    pub suppressed: bool,
    /// The date in the mail, once octets of it have left.
    pub handed_over_at: Option<DateTime<Utc>>,
    /// The first failure that counts against this mail.
    pub failing_since: Option<DateTime<Utc>>,
    /// How often the mail may have been taken and no reply came.
    pub unanswered: i16,
    /// The last refusal that speaks of the sender, if it came under this generation.
    pub refusal: Option<String>,
}

/// How many recipients of a campaign are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CampaignProgress)]
pub struct Counts {
    /// No mail on its way yet.
    pub pending: i64,
    /// A job is to send the mail.
    pub queued: i64,
    /// The mail was accepted.
    pub sent: i64,
    /// The address was refused for good.
    pub rejected: i64,
    /// On the suppression list.
    pub suppressed: i64,
    /// Given up after the last attempt.
    pub failed: i64,
    /// Taken off by a cancellation.
    pub cancelled: i64,
}

/// Adds leads to a campaign; those it has already are left as they are. Returns how many are new.
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

/// How a campaign's recipients stand.
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

/// The next recipients without a mail on its way.
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

/// Notes the jobs that send the mails of pending recipients.
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

/// Whom a mail goes to, and whether it still should.
pub async fn addressee(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Addressee>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Addressee,
        r#"select r.state, r.campaign_id, c.state as campaign_state, c.send_generation as generation, l.email, l.email_key, l.variables,
                  r.handed_over_at, r.failing_since, r.unanswered,
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

/// Any recipient of a campaign, or the one of this address: whom a preview is written to.
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

/// Notes how a mail ended, unless it was sent already.
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

/// Marks as failed the queued recipients whose job ended without sending (discarded as poison, cancelled by hand, gone with its month);
/// returns how many recipients are not done with yet.
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
