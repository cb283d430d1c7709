//! A JSON body with the client's idempotency key, for requests that make something.
//!
//! Invariant: the fingerprint covers method, path and every byte of the body, so a key that comes again with anything else is
//! told from a repeat.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use shared::queue::producer::Idempotency;

use super::json;
use crate::problem::{Problem, ProblemCode};

const HEADER: &str = "idempotency-key";
const MAX_KEY_LENGTH: usize = 255;

/// What was asked for, and under which key.
pub struct Submission<T> {
    /// The body.
    pub body: T,
    /// Bytes of the body as it was sent.
    pub size_bytes: usize,
    key: Option<(String, Vec<u8>)>,
}

impl<T> Submission<T> {
    /// What to store beside the work; `response` is what a repeat is answered with, where that cannot be read from the ledger.
    pub fn idempotency(&self, response: Option<Box<RawValue>>) -> Option<Idempotency> {
        let (key, fingerprint) = self.key.clone()?;
        Some(Idempotency { key, fingerprint, response })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Submission<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let key = key(request.headers())?;
        let mut hash = Sha256::new();
        hash.update(request.method().as_str());
        hash.update([0]);
        hash.update(request.uri().path());
        hash.update([0]);
        let bytes: Bytes = json::read(request).await?;
        hash.update(&bytes);
        Ok(Self {
            body: json::parse(&bytes)?,
            size_bytes: bytes.len(),
            key: key.map(|key| (key, hash.finalize().to_vec())),
        })
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::new(ProblemCode::BadRequest).detail("Idempotency-Key must be 1 to 255 visible ASCII characters")
    })?;
    Ok(Some(key.to_owned()))
}
