//! Completes runs in batches: outcomes are written to the ledger, then leases are settled in the
//! index.
//!
//! Invariant: no outcome is lost while PostgreSQL or Redis is unavailable. A batch is retried until
//! the ledger has it, and its leases are renewed meanwhile, because they stay in [`HeldLeases`] until
//! they are settled. Outcomes of a tenant that meet a lock are set aside, so those of other tenants
//! are written.
//!
//! Next: `completer/recording.rs` for the retries, `completer/set_aside.rs` for locked rows,
//! [`shared::queue::complete`] for the ledger and the index.

mod outcome_queue;
mod recording;
mod set_aside;

use std::{sync::Arc, time::Duration};

use futures::future::join;
use shared::{
    db::{PinnedConnections, SystemDb},
    faults::{self, Point},
    queue::{
        Index, Lease,
        complete::{self, Finish, Outcome, Recorded},
        ledger::relations::follow_up_flags,
        ledger::webhooks::{self, Watchers},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{outcome_queue::OutcomeQueue, set_aside::SetAside};
use crate::{fetch::permits::FetchPermit, lease::held_leases::HeldLeases};

/// Pause before an outcome whose statement timed out is retried.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Batches per class that are written to the ledger at the same time.
const WRITERS: usize = 2;
/// Batches per class in progress: being written, or being settled in the index, which does not
/// delay the next write.
const UNDER_WAY: usize = 4;
/// Shortest time between the starts of two batches that are not full.
const PACE: Duration = Duration::from_millis(3);
/// The same after a batch of at least [`MANY`]: each batch costs the ledger a commit, and no caller
/// waits for single outcomes at that rate.
const PACE_OF_MANY: Duration = Duration::from_millis(12);
const MANY: usize = 150;
/// Weight in bytes that webhooks add to an outcome in its batch: such an outcome inserts two rows
/// per endpoint of its tenant.
const WEIGHT_OF_WATCHED: usize = 4 * 1024;

/// Accepts the outcomes of runs, and writes them.
pub struct Completer {
    ledger: PinnedConnections,
    index: Index,
    watchers: Watchers,
    held_leases: HeldLeases,
    /// Outcomes without follow-up work: one statement for many tenants.
    plain: OutcomeQueue<Finish, FetchPermit>,
    /// Outcomes with follow-up work, which may touch any number of rows: one transaction per
    /// tenant.
    followed: OutcomeQueue<Finish, FetchPermit>,
    /// Outcomes whose rows are locked.
    set_aside: SetAside,
    /// No more outcomes follow.
    closed: CancellationToken,
}

impl Completer {
    /// Starts the writers. They overlap, so one fills a batch while another waits for the disk. The
    /// handle completes when the completer is closed and everything is written.
    pub fn start(
        db: &SystemDb,
        index: Index,
        watchers: Watchers,
        held_leases: HeldLeases,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let completer = Arc::new(Self {
            ledger: PinnedConnections::new(db, WRITERS),
            index,
            watchers,
            held_leases,
            plain: OutcomeQueue::shared(),
            followed: OutcomeQueue::by_tenant(),
            set_aside: SetAside::default(),
            closed: CancellationToken::new(),
        });
        let writing = Arc::clone(&completer);
        let writer = tokio::spawn(async move {
            join(write_all(&writing, |writing| &writing.plain), write_all(&writing, |writing| &writing.followed)).await;
        });
        (completer, writer)
    }

    /// Announces that no more outcomes follow.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Queues the end of a run for writing; `None` as outcome releases the job. The permit is held
    /// until then if many outcomes wait.
    pub fn complete(&self, lease: Arc<Lease>, outcome: Option<Outcome>, ran: Duration, permit: Option<FetchPermit>) {
        let Self { watchers, plain, followed, .. } = self;
        let Lease { tenant, ref kind, .. } = *lease;
        let watched = if webhooks::may_raise(watchers, tenant, kind) { follow_up_flags::WEBHOOKS } else { 0 };
        let (follow_up_flags, bytes) = (lease.follow_up_flags | watched, outcome.as_ref().map_or(0, Outcome::bytes));
        let is_followed = follow_up_flags != 0 && outcome.as_ref().is_some_and(Outcome::is_final);
        let weight = if is_followed && watched != 0 { bytes + WEIGHT_OF_WATCHED } else { bytes };
        let queue = if is_followed { followed } else { plain };
        queue.push(tenant, Finish { lease, outcome, ran, follow_up_flags }, weight, permit);
    }
}

/// Writes the outcomes of one class until the completer is closed.
async fn write_all(completer: &Arc<Completer>, class: fn(&Completer) -> &OutcomeQueue<Finish, FetchPermit>) {
    let (slots, mut writers) = (Arc::new(Semaphore::new(WRITERS)), JoinSet::new());
    let (queue, mut pace) = (class(completer), Instant::now());
    loop {
        while writers.len() >= UNDER_WAY {
            writers.join_next().await;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        gather(queue, pace).await;
        let (tenant, batch) = queue.take();
        if batch.is_empty() {
            drop(slot);
            if completer.closed.run_until_cancelled(queue.changed()).await.is_some() || !queue.is_empty() {
                // After the close, the remaining outcomes wait for another batch of their tenant:
                // continue when a writer has finished.
                if completer.closed.is_cancelled() {
                    writers.join_next().await;
                }
                continue;
            }
            break;
        }
        pace = Instant::now() + if batch.len() < MANY { PACE } else { PACE_OF_MANY };
        let completer = Arc::clone(completer);
        writers.spawn(async move {
            let batch = SetAside::divert(&completer, batch);
            if !batch.is_empty() {
                write(&completer, batch, Some(slot)).await;
            }
            if let Some(tenant) = tenant {
                class(&completer).written(tenant);
            }
        });
        while writers.try_join_next().is_some() {}
    }
    while writers.join_next().await.is_some() {}
}

/// Waits for more outcomes until `until`, so a busy worker writes few large batches. A single
/// outcome is written at once.
async fn gather(queue: &OutcomeQueue<Finish, FetchPermit>, until: Instant) {
    while !queue.is_empty() && !queue.fills_a_batch() && timeout_at(until, queue.changed()).await.is_ok() {}
}

/// Writes outcomes to the ledger, releases the writer permit, and settles the leases in the index.
/// Returns how many outcomes met a lock and were set aside.
async fn write(completer: &Arc<Completer>, batch: Vec<Finish>, slot: Option<OwnedSemaphorePermit>) -> usize {
    let Completer { ledger, index, held_leases, .. } = &**completer;
    let records = recording::record(ledger, &batch).await;
    drop(slot);
    faults::pass(Point::AfterLedgerBeforeSettle).await;
    let settlements = complete::settlements(&batch, &records);
    held_leases.mark_settling(
        settlements.iter().flat_map(|(_, part)| part).map(|settlement| (settlement.id, settlement.token)),
    );
    if let Err(error) = complete::settle(index, settlements, &records.follow_up).await {
        tracing::debug!(%error, "could not settle leases; they will expire");
    }
    let (mut done, mut locked) = (Vec::with_capacity(batch.len()), 0);
    for finish in batch {
        match records.recorded.get(&finish.lease.id) {
            Some(Recorded::TimedOut) => write_later(Arc::clone(completer), finish),
            Some(Recorded::Locked) => {
                locked += 1;
                SetAside::put(completer, finish);
            }
            _ => done.push((finish.lease.id, finish.lease.token)),
        }
    }
    held_leases.remove(done);
    locked
}

/// Retries an outcome that timed out, separately from the batches; its lease is renewed meanwhile.
/// A stopping worker does not wait for it: the lease expires, and the job is rescued.
fn write_later(completer: Arc<Completer>, finish: Finish) {
    tokio::spawn(async move {
        sleep(SLOW_PAUSE).await;
        write(&completer, vec![finish], None).await;
    });
}
