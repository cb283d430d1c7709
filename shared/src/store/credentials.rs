//! API keys: `rota_<id>_<secret>`, both parts in lower-case base 32. The id finds the row, and the
//! hash of the secret verifies the key.
//!
//! Invariant: a secret is 32 random bytes, so a plain SHA-256 hash is enough to store it (it cannot
//! be guessed), and it is compared in constant time.

use chrono::{DateTime, Utc};
use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::{db::SystemDb, tenancy::TenantId};

const PREFIX: &str = "rota";

/// The data of a new API key.
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
}

/// The secret part of a key.
#[derive(Clone)]
pub struct ApiKeySecret([u8; 32]);

/// The parsed `X-API-Key` header of a request.
pub struct PresentedKey {
    id: Uuid,
    secret: ApiKeySecret,
}

/// A key that was verified.
#[derive(Clone, Debug)]
pub struct VerifiedKey {
    /// The key's id.
    pub id: Uuid,
    /// The key's tenant.
    pub tenant: TenantId,
    /// The key's scopes.
    pub scopes: Vec<String>,
}

impl ApiKeySecret {
    /// A new random secret.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The hash that is stored.
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0).to_vec()
    }

    /// The whole key as the client uses it. This is the only time that it is shown.
    pub fn present(&self, id: Uuid) -> String {
        format!("{PREFIX}_{}_{}", encode(id.as_bytes()), encode(&self.0))
    }
}

impl PresentedKey {
    /// Parses a presented key; `None` if it does not have the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        Some(Self { id: Uuid::from_slice(&decode(id)?).ok()?, secret: ApiKeySecret(decode(secret)?.try_into().ok()?) })
    }

    /// Looks up the key. `None` if it is unknown, revoked or expired, or if the secret is wrong.
    pub async fn verify(&self, db: &SystemDb) -> Result<Option<VerifiedKey>, sqlx::Error> {
        let row = sqlx::query!(
            "select tenant_id, secret_hash, scopes from api_keys
             where id = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
            self.id
        )
        .fetch_optional(db.pool())
        .await?;
        Ok(row.filter(|row| bool::from(row.secret_hash.ct_eq(&self.secret.hash()))).map(|row| VerifiedKey {
            id: self.id,
            tenant: TenantId::new(row.tenant_id),
            scopes: row.scopes,
        }))
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_lowercase()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{ApiKeySecret, PresentedKey};

    #[test]
    fn a_presented_key_round_trips() {
        let (id, secret) = (Uuid::max(), ApiKeySecret::random());
        let parsed = PresentedKey::parse(&secret.present(id)).expect("has the form");
        assert_eq!((parsed.id, parsed.secret.0), (id, secret.0));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in ["", "rota", "rota_", "rota__", "rota_aa_bb", "other_aaaa_bbbb", "rota_ä_ö"] {
            assert!(PresentedKey::parse(text).is_none(), "{text}");
        }
    }
}
