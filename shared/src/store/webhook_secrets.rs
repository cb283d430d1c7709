//! Signing secrets of webhook endpoints.
//!
//! Invariant: secrets are written in the tenant's transaction, whose role cannot read them, and
//! read for signing through [`SystemDb`]. An endpoint has exactly one secret without an expiry, its
//! newest.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    db::{SystemDb, TenantTx},
    tenancy::TenantId,
    webhooks::WebhookSecret,
};

/// Reads secrets, and nothing else, for signing.
#[derive(Clone, Debug)]
pub struct SecretReader(SystemDb);

impl SecretReader {
    /// A reader that uses the system connections.
    pub const fn new(db: SystemDb) -> Self {
        Self(db)
    }

    /// The currently valid secrets, newest first.
    pub async fn valid(&self, tenant: TenantId, endpoint: Uuid) -> Result<Vec<WebhookSecret>, sqlx::Error> {
        let rows = sqlx::query_scalar!(
            "select secret from webhook_secrets
             where tenant_id = $1 and endpoint_id = $2 and (expires_at is null or expires_at > now()) order by id desc",
            tenant.as_uuid(),
            endpoint
        )
        .fetch_all(self.0.pool())
        .await?;
        rows.into_iter()
            .map(|bytes| WebhookSecret::from_bytes(bytes).map_err(|error| sqlx::Error::Decode(error.into())))
            .collect()
    }
}

/// Adds the newest secret of an endpoint; each `id` must be greater than the previous one.
pub async fn add(
    transaction: &mut TenantTx,
    endpoint: Uuid,
    id: Uuid,
    secret: &WebhookSecret,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into webhook_secrets (tenant_id, endpoint_id, id, secret) values ($1, $2, $3, $4)",
        tenant,
        endpoint,
        id,
        secret.expose()
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Lets the current secret expire after `overlap` and deletes expired ones. Returns `false` and
/// changes nothing else if `limit` secrets are valid.
pub async fn retire(
    transaction: &mut TenantTx,
    endpoint: Uuid,
    overlap: Duration,
    limit: i64,
) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "delete from webhook_secrets where tenant_id = $1 and endpoint_id = $2 and expires_at <= now()",
        tenant,
        endpoint
    )
    .execute(&mut **transaction)
    .await?;
    let valid = sqlx::query_scalar!(
        r#"select count(*) as "count!" from webhook_secrets where tenant_id = $1 and endpoint_id = $2"#,
        tenant,
        endpoint
    )
    .fetch_one(&mut **transaction)
    .await?;
    if valid >= limit {
        return Ok(false);
    }
    sqlx::query!(
        "update webhook_secrets set expires_at = now() + make_interval(secs => $3)
         where tenant_id = $1 and endpoint_id = $2 and expires_at is null",
        tenant,
        endpoint,
        overlap.as_secs_f64()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(true)
}
