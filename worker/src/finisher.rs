//! Writes the outcomes of runs in batches: to the ledger first, then to the index.
//!
//! Invariant: no outcome is lost while PostgreSQL or Redis is unavailable. A batch is retried until
//! the ledger has it, and its leases are renewed meanwhile, because they stay in [`HeldLeases`] until
//! they are settled. Outcomes of a tenant that meet a lock are set aside, so those of other tenants
//! are written: see `finisher/aside.rs`.

mod aside;

use std::{fmt::Display, sync::Arc, time::Duration};

use foldhash::{HashMap, HashMapExt as _};
use futures::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use shared::{
    db::{self, Kept, SystemDb},
    faults::{self, Point},
    queue::{
        Index, Settlement, Shard,
        complete::{Finish, Outcome, Recorded, Recording, Records},
        dispatch::Lease,
        ledger::relations::hooks,
        ledger::webhooks::{self, Watchers},
    },
    tenancy::TenantId,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::aside::Aside;
use crate::{
    ends::{Ends, Entered},
    held_leases::HeldLeases,
};

const PAUSE: Duration = Duration::from_millis(100);
/// Pause before an outcome whose statement timed out is retried.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Batches per class that are written to the ledger at the same time.
const WRITERS: usize = 2;
/// Batches per class in progress: being written, or being settled in the index, which does not
/// delay the next write.
const UNDER_WAY: usize = 4;
/// Tenants whose outcomes are written at the same time after a batch met a lock.
const PARTS: usize = 3;
/// Shortest time between the starts of two batches that are not full.
const PACE: Duration = Duration::from_millis(3);
/// The same after a batch of at least [`MANY`]: each batch costs the ledger a commit, and no caller
/// waits for single outcomes at that rate.
const PACE_OF_MANY: Duration = Duration::from_millis(12);
const MANY: usize = 150;
/// Weight in bytes that webhooks add to an outcome in its batch: such an outcome inserts two rows
/// per endpoint of its tenant.
const WEIGHT_OF_WATCHED: usize = 4 * 1024;

/// A finished run.
pub struct Ended {
    /// The lease.
    pub lease: Arc<Lease>,
    /// The outcome; `None` releases the job as if it had not been fetched.
    pub outcome: Option<Outcome>,
    /// Worker time used.
    pub ran: Duration,
}

/// Accepts the outcomes of runs. Cheap to clone.
#[derive(Clone)]
pub struct Finisher {
    writing: Arc<Writing>,
    /// The writers end when all clones are dropped.
    _open: Arc<DropGuard>,
}

/// A finished run with its follow-up flags, including those of the webhooks.
type WithHooks = (Ended, i16);

/// State shared by the writers.
struct Writing {
    ledger: Kept,
    index: Index,
    watchers: Watchers,
    held_leases: HeldLeases,
    /// Outcomes without follow-up work: one statement for many tenants.
    plain: Ends<WithHooks>,
    /// Outcomes with follow-up work, which may touch any number of rows: one transaction per
    /// tenant.
    followed: Ends<WithHooks>,
    /// Outcomes whose rows are locked.
    aside: Aside,
}

impl Finisher {
    /// Starts the writers. They overlap, so one fills a batch while another waits for the disk. The
    /// handle completes when every clone is dropped and everything is written.
    pub fn start(
        db: &SystemDb,
        index: Index,
        watchers: Watchers,
        held_leases: HeldLeases,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let ledger = Kept::new(db, WRITERS);
        let (plain, followed) = (Ends::shared(), Ends::apart());
        let aside = Aside::default();
        let writing = Arc::new(Writing { ledger, index, watchers, held_leases, plain, followed, aside });
        let closed = CancellationToken::new();
        let finisher = Self { writing: Arc::clone(&writing), _open: Arc::new(closed.clone().drop_guard()) };
        let writer = tokio::spawn(async move {
            join(
                write_all(&writing, |writing| &writing.plain, &closed),
                write_all(&writing, |writing| &writing.followed, &closed),
            )
            .await;
        });
        (finisher, writer)
    }

    /// Queues the outcome of a run for writing.
    pub fn ended(&self, ended: Ended) -> Entered {
        let Writing { watchers, plain, followed, .. } = &*self.writing;
        let Lease { hooks, tenant, ref kind, .. } = *ended.lease;
        let watched = if webhooks::may_be_told(watchers, tenant, kind) { hooks::WEBHOOKS } else { 0 };
        let (hooks, bytes) = (hooks | watched, ended.outcome.as_ref().map_or(0, Outcome::bytes));
        let is_followed = hooks != 0 && ended.outcome.as_ref().is_some_and(Outcome::is_final);
        if !is_followed {
            return plain.enter(tenant, (ended, hooks), bytes);
        }
        let weight = if hooks & hooks::WEBHOOKS == 0 { bytes } else { bytes + WEIGHT_OF_WATCHED };
        followed.enter(tenant, (ended, hooks), weight)
    }
}

/// Writes the outcomes of one class until all senders are closed.
async fn write_all(writing: &Arc<Writing>, class: fn(&Writing) -> &Ends<WithHooks>, closed: &CancellationToken) {
    let (slots, mut writers) = (Arc::new(Semaphore::new(WRITERS)), JoinSet::new());
    let (ends, mut pace) = (class(writing), Instant::now());
    loop {
        while writers.len() >= UNDER_WAY {
            writers.join_next().await;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        gather(ends, pace).await;
        let (tenant, batch) = ends.take();
        if batch.is_empty() {
            drop(slot);
            if closed.run_until_cancelled(ends.changed()).await.is_some() || !ends.is_empty() {
                // After the close, the remaining outcomes wait for another batch of their tenant:
                // continue when a writer has finished.
                if closed.is_cancelled() {
                    writers.join_next().await;
                }
                continue;
            }
            break;
        }
        pace = Instant::now() + if batch.len() < MANY { PACE } else { PACE_OF_MANY };
        let writing = Arc::clone(writing);
        writers.spawn(async move {
            let batch = Aside::divert(&writing, batch);
            if !batch.is_empty() {
                write(&writing, batch, Some(slot)).await;
            }
            if let Some(tenant) = tenant {
                class(&writing).written(tenant);
            }
        });
        while writers.try_join_next().is_some() {}
    }
    while writers.join_next().await.is_some() {}
}

/// Waits for more outcomes until `until`, so a busy worker writes few large batches. A single
/// outcome is written at once.
async fn gather(ends: &Ends<WithHooks>, until: Instant) {
    while !ends.is_empty() && !ends.fills_a_batch() && timeout_at(until, ends.changed()).await.is_ok() {}
}

/// Writes outcomes to the ledger, releases the writer permit, and settles the leases in the index.
/// Returns how many outcomes met a lock and were set aside.
async fn write(writing: &Arc<Writing>, batch: Vec<WithHooks>, slot: Option<OwnedSemaphorePermit>) -> usize {
    let Writing { ledger, index, held_leases, .. } = &**writing;
    let tenants = batch.iter().map(|(ended, _)| (ended.lease.id, ended.lease.tenant)).collect();
    let finish = |(ended, hooks): &WithHooks| {
        let Lease { id, attempt, .. } = *ended.lease;
        Some(Finish { id, attempt, hooks: *hooks, outcome: ended.outcome.clone()? })
    };
    let finishes: Vec<Finish> = batch.iter().filter_map(finish).collect();
    let Tried { records: Records { recorded, follow_up }, slow, locked } =
        record_patiently(ledger, Recording::of(&finishes), &tenants).await;
    drop(slot);
    faults::pass(Point::AfterLedgerBeforeSettle).await;
    let mut by_shard: HashMap<&Shard, Vec<Settlement>> = HashMap::new();
    for (ended, _) in &batch {
        if let Some(settlement) = ended.settlement(&recorded) {
            by_shard.entry(&ended.lease.shard).or_default().push(settlement);
        }
    }
    held_leases.settles(by_shard.values().flatten().map(|settlement| (settlement.id, settlement.token)));
    let settle = async |(shard, settlements): (&Shard, Vec<Settlement>)| {
        if let Err(error) = index.settle(shard, &settlements).await {
            // The lease will expire; the rescuer then finds the row final, or waiting with its next
            // attempt.
            tracing::debug!(%shard, %error, "could not settle leases");
        }
    };
    join_all(by_shard.into_iter().map(settle)).await;
    follow_up.announce(index).await;
    let mut done = Vec::with_capacity(batch.len());
    for (ended, hooks) in batch {
        if slow.contains(&ended.lease.id) {
            write_later(Arc::clone(writing), (ended, hooks));
        } else if locked.contains(&ended.lease.id) {
            Aside::put(writing, (ended, hooks));
        } else {
            done.push((ended.lease.id, ended.lease.token));
        }
    }
    held_leases.leave(done);
    locked.len()
}

/// Retries an outcome that timed out, separately from the batches; its lease is renewed meanwhile.
/// A stopping worker does not wait for it: the lease expires, and the job is rescued.
fn write_later(writing: Arc<Writing>, ended: WithHooks) {
    tokio::spawn(async move {
        sleep(SLOW_PAUSE).await;
        write(&writing, vec![ended], None).await;
    });
}

/// The result of writing a batch.
#[derive(Default)]
struct Tried {
    records: Records,
    /// Jobs whose outcome exceeded the statement timeout although it was written alone.
    slow: Vec<Uuid>,
    /// Jobs whose outcome met a lock of another transaction.
    locked: Vec<Uuid>,
}

impl Tried {
    fn of(records: Records) -> Self {
        Self { records, ..Self::default() }
    }

    fn extend(&mut self, other: Self) {
        self.records.extend(other.records);
        self.slow.extend(other.slow);
        self.locked.extend(other.locked);
    }
}

/// Retries while the ledger is unavailable: the work is done, and only this process knows the
/// outcomes. If the ledger rejects a batch for another reason, the outcomes are written one by one,
/// so that the rejected one does not block the others. Its lease expires, and the job is rescued.
async fn record_patiently(ledger: &Kept, mut recording: Recording<'_>, tenants: &HashMap<Uuid, TenantId>) -> Tried {
    let mut told = false;
    loop {
        match recording.advance(ledger).await {
            Ok(()) => return Tried::of(recording.apart().0),
            Err(error) if db::is_lock_held(&error) => return record_by_tenant(ledger, recording, tenants).await,
            Err(error) if db::is_timed_out(&error) => {
                return record_apart(ledger, recording, tenants, db::sql_state(&error), true).await;
            }
            Err(error) if db::is_unavailable(&error) => {
                if !told {
                    tracing::warn!(
                        error = db::sql_state(&error),
                        "cannot write outcomes; retrying until the ledger is available"
                    );
                    told = true;
                }
                sleep(PAUSE).await;
            }
            Err(error) => return record_apart(ledger, recording, tenants, db::sql_state(&error), false).await,
        }
    }
}

/// Writes the outcomes of each tenant separately, after a batch met a lock that one of the tenants
/// may hold.
async fn record_by_tenant(ledger: &Kept, recording: Recording<'_>, tenants: &HashMap<Uuid, TenantId>) -> Tried {
    let (records, mut parts) = recording.apart_by(|id| tenants.get(&id).copied());
    let mut all = Tried::of(records);
    if parts.len() == 1 {
        all.extend(record_unlocked(ledger, parts.remove(0)).await);
        return all;
    }
    let mut tries = Vec::with_capacity(parts.len());
    for part in parts {
        tries.push(Box::pin(record_patiently(ledger, part, tenants)));
    }
    let mut tried = stream::iter(tries).buffer_unordered(PARTS);
    while let Some(part) = tried.next().await {
        all.extend(part);
    }
    all
}

/// Retries the outcomes of one tenant once, without those that meet a lock.
async fn record_unlocked(ledger: &Kept, mut part: Recording<'_>) -> Tried {
    let mut locked = match part.take_locked(ledger).await {
        Ok(locked) => locked,
        Err(error) => {
            tracing::debug!(error = db::sql_state(&error), "could not find out which rows are locked");
            Vec::new()
        }
    };
    if let Err(error) = part.advance(ledger).await {
        tracing::debug!(error = db::sql_state(&error), "outcomes of a tenant met a lock; writing them later");
        locked.extend(part.open());
    }
    Tried { locked, ..Tried::of(part.apart().0) }
}

async fn record_apart(
    ledger: &Kept,
    recording: Recording<'_>,
    tenants: &HashMap<Uuid, TenantId>,
    error: impl Display,
    timed_out: bool,
) -> Tried {
    let (records, mut open) = recording.apart();
    let mut all = Tried::of(records);
    if open.len() == 1 {
        let alone: Vec<Uuid> = open.remove(0).open().collect();
        tracing::error!(job_id = ?alone, %error, timed_out, "cannot write the outcome of a job");
        all.slow.extend(alone.into_iter().filter(|_| timed_out));
        return all;
    }
    for alone in open {
        all.extend(Box::pin(record_patiently(ledger, alone, tenants)).await);
    }
    all
}

impl Ended {
    fn settlement(&self, recorded: &HashMap<Uuid, Recorded>) -> Option<Settlement> {
        if self.outcome.is_none() {
            // Cancelled, but the time used is charged: otherwise cancelling long runs would be a
            // way to run jobs for free.
            let ran = (!self.ran.is_zero()).then_some(self.ran);
            return Some(Settlement { ran, ..self.lease.release() });
        }
        let again = match recorded.get(&self.lease.id)? {
            Recorded::Final | Recorded::RefusedFinal => None,
            Recorded::Again(run_at_ms, priority) => Some((*run_at_ms, *priority)),
            // The job and its lease belong to another worker now.
            Recorded::RefusedOvertaken => return None,
        };
        Some(Settlement { id: self.lease.id, token: self.lease.token, ran: Some(self.ran), again })
    }
}
