//! API clients: programs that exchange an id and a secret for tokens.
//!
//! Invariant: a client has one secret at a time; its scopes are bounded by its creator's permissions
//! whenever a token is used, as those of API keys are.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{db::TenantTx, identity::api_key::ApiKeySecret};

/// The data of a new client.
#[derive(Clone, Debug)]
pub struct NewApiClient {
    /// The client's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// The client's scopes.
    pub scopes: Vec<String>,
    /// The user whose permissions bound the client's.
    pub created_by: Option<Uuid>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct ApiClient {
    /// The client's id.
    pub id: Uuid,
    /// Display name.
    pub name: String,
    /// The client's scopes.
    pub scopes: Vec<String>,
    /// The user whose permissions bound the client's.
    pub created_by: Option<Uuid>,
    /// Creation time.
    pub created_at: DateTime<Utc>,
    /// When the client was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Whether its creator is active, if it has one.
    pub is_creator_active: Option<bool>,
}

impl ApiClient {
    /// Whether the client gets tokens.
    pub fn is_active(&self) -> bool {
        self.revoked_at.is_none() && self.is_creator_active != Some(false)
    }
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ClientAction {
    /// Tokens for its secret.
    Token,
    /// Tokens for a refresh token.
    Refresh,
}

/// An entry of a client's usage log.
#[derive(Clone, Debug)]
pub struct ClientUse {
    /// The entry's id.
    pub id: Uuid,
    /// token or refresh.
    pub action: String,
    /// Whether the client got what it asked for.
    pub succeeded: bool,
    /// Address from which the request came.
    pub address: String,
    /// Time of the request.
    pub used_at: DateTime<Utc>,
}

/// Adds a client. Its secret is stored only as a hash.
pub async fn add(transaction: &mut TenantTx, client: &NewApiClient, secret: &ApiKeySecret) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into api_clients (tenant_id, id, name, secret_hash, scopes, created_by) values ($1, $2, $3, $4, $5, $6)",
        tenant,
        client.id,
        client.name,
        &secret.hash(),
        &client.scopes,
        client.created_by
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A page of clients older than `before`, newest first.
pub async fn list(transaction: &mut TenantTx, before: Option<Uuid>, limit: i64) -> Result<Vec<ApiClient>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ApiClient,
        "select c.id, c.name, c.scopes, c.created_by, c.created_at, c.revoked_at,
                (select u.state = 'active' from users u where u.tenant_id = c.tenant_id and u.id = c.created_by) as is_creator_active
         from api_clients c where c.tenant_id = $1 and c.id < $2 order by c.id desc limit $3",
        tenant,
        before.unwrap_or(Uuid::max()),
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}

/// The client with this id.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<ApiClient>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ApiClient,
        "select c.id, c.name, c.scopes, c.created_by, c.created_at, c.revoked_at,
                (select u.state = 'active' from users u where u.tenant_id = c.tenant_id and u.id = c.created_by) as is_creator_active
         from api_clients c where c.tenant_id = $1 and c.id = $2",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// The hash of a client's secret.
pub async fn secret_hash(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_scalar!("select secret_hash from api_clients where tenant_id = $1 and id = $2", tenant, id)
        .fetch_optional(&mut **transaction)
        .await
}

/// Replaces a client's secret. From now on the client is bounded by `creator`, who learns the
/// secret, if there is one.
pub async fn set_secret(
    transaction: &mut TenantTx,
    id: Uuid,
    secret: &ApiKeySecret,
    creator: Option<Uuid>,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update api_clients set secret_hash = $3, created_by = coalesce($4, created_by) where tenant_id = $1 and id = $2",
        tenant,
        id,
        &secret.hash(),
        creator
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Revokes a client. One that was revoked before keeps its time.
pub async fn revoke(transaction: &mut TenantTx, id: Uuid) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update api_clients set revoked_at = now() where tenant_id = $1 and id = $2 and revoked_at is null",
        tenant,
        id
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// Adds an entry to a client's usage log.
pub async fn note_use(
    transaction: &mut TenantTx,
    id: Uuid,
    client: Uuid,
    action: ClientAction,
    succeeded: bool,
    address: IpAddr,
) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "insert into api_client_uses (tenant_id, id, client_id, action, succeeded, address)
         values ($1, $2, $3, $4, $5, ($6::text)::inet)",
        tenant,
        id,
        client,
        <&str>::from(action),
        succeeded,
        address.to_canonical().to_string()
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}

/// A page of a client's usage log older than `before`, newest first.
pub async fn uses(
    transaction: &mut TenantTx,
    client: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ClientUse>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        ClientUse,
        r#"select id, action, succeeded, host(address) as "address!", used_at from api_client_uses
           where tenant_id = $1 and client_id = $2 and id < $3 order by id desc limit $4"#,
        tenant,
        client,
        before.unwrap_or(Uuid::max()),
        limit
    )
    .fetch_all(&mut **transaction)
    .await
}
