//! Creates tenants, their users and keys as the owner of the schema, for operator commands that run before
//! any tenant exists.

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{api_keys::NewApiKey, users::NewUser};
use crate::{identity::api_key::ApiKeySecret, tenancy::TenantId};

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

    /// Suspends the tenant with this slug, or ends its suspension; `false` if there is none. A tenant
    /// that was suspended before keeps its time.
    pub async fn set_suspended(&mut self, slug: &str, is_suspended: bool, reason: &str) -> Result<bool, sqlx::Error> {
        let result = sqlx::query!(
            "update tenants set suspended_at = case when $2 then coalesce(suspended_at, now()) end, suspension_reason = $3
             where slug = $1",
            slug,
            is_suspended,
            reason
        )
        .execute(&mut self.0)
        .await?;
        Ok(result.rows_affected() == 1)
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

    /// Adds a user; the user who has this address gets this role and this password instead, becomes
    /// active, and keeps the id, which is returned.
    pub async fn ensure_user(&mut self, tenant: TenantId, user: &NewUser) -> Result<Uuid, sqlx::Error> {
        sqlx::query_scalar!(
            "insert into users (tenant_id, id, email, email_key, name, role, password_hash) values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (tenant_id, email_key) do update
                 set role = excluded.role, password_hash = excluded.password_hash, state = 'active', updated_at = now()
             returning id",
            tenant.as_uuid(),
            user.id,
            user.email,
            user.email_key,
            user.name,
            user.role.as_str(),
            user.password_hash
        )
        .fetch_one(&mut self.0)
        .await
    }
}
