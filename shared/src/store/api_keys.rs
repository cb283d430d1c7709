//! API keys as their tenant sees them: without secrets.
//!
//! Invariant: a revoked or expired key stays listed, so that its id in a log can be explained.
//! Verifying a key is in [`super::credentials`].

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{db::TenantTx, identity::api_key::ApiKeySecret};

/// The data of a new key.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The key's id, part of the text that the client sends.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// The key's scopes.
    pub scopes: Vec<String>,
    /// When the key expires, if ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// The user whose permissions bound the key's.
    pub created_by: Option<Uuid>,
}

/// A key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// The key's scopes.
    pub scopes: Vec<String>,
    /// The user whose permissions bound the key's.
    pub created_by: Option<Uuid>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// When the key expires, if ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the key was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The key that replaced it.
    pub replaced_by: Option<Uuid>,
    /// Whether its creator is active, if it has one.
    pub is_creator_active: Option<bool>,
}

/// Adds a key. Its secret is stored only as a hash.
pub async fn add(transaction: &mut TenantTx, key: &NewApiKey, secret: &ApiKeySecret) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into api_keys (tenant_id, id, name, secret_hash, scopes, expires_at, created_by) values ($1, $2, $3, $4, $5, $6, $7)",
        tenant,
        key.id,
        key.name,
        &secret.hash(),
        &key.scopes,
        key.expires_at,
        key.created_by
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A page of keys older than `before`, newest first.
pub async fn list(transaction: &mut TenantTx, before: Option<Uuid>, limit: i64) -> Result<Vec<ApiKey>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ApiKey,
        r#"select k.id, k.name, k.scopes, k.created_by, k.created_at, k.expires_at, k.revoked_at, k.replaced_by,
                  (select u.state = 'active' from users u where u.tenant_id = k.tenant_id and u.id = k.created_by) as is_creator_active
           from api_keys k where k.tenant_id = $1 and k.id < $2 order by k.id desc limit $3"#,
        tenant,
        before.unwrap_or(Uuid::max()),
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// The key with this id.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<ApiKey>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ApiKey,
        r#"select k.id, k.name, k.scopes, k.created_by, k.created_at, k.expires_at, k.revoked_at, k.replaced_by,
                  (select u.state = 'active' from users u where u.tenant_id = k.tenant_id and u.id = k.created_by) as is_creator_active
           from api_keys k where k.tenant_id = $1 and k.id = $2"#,
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// The key with this id, locked until the transaction ends.
pub async fn find_for_update(transaction: &mut TenantTx, id: Uuid) -> Result<Option<ApiKey>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ApiKey,
        r#"select k.id, k.name, k.scopes, k.created_by, k.created_at, k.expires_at, k.revoked_at, k.replaced_by,
                  (select u.state = 'active' from users u where u.tenant_id = k.tenant_id and u.id = k.created_by) as is_creator_active
           from api_keys k where k.tenant_id = $1 and k.id = $2 for update of k"#,
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Revokes a key from now on. A key that was revoked before keeps its time.
pub async fn revoke(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update api_keys set revoked_at = now() where tenant_id = $1 and id = $2 and revoked_at is null",
        tenant,
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Notes that another key replaces a key, which expires at `expires_at` at the latest.
pub async fn replace(
    transaction: &mut TenantTx,
    id: Uuid,
    successor: Uuid,
    expires_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update api_keys set replaced_by = $3, expires_at = least(expires_at, $4) where tenant_id = $1 and id = $2",
        tenant,
        id,
        successor,
        expires_at
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
