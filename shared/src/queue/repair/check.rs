//! Checks the invariants of the index, and repairs violations.
//!
//! Invariant: live traffic causes no findings. One script checks each invariant of the index alone.
//! Differences between ledger and index are checked repeatedly, at intervals longer than the delay
//! of a push, as long as their number decreases. A repair causes no second run: a job that may be
//! held gets a lease, which its holder renews or which expires, and only a rescue, which raises the
//! attempt, ends that lease.
//! Next: `lua/check.lua` for the invariants of the index, [`ledger`] for its agreement with the
//! ledger, [`sample`] for the part of it that the leader checks each minute.

mod ledger;
mod sample;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde::Serialize;
use strum::{EnumIter, EnumString, IntoStaticStr};
use uuid::Uuid;

use crate::queue::{
    Index, QueueName, Shard,
    index::{CheckMode, Member},
    repair::reconcile::{ReconcileError, Reconciler},
};
use crate::{db::SystemDb, tenancy::TenantId};

/// Invariants of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// The index is built. Otherwise nothing else is checked, and the leader builds it.
    NotReady,
    /// Every key has its type.
    KeyType,
    /// Every member has its format.
    Garbage,
    /// A held job has a lease that expires.
    HeldWithoutLease,
    /// A lease has a holder.
    LeaseWithoutHolder,
    /// A tenant's running count equals the number of its held jobs.
    RunningCount,
    /// A job is in its flow, in `due`, or held, and a tenant is active or throttled, but never in
    /// two of these.
    InTwoPlaces,
    /// An active or throttled tenant has jobs waiting.
    ActiveWithoutWork,
    /// A tenant with waiting jobs is active or throttled.
    WorkNotActive,
    /// A throttled tenant has a cap, a rate or a pause that throttles it.
    ThrottledWithoutReason,
    /// A job that waits in the ledger is in the index.
    NotInIndex,
    /// A job that waits in the index waits in the ledger.
    NotWaiting,
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The shard, as in its key.
    pub shard: String,
    /// The violated invariant.
    pub invariant: Invariant,
    /// The job, tenant, key or other member.
    pub about: String,
}

/// Extent of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All data: for operators and tests.
    Whole,
    /// A page of each flow and some rows of the ledger, from the end of the previous check: for a
    /// check every minute.
    Sample,
}

/// Checks queues, and remembers the position of each sample.
pub struct Checker {
    db: SystemDb,
    reconciler: Reconciler,
    index: Index,
    lease: Duration,
    /// Position of the last sample in the ledger, by queue.
    cursors: HashMap<QueueName, Uuid>,
    /// Position of the last sample in each flow.
    flow_cursors: HashMap<QueueName, HashMap<TenantId, u64>>,
}

impl Checker {
    /// A checker; a repair gives a held job without a lease one of this duration.
    pub fn new(db: SystemDb, index: Index, lease: Duration) -> Self {
        let reconciler = Reconciler::new(db.clone(), index.clone());
        Self { db, reconciler, index, lease, cursors: HashMap::default(), flow_cursors: HashMap::default() }
    }

    /// Returns the violations in a queue, ledger included; with `repairs` they are repaired.
    pub async fn check(
        &mut self,
        queue: &QueueName,
        extent: Extent,
        repairs: bool,
    ) -> Result<Vec<Violation>, ReconcileError> {
        let mode = CheckMode { repairs, lease: self.lease };
        let mut found = self.inspect(queue, extent, mode).await?;
        if !found.violations.iter().any(|violation| violation.invariant == Invariant::NotReady) {
            if extent == Extent::Sample {
                self.sample_flows(queue, mode, &mut found).await?;
            }
            self.check_ledger(queue, extent, mode, &mut found).await?;
        }
        Ok(found.violations)
    }

    /// Returns the violations in the index alone.
    pub async fn check_index(&self, queue: &QueueName) -> Result<Vec<Violation>, ReconcileError> {
        let mode = CheckMode { repairs: false, lease: self.lease };
        Ok(self.inspect(queue, Extent::Whole, mode).await?.violations)
    }

    async fn inspect(&self, queue: &QueueName, extent: Extent, mode: CheckMode) -> Result<Findings, ReconcileError> {
        let mut found = Findings::default();
        for shard in self.index.shards(queue) {
            self.check_shard(&shard, extent, mode, &mut found).await?;
        }
        Ok(found)
    }

    async fn check_shard(
        &self,
        shard: &Shard,
        extent: Extent,
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        self.check_pages(shard, "types", mode, &[], found).await?;
        if found.violations.iter().any(|violation| violation.invariant == Invariant::NotReady) {
            return Ok(());
        }
        // Leases are checked before counts: a repair of a holder changes the count.
        for what in ["held", "leases", "running", "due", "watched", "workers"] {
            let seen = self.check_pages(shard, what, mode, &[], found).await?;
            found.indexed.extend(seen);
        }
        let mut tenants = self.check_pages(shard, "active", mode, &[], found).await?;
        tenants.extend(self.check_pages(shard, "throttled", mode, &[], found).await?);
        if extent == Extent::Sample {
            found.tenants.extend(tenants.into_iter().map(|(_, tenant)| (shard.clone(), tenant)));
            return Ok(());
        }
        for (tenant, _) in tenants {
            let seen = self.check_pages(shard, "flow", mode, &[tenant.as_bytes().as_slice()], found).await?;
            found.indexed.extend(seen);
        }
        Ok(())
    }

    /// Runs all pages of one check; returns the members seen.
    async fn check_pages(
        &self,
        shard: &Shard,
        what: &str,
        mode: CheckMode,
        arguments: &[&[u8]],
        found: &mut Findings,
    ) -> Result<Vec<Member>, ReconcileError> {
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let page = self.index.check_page(shard, what, mode, cursor, arguments).await?;
            found.add(shard, page.broken);
            seen.extend(page.seen);
            cursor = page.cursor;
            if cursor == 0 {
                return Ok(seen);
            }
        }
    }
}

/// Findings of a check so far.
#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    /// A scan may return a member twice.
    reported: HashSet<(Invariant, String)>,
    /// Jobs found in the index.
    indexed: HashSet<Member>,
    /// Tenants with jobs in the index, whose flows a sample checks.
    tenants: Vec<(Shard, TenantId)>,
}

impl Findings {
    fn add(&mut self, shard: &Shard, broken: Vec<(String, Vec<u8>)>) {
        for (invariant, about) in broken {
            if let Ok(invariant) = invariant.parse() {
                let about = match invariant {
                    // The key of the shard, which may be as long as an id.
                    Invariant::NotReady => about.escape_ascii().to_string(),
                    _ => named(&about),
                };
                self.one(shard, invariant, about);
            }
        }
    }

    fn one(&mut self, shard: &Shard, invariant: Invariant, about: String) {
        if self.reported.insert((invariant, format!("{shard} {about}"))) {
            self.violations.push(Violation { shard: shard.to_string(), invariant, about });
        }
    }
}

/// An id in the usual notation; any other member as escaped bytes.
fn named(member: &[u8]) -> String {
    Uuid::from_slice(member).map_or_else(|_| member.escape_ascii().to_string(), |id| id.to_string())
}

impl Invariant {
    /// Value of the metric's label.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.shard, self.invariant.name(), self.about)
    }
}
