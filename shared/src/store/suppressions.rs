//! Addresses that must not be written to again, and who said so.
//!
//! Invariant: an address is on a tenant's list once, and the first reason stays until the entry is removed.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::TenantTx;

/// Why an address is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum SuppressionReason {
    /// The person asked for it.
    Unsubscribed,
    /// A mail server said that there is no such mailbox.
    Rejected,
    /// The tenant put it there.
    Manual,
}

impl SuppressionReason {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An address that is to be suppressed.
#[derive(Clone, Debug)]
pub struct NewSuppression<'a> {
    /// The entry's id.
    pub id: Uuid,
    /// The address as compared.
    pub email_key: &'a str,
    /// Why.
    pub reason: SuppressionReason,
    /// recipient, relay or api.
    pub source: &'static str,
    /// In words.
    pub detail: Option<&'a str>,
    /// At which command a relay refused.
    pub stage: Option<String>,
    /// With which codes.
    pub code: Option<String>,
    /// The campaign whose mail it was.
    pub campaign: Option<Uuid>,
}

/// An entry of the list.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// The entry's id.
    pub id: Uuid,
    /// The address as compared.
    pub email_key: String,
    /// unsubscribed, rejected or manual.
    pub reason: String,
    /// recipient, relay or api; unknown for entries of earlier releases.
    pub source: Option<String>,
    /// In words.
    pub detail: Option<String>,
    /// At which command a relay refused.
    pub stage: Option<String>,
    /// With which codes.
    pub code: Option<String>,
    /// The campaign whose mail it was.
    pub campaign_id: Option<Uuid>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// What to look for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only this reason.
    pub reason: Option<&'a str>,
    /// Only this address, as compared.
    pub email_key: Option<&'a str>,
}

/// Puts an address on the list; `false` if it is there already, and then the first reason stays.
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

/// A page of the list, the newest first, older than `before`.
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

/// The entry of this id or address. Locked, so that its reason holds until the transaction ends.
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

/// Takes an entry off the list.
pub async fn remove(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!("delete from suppressions where tenant_id = $1 and id = $2", tenant, id)
        .execute(&mut **transaction)
        .await
        .map(drop)
}
