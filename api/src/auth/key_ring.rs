//! A short-lived cache of verified API keys.
//!
//! Invariant: a revoked key is accepted for at most [`FRESH`] longer. Only valid keys are cached,
//! under a hash of the presented text, so the cache holds no secret and guesses cannot fill it.
//! Concurrent requests with the same uncached key query the ledger one at a time, so they cannot
//! use up its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use shared::{
    db::SystemDb,
    patience,
    store::credentials::{PresentedKey, VerifiedKey},
};

use crate::turns::Turns;

const FRESH: Duration = Duration::from_secs(5);
const KEPT: usize = 10_000;

type Fingerprint = [u8; 32];
type Checked = HashMap<Fingerprint, (Instant, Arc<VerifiedKey>)>;

/// Checks keys against the ledger and caches valid keys for [`FRESH`].
#[derive(Clone)]
pub struct KeyRing {
    db: SystemDb,
    checked: Arc<Mutex<Checked>>,
    lookups: Arc<Turns<Fingerprint>>,
}

impl KeyRing {
    /// Creates an empty cache over the ledger's keys.
    pub fn new(db: SystemDb) -> Self {
        Self { db, checked: Arc::default(), lookups: Arc::default() }
    }

    /// Returns the key for the presented text, or `None` if the text is not a valid key.
    pub async fn check(&self, text: &str) -> Result<Option<Arc<VerifiedKey>>, sqlx::Error> {
        let fingerprint: Fingerprint = Sha256::digest(text.as_bytes()).into();
        if let Some(key) = self.remembered(&fingerprint) {
            return Ok(Some(key));
        }
        let Some(presented) = PresentedKey::parse(text) else { return Ok(None) };
        let lookup = self.lookups.run(&fingerprint, self.look_up(fingerprint, presented));
        patience::within(Box::pin(lookup)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn look_up(
        &self,
        fingerprint: Fingerprint,
        presented: PresentedKey,
    ) -> Result<Option<Arc<VerifiedKey>>, sqlx::Error> {
        if let Some(key) = self.remembered(&fingerprint) {
            return Ok(Some(key));
        }
        let Some(key) = presented.verify(&self.db).await? else { return Ok(None) };
        let key = Arc::new(key);
        self.remember(fingerprint, Arc::clone(&key));
        Ok(Some(key))
    }

    fn remembered(&self, fingerprint: &Fingerprint) -> Option<Arc<VerifiedKey>> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.get(fingerprint).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, key)| Arc::clone(key))
    }

    fn remember(&self, fingerprint: Fingerprint, key: Arc<VerifiedKey>) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= KEPT {
            checked.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        checked.insert(fingerprint, (Instant::now(), key));
    }
}
