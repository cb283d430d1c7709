//! A JSON body with the client's idempotency key, for requests that make something.
//!
//! Invariant: the fingerprint covers method, path and every byte of the body, so a key that comes again with anything else is
//! told from a repeat. A key that was used decides before anything else does: what was accepted once is answered again, whatever
//! became of its kind, its times or the rules meanwhile. First uses, nearly all there are, pay nothing for that: the key is
//! looked up when a request is about to be refused ([`RequestKey::earlier`]), and inserting what is accepted finds it anyway.

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
    queue::producer::Idempotency,
    store::idempotency::{self, KeyUse},
    tenancy::TenantId,
};

use super::json;
use crate::problem::{Problem, ProblemCode};

const HEADER: &str = "idempotency-key";
const MAX_KEY_LENGTH: usize = 255;

/// What was asked for, and under which key.
pub struct Submission<T> {
    /// The body, or why it is not one. A handler refuses through [`RequestKey::earlier`], as it does what it finds itself.
    pub body: Result<T, Problem>,
    /// Bytes of the body as it was sent.
    pub size_bytes: usize,
    /// The client's key.
    pub key: RequestKey,
}

/// A request's idempotency key and fingerprint, if the client sent a key.
#[derive(Clone)]
pub struct RequestKey(Option<(String, Vec<u8>)>);

impl RequestKey {
    /// What to store beside the work; `response` is what a repeat is answered with, where that cannot be read from the ledger.
    pub fn idempotency(&self, response: impl FnOnce() -> Option<Box<RawValue>>) -> Option<Idempotency> {
        let (key, fingerprint) = self.0.clone()?;
        Some(Idempotency { key, fingerprint, response: response() })
    }

    /// The earlier request that this one repeats, although it would be refused by itself. The refusal comes back if the key was
    /// not used, and `idempotency_key_reused` if it was used for another request.
    pub async fn earlier(&self, tenants: &TenantDb, tenant: TenantId, refusal: Problem) -> Result<KeyUse, Problem> {
        let Some((key, fingerprint)) = self.0.as_ref().filter(|_| is_judgement(refusal.code())) else {
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

/// Whether a refusal is about what was asked for. One for want of a permission holds for repeats too.
fn is_judgement(code: ProblemCode) -> bool {
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
            .detail("Idempotency-Key must be 1 to 255 visible ASCII characters, between which there may be spaces")
    })?;
    Ok(Some(key.to_owned()))
}
