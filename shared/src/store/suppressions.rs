//! Addresses that must not be written to again.

use crate::db::TenantTx;

/// Why an address is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuppressionReason {
    /// The person asked for it.
    Unsubscribed,
    /// A mail server refused the address for good.
    Rejected,
}

impl SuppressionReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unsubscribed => "unsubscribed",
            Self::Rejected => "rejected",
        }
    }
}

/// Puts an address on the list; the first reason stays.
pub async fn add(
    transaction: &mut TenantTx,
    email_key: &str,
    reason: SuppressionReason,
    detail: Option<&str>,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into suppressions (tenant_id, email_key, reason, detail) values ($1, $2, $3, $4) on conflict (tenant_id, email_key) do nothing",
        tenant,
        email_key,
        reason.as_str(),
        detail
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
