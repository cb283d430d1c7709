//! A JSON body with the client's idempotency key, for requests that create something.
//!
//! Invariant: the fingerprint covers the method, the path and every byte of the body, so a reused
//! key with a different request is distinguished from a repeat. A used key takes precedence over
//! all other checks: a request that was accepted once gets its response again, even if its kind,
//! its times or the rules have changed since. First uses, nearly all requests, pay nothing for
//! this: the key is looked up only when a request is about to be rejected
//! ([`RequestKey::earlier`]), and inserting an accepted request finds the key anyway.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use shared::{
    db::TenantDb,
    queue::ledger::request::Idempotency,
    store::idempotency::{self, KeyUse},
    tenancy::TenantId,
};

use super::json;
use crate::problem::{Problem, ProblemCode};

const HEADER: &str = "idempotency-key";
const MAX_KEY_LENGTH: usize = 255;

/// A submitted body and its idempotency key.
pub struct Submission<T> {
    /// The body, or why it cannot be parsed. A handler passes this error to
    /// [`RequestKey::earlier`], like the errors that it finds itself.
    pub body: Result<T, Problem>,
    /// Bytes of the body as sent.
    pub size_bytes: usize,
    /// The client's key.
    pub key: RequestKey,
}

/// A request's idempotency key and fingerprint, if the client sent a key.
#[derive(Clone)]
pub struct RequestKey(Option<(String, Vec<u8>)>);

impl RequestKey {
    /// What to store with the work. `response` is returned to a repeat, where it cannot be rebuilt
    /// from the ledger.
    pub fn idempotency(&self, response: impl FnOnce() -> Option<Box<RawValue>>) -> Option<Idempotency> {
        let (key, fingerprint) = self.0.clone()?;
        Some(Idempotency { key, fingerprint, response: response() })
    }

    /// Finds the earlier request that this one repeats, when this one would be rejected. Returns
    /// the rejection if the key was not used, and `idempotency_key_reused` if it was used for
    /// another request.
    pub async fn earlier(&self, tenants: &TenantDb, tenant: TenantId, refusal: Problem) -> Result<KeyUse, Problem> {
        let Some((key, fingerprint)) = self.0.as_ref().filter(|_| concerns_request(refusal.code())) else {
            return Err(refusal);
        };
        let mut transaction = tenants.begin(tenant).await?;
        match idempotency::find(&mut transaction, key).await? {
            None => Err(refusal),
            Some(earlier) if earlier.fingerprint == *fingerprint => Ok(earlier),
            Some(_) => Err(ProblemCode::IdempotencyKeyReused.into()),
        }
    }
}

/// Whether a rejection concerns the request itself. A missing permission applies to repeats too.
fn concerns_request(code: ProblemCode) -> bool {
    code.status().is_client_error() && !matches!(code, ProblemCode::Forbidden | ProblemCode::IdempotencyKeyReused)
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
        let key = RequestKey(key.map(|key| (key, hash.finalize().to_vec())));
        Ok(Self { body: json::parse(&bytes), size_bytes: bytes.len(), key })
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let is_visible = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let key = value.to_str().ok().filter(is_visible).filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::new(ProblemCode::BadRequest)
            .detail("Idempotency-Key must be 1 to 255 printable ASCII characters, without leading or trailing spaces")
    })?;
    Ok(Some(key.to_owned()))
}
