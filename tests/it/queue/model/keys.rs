//! The model of unique keys: which job has which.
//!
//! Invariant: a key is one job's of its tenant, from its commit until it is final.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Few, so that they are asked for while others have them.
pub const KEYS: u8 = 2;

pub type Key = u8;

#[derive(Debug, Default)]
pub struct Keys {
    pub held: BTreeMap<(usize, Key), Uuid>,
}

impl Keys {
    /// For a job that wants none this is nothing. Fails with the one that has it.
    pub fn take(&mut self, tenant: usize, key: Option<Key>, job: Uuid) -> Result<(), Uuid> {
        let Some(key) = key else { return Ok(()) };
        match *self.held.entry((tenant, key)).or_insert(job) {
            holder if holder == job => Ok(()),
            holder => Err(holder),
        }
    }

    /// Of a job that has it.
    pub fn free(&mut self, tenant: usize, key: Option<Key>) {
        if let Some(key) = key {
            self.held.remove(&(tenant, key));
        }
    }
}
