//! Creates tenants and their keys as the owner of the schema, for operator commands that run before
//! any tenant exists.

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::credentials::{ApiKeySecret, NewApiKey};
use crate::tenancy::TenantId;

/// A connection as the owner, for operator commands.
pub struct OwnerConnection(PgConnection);

impl OwnerConnection {
    /// Connects with `DATABASE_OWNER_URL`.
    pub async fn open(url: &str) -> Result<Self, sqlx::Error> {
        PgConnection::connect(url).await.map(Self)
    }

    /// The tenant with this slug and its tier; created with this id, name and tier if it does not
    /// exist.
    pub async fn ensure_tenant(
        &mut self,
        id: Uuid,
        slug: &str,
        name: &str,
        tier: &str,
    ) -> Result<(TenantId, String), sqlx::Error> {
        // The update changes nothing; it makes the statement return the existing row.
        let row = sqlx::query!(
            "insert into tenants (id, slug, name, tier) values ($1, $2, $3, $4)
             on conflict (slug) do update set slug = excluded.slug returning id, tier",
            id,
            slug,
            name,
            tier
        )
        .fetch_one(&mut self.0)
        .await?;
        Ok((TenantId::new(row.id), row.tier))
    }

    /// The tenant with this slug.
    pub async fn find_tenant(&mut self, slug: &str) -> Result<Option<TenantId>, sqlx::Error> {
        Ok(sqlx::query_scalar!("select id from tenants where slug = $1", slug)
            .fetch_optional(&mut self.0)
            .await?
            .map(TenantId::new))
    }

    /// Adds a key. Its secret is shown once and stored only as a hash.
    pub async fn create_api_key(
        &mut self,
        tenant: TenantId,
        key: &NewApiKey,
        secret: &ApiKeySecret,
    ) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "insert into api_keys (tenant_id, id, name, secret_hash, scopes, expires_at) values ($1, $2, $3, $4, $5, $6)",
            tenant.as_uuid(),
            key.id,
            key.name,
            &secret.hash(),
            &key.scopes,
            key.expires_at
        )
        .execute(&mut self.0)
        .await
        .map(drop)
    }
}
