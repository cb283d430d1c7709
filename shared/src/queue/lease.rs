//! A lease in its three forms: proposed by the index ([`LeasedRef`]), held with the job's row
//! ([`Lease`]), and ended ([`Settlement`]).
//!
//! Invariant: the token proves which fetch or dispatch made the lease. The index changes nothing for
//! a holder with another token.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{job::Priority, shard::Shard};
use crate::tenancy::TenantId;

/// Proves which fetch leased a job: random per fetch, so that an earlier lease of the same worker
/// does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseToken([u8; 8]);

impl LeaseToken {
    /// For a lease whose holder is unknown. No fetch uses it.
    pub(in crate::queue) const NONE: Self = Self([0; 8]);

    /// A unique token.
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub(in crate::queue) const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }

    pub(in crate::queue) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// A leased job whose row is not read yet, with the values needed to release it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasedRef {
    /// The job's id.
    pub id: Uuid,
    /// The lease's token.
    pub token: LeaseToken,
    /// Its order among the tenant's jobs.
    pub priority: Priority,
    /// When it became eligible to run, in Unix milliseconds.
    pub run_at_ms: i64,
}

impl LeasedRef {
    /// Returns the job to its flow as if it had not been leased.
    pub(in crate::queue) const fn release(&self) -> Settlement {
        self.settle_unrun(Some((self.run_at_ms, self.priority)))
    }

    /// Ends the lease without a run.
    pub(in crate::queue) const fn settle_unrun(&self, again: Option<(i64, Priority)>) -> Settlement {
        Settlement { id: self.id, token: self.token, ran: None, again, rescued: false }
    }
}

/// A job that this process may run until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The job's id.
    pub id: Uuid,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The shard it waited in, where the lease is renewed and settled.
    pub shard: Shard,
    /// The job kind.
    pub kind: String,
    /// Its arguments.
    pub args: Box<RawValue>,
    /// Number of this run, from 1; the fencing token of its finish.
    pub attempt: i32,
    /// Runs that failed so far.
    pub failures: i16,
    /// Runs so far that ended with an expired lease (crashes).
    pub crashes: i16,
    /// Failures after which the job is discarded.
    pub max_attempts: i16,
    /// Its priority among the tenant's jobs.
    pub priority: Priority,
    /// The batch that it belongs to or completes.
    pub batch_id: Option<Uuid>,
    /// When it became eligible to run.
    pub run_at: DateTime<Utc>,
    /// Follow-up flags: see [`crate::queue::ledger::relations::follow_up_flags`].
    pub follow_up_flags: i16,
    /// Version of the arguments' format.
    pub args_version: i16,
    /// Proves to the index that this process holds the lease.
    pub token: LeaseToken,
    /// Until then the lease is certainly held, by the monotonic clock: see [`Lease::is_young`].
    pub sure_until: Instant,
    /// Duration of the lease after a renewal.
    pub lasts: Duration,
}

impl Lease {
    /// Whether the lease is so young that it is certainly held.
    pub fn is_young(&self) -> bool {
        Instant::now() < self.sure_until
    }

    /// The settlement that releases the job as if it had not been fetched.
    pub fn release(&self) -> Settlement {
        let again = Some((self.run_at.timestamp_millis(), self.priority));
        Settlement { id: self.id, token: self.token, ran: None, again, rescued: false }
    }
}

/// The end of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Settlement {
    /// The job's id.
    pub id: Uuid,
    /// The lease's token; a settlement with another token changes nothing.
    pub token: LeaseToken,
    /// Worker time used, charged to the tenant; `None` if the job did not run: then only its start
    /// is charged.
    pub ran: Option<Duration>,
    /// If the job waits again: earliest start in Unix milliseconds, and priority.
    pub again: Option<(i64, Priority)>,
    /// Whether a rescue ends the lease: it ends only leases that it has claimed, a holder only
    /// others.
    pub rescued: bool,
}
