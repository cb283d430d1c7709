//! Suppressed addresses, which must not be written to again, and the source of each entry.
//!
//! Invariant: an address is on a tenant's list once, and the first reason is kept until the entry
//! is removed.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// Why an address is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum SuppressionReason {
    /// The recipient unsubscribed.
    Unsubscribed,
    /// A mail server reported that the mailbox does not exist.
    Rejected,
    /// The tenant added the entry.
    Manual,
}

impl SuppressionReason {
    /// The text stored in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The data of a new entry.
#[derive(Clone, Debug)]
pub struct NewSuppression<'a> {
    /// The entry's id.
    pub id: Uuid,
    /// The address in the form used for comparison.
    pub email_key: &'a str,
    /// Why the address is suppressed.
    pub reason: SuppressionReason,
    /// recipient, relay or api.
    pub source: &'static str,
    /// Explanation in words.
    pub detail: Option<&'a str>,
    /// The SMTP command that a relay refused.
    pub stage: Option<String>,
    /// The codes of the refusal.
    pub code: Option<String>,
    /// The campaign of the mail.
    pub campaign: Option<Uuid>,
}

/// An entry of the list.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// The entry's id.
    pub id: Uuid,
    /// The address in the form used for comparison.
    pub email_key: String,
    /// unsubscribed, rejected or manual.
    pub reason: String,
    /// recipient, relay or api; unknown for entries of earlier releases.
    pub source: Option<String>,
    /// Explanation in words.
    pub detail: Option<String>,
    /// The SMTP command that a relay refused.
    pub stage: Option<String>,
    /// The codes of the refusal.
    pub code: Option<String>,
    /// The campaign of the mail.
    pub campaign_id: Option<Uuid>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
}

/// Filter of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only this reason.
    pub reason: Option<&'a str>,
    /// Only this address, in the form used for comparison.
    pub email_key: Option<&'a str>,
}

/// Adds an address to the list; `false` if it is already there, and the first reason is kept.
pub async fn add(transaction: &mut TenantTx, new: &NewSuppression<'_>) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "insert into suppressions (tenant_id, id, email_key, reason, source, detail, stage, code, campaign_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (tenant_id, email_key) do nothing",
        tenant,
        new.id,
        new.email_key,
        new.reason.as_str(),
        new.source,
        new.detail,
        new.stage,
        new.code,
        new.campaign
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// A page of entries older than `before`, newest first.
pub async fn list(
    transaction: &mut TenantTx,
    filter: Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Suppression>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Suppression,
        "select id, email_key, reason, source, detail, stage, code, campaign_id, created_at from suppressions
         where tenant_id = $1 and id < $2 and ($3::text is null or reason = $3) and ($4::text is null or email_key = $4)
         order by id desc limit $5",
        tenant,
        before.unwrap_or(Uuid::max()),
        filter.reason,
        filter.email_key,
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// The entry with this id or address. The row is locked, so that its reason holds until the
/// transaction ends.
pub async fn find_for_update(
    transaction: &mut TenantTx,
    id: Option<Uuid>,
    email_key: Option<&str>,
) -> Result<Option<Suppression>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Suppression,
        "select id, email_key, reason, source, detail, stage, code, campaign_id, created_at from suppressions
         where tenant_id = $1 and (id = $2 or email_key = $3) for update",
        tenant,
        id,
        email_key
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Removes an entry from the list.
pub async fn remove(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!("delete from suppressions where tenant_id = $1 and id = $2", tenant, id)
        .execute(&mut **transaction)
        .await
        .map(drop)
}
