//! Links in mails about a user's account: to confirm the address, to set a new password, to accept
//! an invitation.
//!
//! Invariant: a link is its own credential and is stored nowhere. It contains its purpose, its
//! expiry, tenant and user, a fingerprint of the account, and a MAC over all of them, so it can
//! neither be forged nor used for another purpose. The fingerprint of a link that sets a password is
//! one of the present password, so the link works once. Format: base64url of purpose (1 byte),
//! expiry (8 bytes, seconds since 1970), tenant (16), user (16), fingerprint (16), and their
//! HMAC-SHA-256 truncated to 16 bytes.

use chrono::{DateTime, TimeDelta, Utc};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shared::{
    config::LinkConfig,
    mac::hmac_sha256,
    store::{accounts::Account, users::UserState},
    tenancy::TenantId,
};
use url::Url;
use uuid::Uuid;

const MAC_BYTES: usize = 16;
const CLAIM_BYTES: usize = 1 + 8 + 16 + 16 + MAC_BYTES;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkPurpose {
    /// To confirm the address of a user who registered.
    VerifyEmail,
    /// To set another password.
    ResetPassword,
    /// To set the first password of a user who was invited.
    AcceptInvitation,
}

impl LinkPurpose {
    /// How long a link is valid.
    pub const fn lifetime(self) -> TimeDelta {
        match self {
            Self::VerifyEmail => TimeDelta::days(3),
            Self::ResetPassword => TimeDelta::hours(1),
            Self::AcceptInvitation => TimeDelta::days(7),
        }
    }

    /// Whether a user in this state may use a link, as far as the state decides. A confirmation may
    /// be repeated.
    pub fn fits(self, state: &str) -> bool {
        let is = |wanted: UserState| state == wanted.as_str();
        match self {
            Self::VerifyEmail | Self::ResetPassword => is(UserState::Unverified) || is(UserState::Active),
            Self::AcceptInvitation => is(UserState::Invited),
        }
    }

    /// Stored in links, so it never changes.
    const fn code(self) -> u8 {
        match self {
            Self::VerifyEmail => 1,
            Self::ResetPassword => 2,
            Self::AcceptInvitation => 3,
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        [Self::VerifyEmail, Self::ResetPassword, Self::AcceptInvitation].into_iter().find(|one| one.code() == code)
    }

    /// Relative to the API's URL.
    const fn path(self) -> &'static str {
        match self {
            Self::VerifyEmail => "api/v1/auth/verify-email/",
            Self::ResetPassword | Self::AcceptInvitation => "api/v1/auth/reset-password/",
        }
    }
}

/// Creates and verifies links.
#[derive(Clone)]
pub struct AccountLinks {
    config: LinkConfig,
}

/// What a genuine link says. Whether it was used is for [`AccountLinks::is_unused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountLink {
    /// What the link is for.
    pub purpose: LinkPurpose,
    /// The tenant of the user.
    pub tenant: TenantId,
    /// The user.
    pub user: Uuid,
    /// From this time on the link is not valid; whole seconds.
    pub expires_at: DateTime<Utc>,
}

impl AccountLinks {
    /// Links under the configured URL, signed with the configured key.
    pub const fn new(config: LinkConfig) -> Self {
        Self { config }
    }

    /// The link in the mail about this account.
    pub fn url(&self, link: &AccountLink, account: &Account) -> Url {
        self.config.url(&format!("{}{}", link.purpose.path(), self.token(link, account)))
    }

    /// The token of the link.
    pub fn token(&self, link: &AccountLink, account: &Account) -> String {
        let mut bytes = vec![link.purpose.code()];
        bytes.extend_from_slice(&link.expires_at.timestamp().to_be_bytes());
        bytes.extend_from_slice(link.tenant.as_uuid().as_bytes());
        bytes.extend_from_slice(link.user.as_bytes());
        bytes.extend_from_slice(&self.fingerprint(link, account).finalize().into_bytes()[..MAC_BYTES]);
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// What a token says; `None` if it is not genuine or has expired.
    pub fn check(&self, token: &str, now: DateTime<Utc>) -> Option<AccountLink> {
        let bytes = decode(token)?;
        let (claim, mac) = bytes.split_at(CLAIM_BYTES);
        self.mac(claim).verify_truncated_left(mac).ok()?;
        let expires_at = i64::from_be_bytes(claim[1..9].try_into().ok()?);
        let link = AccountLink {
            purpose: LinkPurpose::of_code(claim[0])?,
            expires_at: DateTime::from_timestamp(expires_at, 0)?,
            tenant: TenantId::new(Uuid::from_slice(&claim[9..25]).ok()?),
            user: Uuid::from_slice(&claim[25..41]).ok()?,
        };
        (now < link.expires_at).then_some(link)
    }

    /// Whether the account is still as it was when the link was created, and may use it.
    pub fn is_unused(&self, token: &str, link: &AccountLink, account: &Account) -> bool {
        let fingerprint = decode(token).map(|bytes| bytes[CLAIM_BYTES - MAC_BYTES..CLAIM_BYTES].to_vec());
        let present = self.fingerprint(link, account);
        let is_same = fingerprint.is_some_and(|then| present.verify_truncated_left(&then).is_ok());
        is_same && link.purpose.fits(&account.state)
    }

    /// A confirmation stays valid if the password changes.
    fn fingerprint(&self, link: &AccountLink, account: &Account) -> Hmac<Sha256> {
        let mut mac = hmac_sha256(self.config.key.expose());
        mac.update(b"rota account state 1");
        mac.update(account.email.as_bytes());
        if link.purpose != LinkPurpose::VerifyEmail {
            mac.update(b"\0");
            mac.update(account.password_hash.as_deref().unwrap_or_default().as_bytes());
        }
        mac
    }

    fn mac(&self, claim: &[u8]) -> Hmac<Sha256> {
        let mut mac = hmac_sha256(self.config.key.expose());
        mac.update(b"rota account link 1");
        mac.update(claim);
        mac
    }
}

fn decode(token: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(token.as_bytes()).ok().filter(|bytes| bytes.len() == CLAIM_BYTES + MAC_BYTES)
}

#[cfg(test)]
mod tests;
