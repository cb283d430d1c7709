//! Signing secrets of webhook endpoints: `whsec_` and base64, the format of Standard Webhooks.
//!
//! Invariant: a secret has 24 to 64 bytes, as the specification requires, and never appears in
//! `Debug` output.

use std::fmt;

use data_encoding::BASE64;

const PREFIX: &str = "whsec_";
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret shared by Rota and the owner of an endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// The text or length is not that of a webhook secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

impl WebhookSecret {
    /// A new random secret of 32 bytes.
    pub fn random() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// A secret from its bytes in the ledger.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidSecret> {
        if BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// A secret from its text form.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        bytes.map_or(Err(InvalidSecret), Self::from_bytes)
    }

    /// The text form, shown to the owner once.
    pub fn present(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    /// The signing key.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_round_trips_and_is_not_shown_by_debug() {
        let secret = WebhookSecret::random();
        assert_eq!(WebhookSecret::parse(&secret.present()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }

    #[test]
    fn the_length_of_a_secret_is_bounded() {
        for (length, good) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(WebhookSecret::from_bytes(vec![7; length]).is_ok(), good, "{length}");
        }
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!"] {
            assert_eq!(WebhookSecret::parse(text), Err(InvalidSecret), "{text}");
        }
    }
}
