//! The text of a refresh token: `rota_refresh_<tenant>_<session>_<number>_<mac>`.
//!
//! The tokens of a session are numbered. The MAC (HMAC-SHA-256 over the session's secret and the
//! number) makes the same text for the same number each time, so concurrent uses of one token get
//! the same successor without storing it. Its key is the installation's, which is not in the
//! database: the rows alone, in a dump or in a log of statements, make no token. The tenant's id is
//! part of the text because the session's row is read within the tenant; it grants nothing.

use data_encoding::BASE64URL_NOPAD;
use hmac::Mac as _;
use uuid::Uuid;

use crate::{mac::hmac_sha256, tenancy::TenantId};

const PREFIX: &str = "rota_refresh_";

/// The random part of a session's refresh tokens, which its row has.
#[derive(Clone)]
pub struct SessionSecret([u8; 32]);

/// Makes and verifies the refresh tokens of an installation.
#[derive(Clone)]
pub struct RefreshTokens {
    key: Vec<u8>,
}

/// A refresh token as a client presents it, not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedRefreshToken {
    /// The tenant of the session.
    pub tenant: TenantId,
    /// The session.
    pub session: Uuid,
    /// The number of the token; the first is 1.
    pub number: i64,
    mac: Vec<u8>,
}

impl SessionSecret {
    /// A new random key.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// A key read from a row; `None` if it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl RefreshTokens {
    /// Tokens under a key of the installation.
    pub fn new(key: &[u8]) -> Self {
        Self { key: key.to_vec() }
    }

    /// The token of a session with this number.
    pub fn token(&self, secret: &SessionSecret, tenant: TenantId, session: Uuid, number: i64) -> String {
        let mac = self.mac(secret, session, number).finalize().into_bytes();
        let (tenant, session) = (tenant.as_uuid().simple(), session.simple());
        format!("{PREFIX}{tenant}_{session}_{number}_{}", BASE64URL_NOPAD.encode(&mac))
    }

    /// Whether the token is one of a session with this secret.
    pub fn verifies(&self, secret: &SessionSecret, token: &PresentedRefreshToken) -> bool {
        self.mac(secret, token.session, token.number).verify_slice(&token.mac).is_ok()
    }

    fn mac(&self, secret: &SessionSecret, session: Uuid, number: i64) -> impl hmac::Mac {
        let mac = hmac_sha256(&self.key).chain_update(b"rota refresh token 1").chain_update(secret.0);
        mac.chain_update(session.as_bytes()).chain_update(number.to_be_bytes())
    }
}

impl PresentedRefreshToken {
    /// Parses a token; `None` if it does not have the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.splitn(4, '_');
        let (tenant, session) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let number = parts.next()?.parse().ok().filter(|number| *number > 0)?;
        let mac = BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok()?;
        Some(Self { tenant: TenantId::new(tenant), session, number, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_verified_by_its_sessions_key_alone() {
        let (tenant, session) = (TenantId::new(Uuid::from_u128(1)), Uuid::from_u128(2));
        let (secret, other) = (SessionSecret::random(), SessionSecret::random());
        let tokens = RefreshTokens::new(b"the key of an installation");
        let text = tokens.token(&secret, tenant, session, 7);
        assert_eq!(text, tokens.token(&secret, tenant, session, 7), "the same token each time");
        let token = PresentedRefreshToken::parse(&text).unwrap();
        assert_eq!((token.tenant, token.session, token.number), (tenant, session, 7));
        assert!(tokens.verifies(&secret, &token) && !tokens.verifies(&other, &token));
        assert!(!RefreshTokens::new(b"the key of another one").verifies(&secret, &token));
        for changed in [
            PresentedRefreshToken { number: 8, ..token.clone() },
            PresentedRefreshToken { session: Uuid::from_u128(3), ..token.clone() },
            PresentedRefreshToken { mac: token.mac[..31].to_vec(), ..token.clone() },
            PresentedRefreshToken { mac: Vec::new(), ..token },
        ] {
            assert!(!tokens.verifies(&secret, &changed), "{changed:?}");
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let id = Uuid::nil().simple();
        for text in [
            String::new(),
            "rota_refresh_".to_owned(),
            format!("rota_refresh_{id}_{id}_0_AAAA"),
            format!("rota_refresh_{id}_{id}_-1_AAAA"),
            format!("rota_refresh_{id}_{id}_1_A"),
            format!("rota_refresh_{id}_{id}_99999999999999999999_AAAA"),
            format!("rota_refresh_{id}_x_1_AAAA"),
            format!("rota_key_{id}_{id}_1_AAAA"),
        ] {
            assert_eq!(PresentedRefreshToken::parse(&text), None, "{text}");
        }
    }
}
