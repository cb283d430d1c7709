//! Links with which recipients unsubscribe from all mail of a tenant, without an account.
//!
//! Invariant: a link is its own credential. It contains tenant and recipient, and a MAC over both,
//! so it can neither be forged nor changed to another recipient's. Format: base64url of tenant (16
//! bytes), recipient (16 bytes), and their HMAC-SHA-256 truncated to 16 bytes.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use shared::{config::LinkConfig, mac::hmac_sha256, tenancy::TenantId};
use url::Url;
use uuid::Uuid;

const MAC_BYTES: usize = 16;
/// Relative to the API's URL; the page and the one-click POST of RFC 8058 share it.
const PATH: &str = "api/v1/unsubscribe/";

/// Creates and verifies links.
#[derive(Clone)]
pub struct UnsubscribeLinks {
    config: LinkConfig,
}

/// The recipient that a link identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscriber {
    /// The tenant whose mail ends.
    pub tenant: TenantId,
    /// The row of the recipient that the mail was sent to.
    pub recipient: Uuid,
}

impl UnsubscribeLinks {
    /// Links under the configured URL, signed with the configured key.
    pub const fn new(config: LinkConfig) -> Self {
        Self { config }
    }

    /// The link in the mail to this recipient.
    pub fn url(&self, unsubscriber: Unsubscriber) -> Url {
        self.config.url(&format!("{PATH}{}", self.token(unsubscriber)))
    }

    /// The recipient that a token identifies; `None` if the token is invalid.
    pub fn check(&self, token: &str) -> Option<Unsubscriber> {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok().filter(|bytes| bytes.len() == 32 + MAC_BYTES)?;
        let (claim, mac) = bytes.split_at(32);
        self.mac(claim).verify_truncated_left(mac).ok()?;
        let (tenant, recipient) = claim.split_at(16);
        Some(Unsubscriber {
            tenant: TenantId::new(Uuid::from_slice(tenant).ok()?),
            recipient: Uuid::from_slice(recipient).ok()?,
        })
    }

    fn token(&self, unsubscriber: Unsubscriber) -> String {
        let mut bytes =
            [unsubscriber.tenant.as_uuid().as_bytes().as_slice(), unsubscriber.recipient.as_bytes()].concat();
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn mac(&self, claim: &[u8]) -> Hmac<Sha256> {
        let mut mac = hmac_sha256(self.config.key.expose());
        mac.update(b"rota unsubscribe 1");
        mac.update(claim);
        mac
    }
}

#[cfg(test)]
mod tests {
    use shared::config::{LinkConfig, LinkKey};

    use super::*;

    fn links(key: &str) -> UnsubscribeLinks {
        let key = LinkKey::parse(key).expect("long enough");
        UnsubscribeLinks::new(LinkConfig { public_url: "https://rota.example/base/".parse().expect("a URL"), key })
    }

    #[test]
    fn a_link_resolves_to_its_recipient() {
        let unsubscriber = Unsubscriber { tenant: TenantId::new(Uuid::from_u128(1)), recipient: Uuid::from_u128(2) };
        let links = links(&"k".repeat(32));
        let url = links.url(unsubscriber);
        let token = url
            .as_str()
            .strip_prefix("https://rota.example/base/api/v1/unsubscribe/")
            .expect("the path is below the public URL");
        assert_eq!(links.check(token), Some(unsubscriber));
    }

    #[test]
    fn another_key_or_a_changed_byte_is_refused() {
        let unsubscriber = Unsubscriber { tenant: TenantId::new(Uuid::from_u128(1)), recipient: Uuid::from_u128(2) };
        let token = links(&"k".repeat(32)).token(unsubscriber);
        assert_eq!(links(&"l".repeat(32)).check(&token), None);
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(links(&"k".repeat(32)).check(std::str::from_utf8(&forged).expect("ASCII")), None);
        }
        assert_eq!(links(&"k".repeat(32)).check(""), None);
    }
}
