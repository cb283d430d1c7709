//! Runs one job at a time per slot, on the handlers' runtime: resolve the kind, run the handler,
//! pass the outcome to the completer. A job of an unknown kind is left to another worker: see
//! `run/unknown_kind.rs`.
//!
//! Invariant: whatever a handler does (fail, panic, time out, block its thread), leases are
//! renewed, outcomes are written and health checks are answered, because all of that runs on
//! another runtime with its own connections. That runtime can release a job that has not started at
//! any time: see [`Executor::release_unstarted`]. Only the death of the process stops all of that;
//! then the leases expire.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{Lease, complete::Outcome, repair::rescue},
};
use tokio::{
    runtime::Handle,
    task::{coop::consume_budget, yield_now},
    time::sleep,
};
use tracing::Instrument as _;

use super::{
    completer::Completer,
    handlers::Handlers,
    unknown_kind::{self, REQUEUE_TIME},
};
use crate::{
    capacity::slots::Slot,
    fetch::{in_flight::InFlight, permits::FetchPermit},
    lease::quarantine::{self, ExclusiveRun},
    process::Process,
};

/// A prefetched job that has waited this long for a slot is released: the current jobs run longer
/// than the previous ones, and another worker may be idle.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// While no job may start, jobs that were leased meanwhile are released at this interval.
const RELEASE_INTERVAL: Duration = Duration::from_millis(20);
/// After this much time in runs, a slot yields its thread to other tasks: runs in progress need the
/// thread a few times, for each message that they send or receive.
const YIELD_INTERVAL: Duration = Duration::from_micros(250);

/// Runs jobs. One per process.
pub(crate) struct Executor {
    pub process: Process,
    pub handlers: Handlers,
    /// The runtime on which `system` and the index have their connections.
    pub control: Handle,
    pub completer: Arc<Completer>,
    /// Records exclusive runs in the ledger.
    pub system: SystemDb,
}

/// Permission to run a job, until it is dropped.
struct Admission<'a> {
    /// Other jobs may run at the same time if this is `None`.
    _exclusive: Option<ExclusiveRun<'a>>,
}

impl Executor {
    /// Starts leased jobs, each as soon as a slot is free for it.
    pub fn start(self: &Arc<Self>, jobs: Vec<InFlight>) {
        for job in jobs {
            self.enter(job);
        }
    }

    fn enter(self: &Arc<Self>, mut job: InFlight) {
        if self.process.is_closed() {
            return self.release(job);
        }
        // Reserved permits are for tenants that are newly active in this worker. If the tenant has
        // most of the slots, free the permit for others while the job waits.
        let Process { budget, slots, .. } = &self.process;
        if !job.permit.is_of(budget) && slots.has_most(job.lease.tenant) {
            job.permit.free();
        }
        if let Some(slot) = slots.enter(job.lease.tenant, job) {
            self.fill(slot);
        }
    }

    /// Fills slots that could not be filled at once. Never returns.
    pub async fn fill_slots(self: &Arc<Self>) {
        loop {
            let slot = self.process.slots.due().await;
            self.fill(slot);
        }
    }

    /// Runs one job after the other in a slot, as a task on the handlers' runtime. So runs use all
    /// processors, and a run that blocks does not stop the others.
    fn fill(self: &Arc<Self>, slot: Slot<InFlight>) {
        let executor = Arc::clone(self);
        self.process.handlers.handle.spawn(async move {
            let mut began = Instant::now();
            for job in slot {
                let Lease { id, tenant, ref kind, attempt, .. } = *job.lease;
                let span = tracing::info_span!("job", job_id = %id, %tenant, kind, attempt);
                executor.run(job).instrument(span).await;
                if began.elapsed() < YIELD_INTERVAL {
                    consume_budget().await;
                } else {
                    yield_now().await;
                    began = Instant::now();
                }
            }
        });
    }

    /// Runs a leased job and passes its outcome to the completer.
    async fn run(&self, job: InFlight) {
        let kind = match unknown_kind::resolve(self.handlers.registry(), &job.lease) {
            Ok(kind) => kind,
            Err(reason) => return self.requeue(job, reason).await,
        };
        let Some(admission) = self.admit(&job).await else { return self.release(job) };
        if !self.is_own(&job.lease).await {
            return self.release(job);
        }
        let (InFlight { lease, cancelled, permit }, Process { held_leases, budget, .. }) = (job, &self.process);
        if !held_leases.begin(lease.id, lease.token) {
            return;
        }
        let (outcome, ran) = self.handlers.run(kind, &lease, cancelled).await;
        held_leases.end(lease.id, lease.token);
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        budget.observe(ran);
        permit.observe(ran);
        self.complete(lease, outcome, ran, permit);
        drop(admission);
    }

