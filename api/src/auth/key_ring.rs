//! API keys that were checked a moment ago.
//!
//! Invariant: a key that was revoked works for [`FRESH`] longer at the most. Only good keys are kept, under a hash of what was sent,
//! so the memory holds no secret and cannot be filled by guessing. Of many requests with one key that is not remembered one asks the ledger
//! at a time, so they do not take all its connections.

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

/// Checks keys against the ledger, and remembers the good ones for a short while.
#[derive(Clone)]
pub struct KeyRing {
    db: SystemDb,
    checked: Arc<Mutex<Checked>>,
    asking: Arc<Turns<Fingerprint>>,
}

impl KeyRing {
    /// A ring over the ledger's keys.
    pub fn new(db: SystemDb) -> Self {
        Self { db, checked: Arc::default(), asking: Arc::default() }
    }

    /// The key behind the text, if it is good.
    pub async fn check(&self, text: &str) -> Result<Option<Arc<VerifiedKey>>, sqlx::Error> {
        let fingerprint: Fingerprint = Sha256::digest(text.as_bytes()).into();
        if let Some(key) = self.remembered(&fingerprint) {
            return Ok(Some(key));
        }
        let Some(presented) = PresentedKey::parse(text) else { return Ok(None) };
        let asked = self.asking.run(&fingerprint, self.ask(fingerprint, presented));
        patience::within(Box::pin(asked)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn ask(
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
