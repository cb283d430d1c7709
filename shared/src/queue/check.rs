//! Whether the index keeps its invariants, and repairing it where it does not.
//!
//! Invariant: nothing is reported that live traffic explains. What is about the index alone is seen in one script; what the ledger and the
//! index disagree about is looked at again, longer apart than a message is under way, as long as it becomes less. A repair doubles no run: what somebody may hold is given
//! a lease, which its holder renews or which runs out, and only a rescue, which raises the attempt, takes it from there.
//! Next: `lua/check.lua` for the invariants of the index, [`ledger`] for its agreement with the ledger.

mod ledger;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde::Serialize;
use strum::{EnumIter, EnumString, IntoStaticStr};
use uuid::Uuid;

use super::{
    Index, QueueName, Shard,
    index::{CheckMode, Member},
    reconcile::{ReconcileError, Reconciler},
};
use crate::db::SystemDb;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// The index is built. Otherwise the leader builds it, and nothing else is checked.
    NotReady,
    /// Every key is of its type.
    KeyType,
    /// Every member is of its form.
    Garbage,
    /// What is held has a lease that runs out.
    HeldWithoutLease,
    /// A lease has a holder.
    LeaseWithoutHolder,
    /// A tenant's count of running jobs is the number of its jobs that are held.
    RunningCount,
    /// A job waits in its flow, is due later, or is held; a tenant is active or throttled.
    InTwoPlaces,
    /// An active or throttled tenant has work.
    ActiveWithoutWork,
    /// A tenant that has work is active or throttled.
    WorkNotActive,
    /// What throttles a tenant is a cap, a rate or a pause.
    ThrottledWithoutReason,
    /// What waits in the ledger is in the index.
    NotInIndex,
    /// What waits in the index waits in the ledger.
    NotWaiting,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where.
    pub shard: String,
    /// What.
    pub invariant: Invariant,
    /// Which job, tenant, key or other member.
    pub about: String,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything: for operators and tests.
    Whole,
    /// The first page of each flow and some rows of the ledger, from where the last check ended: for every minute.
    Sample,
}

/// Checks queues.
pub struct Checker {
    reconciler: Reconciler,
    index: Index,
    lease: Duration,
    /// Up to where the ledger was looked at, by queue.
    cursors: HashMap<QueueName, Uuid>,
}

impl Checker {
    /// A checker that gives a lease of this length to what has none.
    pub fn new(db: SystemDb, index: Index, lease: Duration) -> Self {
        let reconciler = Reconciler::new(db, index.clone());
        Self { reconciler, index, lease, cursors: HashMap::default() }
    }

    /// What does not hold in a queue; `repairs`: it is brought to hold.
    pub async fn check(
        &mut self,
        queue: &QueueName,
        extent: Extent,
        repairs: bool,
    ) -> Result<Vec<Violation>, ReconcileError> {
        let mode = CheckMode { repairs, lease: self.lease };
        let mut found = self.look_into(queue, extent, mode).await?;
        if !found.violations.iter().any(|violation| violation.invariant == Invariant::NotReady) {
            self.check_ledger(queue, extent, mode, &mut found).await?;
        }
        Ok(found.violations)
    }

    /// What does not hold in the index alone.
    pub async fn check_index(&self, queue: &QueueName) -> Result<Vec<Violation>, ReconcileError> {
        let mode = CheckMode { repairs: false, lease: self.lease };
        Ok(self.look_into(queue, Extent::Whole, mode).await?.violations)
    }

    async fn look_into(&self, queue: &QueueName, extent: Extent, mode: CheckMode) -> Result<Findings, ReconcileError> {
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
        // Leases before counts: what they say of a holder is what is counted.
        for what in ["held", "leases", "running", "due", "watched", "workers"] {
            let seen = self.check_pages(shard, what, mode, &[], found).await?;
            found.indexed.extend(seen);
        }
        let mut tenants = self.check_pages(shard, "ring", mode, &[], found).await?;
        tenants.extend(self.check_pages(shard, "parked", mode, &[], found).await?);
        for (tenant, _) in tenants {
            let arguments = [tenant.as_bytes().as_slice()];
            if extent == Extent::Whole {
                let seen = self.check_pages(shard, "flow", mode, &arguments, found).await?;
                found.indexed.extend(seen);
            } else {
                let page = self.index.check_page(shard, "flow", mode, 0, &arguments).await?;
                found.add(shard, page.broken);
            }
        }
        Ok(())
    }

    /// All pages of one check; returns what was seen.
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

/// What a check has found so far.
#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    /// A scan may bring a member twice.
    known: HashSet<(Invariant, String)>,
    /// What the index has.
    indexed: HashSet<Member>,
}

impl Findings {
    fn add(&mut self, shard: &Shard, broken: Vec<(String, Vec<u8>)>) {
        for (invariant, about) in broken {
            if let Ok(invariant) = invariant.parse() {
                self.one(shard, invariant, named(&about));
            }
        }
    }

    fn one(&mut self, shard: &Shard, invariant: Invariant, about: String) {
        if self.known.insert((invariant, format!("{shard} {about}"))) {
            self.violations.push(Violation { shard: shard.to_string(), invariant, about });
        }
    }
}

/// An id as it is written elsewhere; anything else byte by byte.
fn named(member: &[u8]) -> String {
    Uuid::from_slice(member).map_or_else(|_| member.escape_ascii().to_string(), |id| id.to_string())
}

impl Invariant {
    /// As the metric's label has it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.shard, self.invariant.name(), self.about)
    }
}
