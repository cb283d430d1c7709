//! The tenant that work belongs to.
//!
//! Invariant: a [`TenantId`] comes from a verified credential or from a ledger row, never from a
//! body, a path or a header. Next: [`crate::db::TenantTx`], the only way to access a tenant's rows.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a tenant (`UUIDv7`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// Wraps an id that was read from a credential or from the ledger.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The bare id, for SQL and for Redis members.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
