//! Compares the waiting jobs of the index with those of the ledger.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::sleep;
use uuid::Uuid;

use super::{Checker, Extent, Findings, Invariant};
use crate::{
    clock::Clock,
    queue::{
        QueueName, Shard, WaitingJob,
        index::{CheckMode, Member},
        repair::reconcile::ReconcileError,
    },
    tenancy::TenantId,
};

/// A push in transit for longer than this after its commit counts as drift.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(1_500);
/// Maximum number of comparisons. They continue while each finds fewer missing jobs than the
/// previous one: a backlog submitted faster than it can be pushed is in transit for longer.
const LOOKS: usize = 40;
/// Pages of the ledger in a sample.
const SAMPLED_PAGES: usize = 2;
/// A job due later than this may still be missing from the index, given the promoter's interval and
/// clock differences.
const NEAR_MS: i64 = 30_000;
/// Jobs per call.
const AT_ONCE: usize = 250;

/// Waiting jobs in the ledger.
#[derive(Default)]
struct Waiting {
    all: HashSet<Uuid>,
    near: HashMap<Uuid, WaitingJob>,
    next: Option<Uuid>,
}

impl Checker {
    pub(super) async fn check_ledger(
        &mut self,
        queue: &QueueName,
        extent: Extent,
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let from = match extent {
            Extent::Whole => Uuid::nil(),
            Extent::Sample => self.cursors.get(queue).copied().unwrap_or_default(),
        };
        let waiting = self.waiting(queue, from, Uuid::max(), extent).await?;
        if extent == Extent::Sample {
            self.cursors.insert(queue.clone(), waiting.next.unwrap_or_default());
        }
        self.check_tenants(queue, &waiting, mode, found).await?;
        let missing = self.missing(queue, waiting.near.values(), mode).await?;
        let unknown: Vec<Member> = match extent {
            Extent::Whole => found.indexed.iter().filter(|(id, _)| !waiting.all.contains(id)).copied().collect(),
            Extent::Sample => Vec::new(),
        };
        if missing.is_empty() && unknown.is_empty() {
            return Ok(());
        }
        self.recheck(queue, missing, &unknown, mode, found).await
    }

    async fn recheck(
        &self,
        queue: &QueueName,
        mut missing: Vec<Member>,
        unknown: &[Member],
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let suspects = || missing.iter().chain(unknown).map(|(id, _)| *id);
        let (Some(first), Some(last)) = (suspects().min(), suspects().max()) else { return Ok(()) };
        let before = Uuid::from_u128(first.as_u128().saturating_sub(1));
        let mut waiting = Waiting::default();
        for _ in 0..LOOKS {
            sleep(UNDER_WAY).await;
            waiting = self.waiting(queue, before, last, Extent::Whole).await?;
            let open = missing.iter().filter_map(|(id, _)| waiting.near.get(id));
            let still = self.missing(queue, open, mode).await?;
            let is_under_way = still.len() < missing.len();
            missing = still;
            if missing.is_empty() || !is_under_way {
                break;
            }
        }
        for (id, tenant) in &missing {
            found.one(&self.index.shard_of(queue, *tenant), Invariant::NotInIndex, id.to_string());
        }
        if mode.repairs {
            let lost: Vec<WaitingJob> = missing.iter().filter_map(|(id, _)| waiting.near.get(id)).copied().collect();
            self.index.push(queue, &lost).await?;
        }
        let gone: Vec<Member> = unknown.iter().filter(|(id, _)| !waiting.all.contains(id)).copied().collect();
        let stale = self.left(queue, gone, mode).await?;
        self.forget(queue, &stale, mode, found).await
    }

    /// Reports jobs that wait in the index and not in the ledger; a repair removes them.
    pub(super) async fn forget(
        &self,
        queue: &QueueName,
        stale: &[Member],
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        for (id, tenant) in stale {
            let shard = self.index.shard_of(queue, *tenant);
            found.one(&shard, Invariant::NotWaiting, id.to_string());
            if mode.repairs {
                let arguments = [id.as_bytes().as_slice(), tenant.as_uuid().as_bytes()];
                self.index.check_page(&shard, "forget", mode, 0, &arguments).await?;
            }
        }
        Ok(())
    }

    /// Checks that tenants with jobs in their flows are active or throttled.
    async fn check_tenants(
        &self,
        queue: &QueueName,
        waiting: &Waiting,
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let tenants: HashSet<TenantId> = waiting.near.values().map(|job| job.tenant).collect();
        for shard in self.index.shards(queue) {
            let here: Vec<TenantId> = tenants.iter().copied().filter(|tenant| shard.holds(*tenant)).collect();
            for chunk in here.chunks(AT_ONCE) {
                let arguments: Vec<&[u8]> = chunk.iter().map(|tenant| tenant.as_uuid().as_bytes().as_slice()).collect();
                let page = self.index.check_page(&shard, "tenants", mode, 0, &arguments).await?;
                found.add(&shard, page.broken);
            }
        }
        Ok(())
    }

    async fn missing(
        &self,
        queue: &QueueName,
        jobs: impl Iterator<Item = &WaitingJob>,
        mode: CheckMode,
    ) -> Result<Vec<Member>, ReconcileError> {
        let members: Vec<Member> = jobs.map(|job| (job.id, job.tenant)).collect();
        self.absent(queue, &members, mode).await
    }

    /// Returns the jobs that the index still has.
    pub(super) async fn left(
        &self,
        queue: &QueueName,
        members: Vec<Member>,
        mode: CheckMode,
    ) -> Result<Vec<Member>, ReconcileError> {
        let absent: HashSet<Member> = self.absent(queue, &members, mode).await?.into_iter().collect();
        Ok(members.into_iter().filter(|member| !absent.contains(member)).collect())
    }

    /// Returns the jobs that the index does not have.
    async fn absent(
        &self,
        queue: &QueueName,
        members: &[Member],
        mode: CheckMode,
    ) -> Result<Vec<Member>, ReconcileError> {
        let mut absent = Vec::new();
        let mut by_shard: HashMap<Shard, Vec<Member>> = HashMap::new();
        for member in members {
            by_shard.entry(self.index.shard_of(queue, member.1)).or_default().push(*member);
        }
        for (shard, members) in by_shard {
            for chunk in members.chunks(AT_ONCE) {
                let pairs = chunk.iter().map(|(id, tenant)| [id.as_bytes().as_slice(), tenant.as_uuid().as_bytes()]);
                let arguments: Vec<&[u8]> = pairs.flatten().collect();
                absent.extend(self.index.check_page(&shard, "jobs", mode, 0, &arguments).await?.seen);
            }
        }
        Ok(absent)
    }

    async fn waiting(
        &self,
        queue: &QueueName,
        after: Uuid,
        until: Uuid,
        extent: Extent,
    ) -> Result<Waiting, ReconcileError> {
        let near_until = Clock::system().now_ms() + NEAR_MS;
        let (mut waiting, mut cursor) = (Waiting::default(), after);
        for number in 1.. {
            let page = self.reconciler.page(queue, cursor, until).await?;
            let near = page.jobs.iter().filter(|job| job.run_at_ms.is_none_or(|at| at <= near_until));
            waiting.near.extend(near.map(|job| (job.id, *job)));
            waiting.all.extend(page.jobs.iter().map(|job| job.id));
            waiting.next = page.next;
            match page.next {
                Some(next) if extent == Extent::Whole || number < SAMPLED_PAGES => cursor = next,
                _ => break,
            }
        }
        Ok(waiting)
    }
}