    /// A reserved permit goes to the next newly active tenant at once, however many outcomes of
    /// this tenant wait.
    fn complete(&self, lease: Arc<Lease>, outcome: Option<Outcome>, ran: Duration, permit: FetchPermit) {
        let held = Some(permit).filter(|permit| permit.is_of(&self.process.budget));
        self.completer.complete(lease, outcome, ran, held);
    }

    /// Requeues a job for a worker of another release.
    async fn requeue(&self, InFlight { lease, permit, .. }: InFlight, reason: &'static str) {
        crate::metrics::left(&lease, reason);
        sleep(REQUEUE_TIME).await;
        if self.process.held_leases.release(lease.id, lease.token) {
            let lease = unknown_kind::requeued(&lease, &self.process.clock).into();
            self.complete(lease, None, REQUEUE_TIME, permit);
        }
    }

    /// Releases a job, unless it has started or is already released.
    fn release(&self, InFlight { lease, permit, .. }: InFlight) {
        if self.process.held_leases.release(lease.id, lease.token) {
            self.complete(lease, None, Duration::ZERO, permit);
        }
    }

    /// Whether this process still holds the job's lease. Costs nothing unless the job waited, or
    /// the process stood still, for long.
    async fn is_own(&self, lease: &Arc<Lease>) -> bool {
        if lease.is_young() {
            return true;
        }
        let (lease, index) = (Arc::clone(lease), self.process.index.clone());
        // The task only fails when its runtime shuts down, and then no run may start.
        let renewed = self.control.spawn(async move { lease.is_own(&index).await }).await;
        renewed.is_ok_and(|renewed| {
            renewed.unwrap_or_else(|error| {
                tracing::debug!(%error, "could not renew the lease; the run does not start");
                false
            })
        })
    }

    /// Admits a run. `None` if the job was cancelled, must be released for another exclusive run, or
    /// cannot start its own.
    async fn admit(&self, job: &InFlight) -> Option<Admission<'_>> {
        if job.lease.crashes < quarantine::CRASHES {
            return (!job.cancelled.is_cancelled() && !self.process.is_closed())
                .then_some(Admission { _exclusive: None });
        }
        // Boxed: every run moves its future, and this rare part would enlarge it.
        let exclusive = Box::pin(job.cancelled.run_until_cancelled(self.quarantine(&job.lease))).await.flatten();
        exclusive.map(|exclusive| Admission { _exclusive: Some(exclusive) })
    }

    async fn quarantine(&self, lease: &Arc<Lease>) -> Option<ExclusiveRun<'_>> {
        let exclusive = self.process.quarantine.alone(&self.process.held_leases).await?;
        let (lease, system) = (Arc::clone(lease), self.system.clone());
        let begun = self.control.spawn(async move { rescue::begin_quarantine(&system, &lease).await }).await;
        match begun.ok()? {
            Ok(begun) => begun.then_some(exclusive),
            Err(error) => {
                tracing::warn!(error = sql_state(&error), "could not record the exclusive run; it does not start");
                None
            }
        }
    }

    /// Releases jobs that may not start here, or have waited too long. Never returns. Call it on
    /// another runtime than that of the handlers.
    pub async fn release_unstarted(&self) {
        let Process { slots, budget, held_leases, handlers, .. } = &self.process;
        loop {
            let waited = tokio::select! {
                () = self.process.closed() => slots.take_out(),
                () = sleep(LONGEST_WAIT / 5) => slots.take_out_after(LONGEST_WAIT),
            };
            if !waited.is_empty() && !self.process.is_closed() {
                budget.observe_wait(LONGEST_WAIT);
            }
            for job in waited {
                self.release(job);
            }
            if handlers.is_stalled() {
                // These jobs have a slot, but no thread.
                for lease in held_leases.release_all_waiting() {
                    self.completer.complete(lease, None, Duration::ZERO, None);
                }
            }
            sleep(RELEASE_INTERVAL).await;
        }
    }
}
