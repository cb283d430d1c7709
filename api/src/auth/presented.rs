//! The credential of a request, as its headers present it.

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

const API_KEY: &str = "x-api-key";

pub(super) type Fingerprint = [u8; 32];

/// A credential that has not been verified. Work that outlives its request keeps it and verifies it
/// again.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    /// The text of `X-API-Key`.
    ApiKey(String),
    /// The token of `Authorization: Bearer`.
    AccessToken(String),
}

/// What is wrong with the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Presented {
    /// The credential in the headers; the guard has rejected a second one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Malformed> {
        if let Some(key) = headers.get(API_KEY) {
            let text = key.to_str().map_err(|_| Malformed("X-API-Key is not an API key"))?;
            return Ok(Self::ApiKey(text.to_owned()));
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(Malformed("send an API key in X-API-Key, or an access token in Authorization"));
        };
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        match token {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Self::AccessToken(token.trim().to_owned()))
            }
            _ => Err(Malformed("Authorization is not of the form: Bearer TOKEN")),
        }
    }

    /// What a client is told whose credential is not valid. One text for all causes.
    pub(super) fn refusal(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "the API key is unknown, revoked or expired",
            Self::AccessToken(_) => "the access token is invalid or expired, or its session has ended",
        }
    }

    /// Distinguishes credentials of different text or kind.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let (kind, text) = match self {
            Self::ApiKey(text) => (b"key ", text),
            Self::AccessToken(text) => (b"jwt ", text),
        };
        Sha256::new().chain_update(kind).chain_update(text.as_bytes()).finalize().into()
    }
}
