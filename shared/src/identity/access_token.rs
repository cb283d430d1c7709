//! Access tokens: JWTs (RFC 7519) that name a user or an API client, a session and a tenant for half
//! an hour.
//!
//! Invariant: every claim of [`Claims`] is required and has one value, the key decides the
//! algorithm, and the same session state always yields the same token, so a repeated refresh returns
//! the same answer. A token says who, never what they may do: role and state are read from the
//! ledger, so that a change takes effect at once.

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::token_keys::TokenKeys;
use crate::tenancy::TenantId;

/// The lifetime of an access token, in minutes.
pub const LIFETIME_MINUTES: i64 = 30;
/// How far the clocks of two processes may differ, in seconds: a token of the near future is
/// accepted.
const CLOCK_DIFFERENCE_S: i64 = 60;
/// Longer texts are not tokens of ours.
const MAX_BYTES: usize = 4096;

/// Issues and verifies access tokens.
#[derive(Clone)]
pub struct AccessTokens {
    keys: TokenKeys,
    issuer: String,
    audience: String,
}

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user's.
    User(Uuid),
    /// An API client's.
    ApiClient(Uuid),
}

/// Whom a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The tenant of the subject.
    pub tenant: TenantId,
    /// The user or the client.
    pub subject: Subject,
    /// The session that the token was issued for.
    pub session: Uuid,
    /// When the token was issued, to the second.
    pub issued_at: DateTime<Utc>,
    /// The number of the refresh token that was issued with it.
    pub number: i64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    tenant: Uuid,
    sid: Uuid,
    typ: TokenType,
    jti: String,
    iat: i64,
    exp: i64,
    /// The scopes of a client, for its information (RFC 9068 §2.2.3.1): they grant nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    scope: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TokenType {
    /// Of a user.
    Access,
    /// Of an API client.
    ClientAccess,
}

impl AccessToken {
    /// When the token expires.
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.issued_at + TimeDelta::minutes(LIFETIME_MINUTES)
    }
}

impl AccessTokens {
    /// Issues tokens as `issuer` for `audience`, and accepts no others.
    pub fn new(keys: TokenKeys, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self { keys, issuer: issuer.into(), audience: audience.into() }
    }

    /// The keys, for publishing.
    pub fn keys(&self) -> &TokenKeys {
        &self.keys
    }

    /// The token as text, which tells a client its scopes.
    ///
    /// # Panics
    /// If the key cannot sign; it did so when it was loaded.
    pub fn issue(&self, token: &AccessToken, scopes: &[String]) -> String {
        let signer = &self.keys.signer;
        let (sub, typ) = match token.subject {
            Subject::User(id) => (id, TokenType::Access),
            Subject::ApiClient(id) => (id, TokenType::ClientAccess),
        };
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub,
            tenant: *token.tenant.as_uuid(),
            sid: token.session,
            typ,
            jti: format!("{}-{}", token.session.simple(), token.number),
            iat: token.issued_at.timestamp(),
            exp: token.expires_at().timestamp(),
            scope: scopes.join(" "),
        };
        let header = Header { kid: Some(signer.kid.clone()), ..Header::new(signer.algorithm) };
        encode(&header, &claims, &signer.key).expect("a loaded key signs")
    }

    /// Whom a presented token names; `None` if it is not a valid token of this installation at
    /// `now`.
    pub fn verify(&self, text: &str, now: DateTime<Utc>) -> Option<AccessToken> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let header = decode_header(text).ok().filter(|header| header.crit.is_none())?;
        let verifier = self.keys.verifier(header.kid.as_deref()?)?;
        let mut validation = Validation::new(verifier.algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared below, with the time of the process's clock.
        validation.validate_exp = false;
        let claims: Claims = decode(text, &verifier.key, &validation).ok()?.claims;
        let is_current = claims.exp > now.timestamp() && claims.iat <= now.timestamp() + CLOCK_DIFFERENCE_S;
        let number = claims.jti.strip_prefix(&format!("{}-", claims.sid.simple()))?.parse().ok()?;
        let issued_at = DateTime::from_timestamp(claims.iat, 0)?;
        let subject = match claims.typ {
            TokenType::Access => Subject::User(claims.sub),
            TokenType::ClientAccess => Subject::ApiClient(claims.sub),
        };
        let tenant = TenantId::new(claims.tenant);
        let token = AccessToken { tenant, subject, session: claims.sid, issued_at, number };
        (is_current && token.expires_at().timestamp() == claims.exp).then_some(token)
    }
}

#[cfg(test)]
mod tests;
