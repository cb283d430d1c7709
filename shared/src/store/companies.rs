//! The tenant's own row, as its company sees it.
//!
//! Invariant: a transaction sees and changes the row of its own tenant only; another id finds
//! nothing. What operators do with tenants is in [`super::tenants`].

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{db::TenantTx, tiers::Tier};

/// The maximum length of a slug, in characters.
const MAX_SLUG_CHARS: usize = 63;

/// A company.
#[derive(Clone, Debug)]
pub struct Company {
    /// The tenant's id.
    pub id: Uuid,
    /// Its name in URLs, mails and commands.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// The name of the tier.
    pub tier: String,
    /// Creation time.
    pub created_at: DateTime<Utc>,
}

/// Whether a text can be a slug: 1 to 63 lower-case letters, digits and dashes.
pub fn is_slug(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_SLUG_CHARS).contains(&text.len()) && text.bytes().all(plain)
}

/// Registers the transaction's tenant; `false` if another one has this slug.
pub async fn register(transaction: &mut TenantTx, slug: &str, name: &str) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let result = sqlx::query!(
        "insert into tenants (id, slug, name, tier) values ($1, $2, $3, $4) on conflict (slug) do nothing",
        tenant,
        slug,
        name,
        Tier::Trial.as_str()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// The company with this id; `None` if it is not the transaction's tenant.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<Company>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        Company,
        "select id, slug, name, tier, created_at from tenants where id = $1 and id = $2",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}

/// Changes the name of the company.
pub async fn rename(transaction: &mut TenantTx, name: &str) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!("update tenants set name = $2 where id = $1", tenant, name).execute(&mut **transaction).await.map(drop)
}

/// Whether an operator has suspended the company.
pub async fn is_suspended(transaction: &mut TenantTx) -> Result<bool, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let found =
        sqlx::query_scalar!(r#"select suspended_at is not null as "suspended!" from tenants where id = $1"#, tenant);
    Ok(found.fetch_optional(&mut **transaction).await?.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_the_limits_of_a_slug() {
        for slug in ["a", "acme-2", &"a".repeat(63)] {
            assert!(is_slug(slug), "{slug}");
        }
        for slug in ["", &"a".repeat(64), "Acme", "ac me", "ac_me", "ä", "a.b", "a/b", "a\0"] {
            assert!(!is_slug(slug), "{slug:?}");
        }
    }
}
