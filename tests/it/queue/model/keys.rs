//! The model of unique keys: which job holds which key.
//!
//! Invariant: a key is held by one job of its tenant, from the job's commit until the job is final.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Few, so that requests often name a key that is held.
pub const KEYS: u8 = 2;

pub type Key = u8;

#[derive(Debug, Default)]
pub struct Keys {
    pub held: BTreeMap<(usize, Key), Uuid>,
}

impl Keys {
    /// Does nothing for a job without a key. Fails with the id of the job that holds the key.
    pub fn take(&mut self, tenant: usize, key: Option<Key>, job: Uuid) -> Result<(), Uuid> {
        let Some(key) = key else { return Ok(()) };
        match *self.held.entry((tenant, key)).or_insert(job) {
            holder if holder == job => Ok(()),
            holder => Err(holder),
        }
    }

    /// Releases the key of the job that holds it.
    pub fn free(&mut self, tenant: usize, key: Option<Key>) {
        if let Some(key) = key {
            self.held.remove(&(tenant, key));
        }
    }
}
