//! Verifies credentials, with a short-lived cache of valid ones.
//!
//! Invariant: a revoked key, an ended session and a changed role have effect within [`FRESH`]. Only
//! valid credentials are cached, under a hash of the presented text, so the cache holds no secret
//! and guesses cannot fill it. Concurrent requests with the same uncached credential query the
//! ledger one at a time, so they cannot use up its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    clock::Clock,
    db::SystemDb,
    identity::{
        access_token::{AccessToken, AccessTokens},
        api_key::PresentedKey,
    },
    patience,
    store::credentials::{self, Principal},
};

use super::presented::{Fingerprint, Presented};
use crate::turns::Turns;

/// Less than the five seconds that a revocation may take, by the time of a look-up.
const FRESH: Duration = Duration::from_millis(4_500);
const KEPT: usize = 10_000;

/// Verifies credentials against the ledger and caches valid ones for [`FRESH`].
#[derive(Clone)]
pub struct Authenticator {
    db: SystemDb,
    access_tokens: AccessTokens,
    clock: Clock,
    verified: Arc<Mutex<HashMap<Fingerprint, Verified>>>,
    lookups: Arc<Turns<Fingerprint>>,
}

#[derive(Clone)]
struct Verified {
    at: Instant,
    principal: Arc<Principal>,
    /// The token that was verified. Its lifetime may end while the entry is fresh.
    token: Option<AccessToken>,
}

/// A credential of the right form.
enum Credential {
    ApiKey(PresentedKey),
    AccessToken(AccessToken),
}

impl Authenticator {
    /// Creates an empty cache over the ledger.
    pub fn new(db: SystemDb, access_tokens: AccessTokens, clock: Clock) -> Self {
        Self { db, access_tokens, clock, verified: Arc::default(), lookups: Arc::default() }
    }

    /// The principal of a presented credential, or `None` if it is not valid.
    pub async fn check(&self, presented: &Presented) -> Result<Option<Arc<Principal>>, sqlx::Error> {
        let fingerprint = presented.fingerprint();
        if let Some(principal) = self.remembered(&fingerprint) {
            return Ok(Some(principal));
        }
        let Some(credential) = self.parse(presented) else { return Ok(None) };
        let lookup = self.lookups.run(&fingerprint, self.look_up(fingerprint, credential));
        patience::within(Box::pin(lookup)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// As [`Self::check`], by what the ledger says now: for what outlives the credential, such as a
    /// key or a user that it creates.
    pub async fn check_now(&self, presented: &Presented) -> Result<Option<Arc<Principal>>, sqlx::Error> {
        self.forget(presented);
        self.check(presented).await
    }

    /// Drops a credential from the cache, so that this process looks it up again.
    pub fn forget(&self, presented: &Presented) {
        let fingerprint = presented.fingerprint();
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(&fingerprint);
    }

    /// The tokens that are issued and accepted.
    pub fn access_tokens(&self) -> &AccessTokens {
        &self.access_tokens
    }

    /// What can be refused without the ledger is: a wrong checksum, a wrong signature.
    fn parse(&self, presented: &Presented) -> Option<Credential> {
        match presented {
            Presented::ApiKey(text) => PresentedKey::parse(text).map(Credential::ApiKey),
            Presented::AccessToken(text) => {
                self.access_tokens.verify(text, self.clock.now()).map(Credential::AccessToken)
            }
        }
    }

    async fn look_up(
        &self,
        fingerprint: Fingerprint,
        credential: Credential,
    ) -> Result<Option<Arc<Principal>>, sqlx::Error> {
        if let Some(principal) = self.remembered(&fingerprint) {
            return Ok(Some(principal));
        }
        // The age of an entry counts from before the query, whose snapshot may be that old.
        let at = Instant::now();
        let (found, token) = match credential {
            Credential::ApiKey(key) => (credentials::of_api_key(&self.db, &key).await?, None),
            Credential::AccessToken(token) => (credentials::of_access_token(&self.db, &token).await?, Some(token)),
        };
        let Some(principal) = found.map(Arc::new) else { return Ok(None) };
        self.remember(fingerprint, Verified { at, principal: Arc::clone(&principal), token });
        Ok(Some(principal))
    }

    fn remembered(&self, fingerprint: &Fingerprint) -> Option<Arc<Principal>> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = verified.get(fingerprint).filter(|entry| entry.at.elapsed() < FRESH)?;
        let is_current = entry.token.is_none_or(|token| self.clock.now() < token.expires_at());
        is_current.then(|| Arc::clone(&entry.principal))
    }

    fn remember(&self, fingerprint: Fingerprint, entry: Verified) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= KEPT {
            verified.retain(|_, entry| entry.at.elapsed() < FRESH);
        }
        verified.insert(fingerprint, entry);
    }
}
