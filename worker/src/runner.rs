//! Runs one job at a time per slot, on the handlers' runtime: resolve the kind, run the handler,
//! pass the outcome to the finisher. A job of an unknown kind is left to another worker: see
//! [`skew`].
//!
//! Invariant: whatever a handler does (fail, panic, time out, block its thread), leases are
//! renewed, outcomes are written and health checks are answered, because all of that runs on
//! another runtime with its own connections. That runtime can release a job that has not started at
//! any time: see [`Runner::release_unstarted`]. Only the death of the process stops all of that;
//! then the leases expire.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{Index, dispatch::Lease, repair::rescue},
};
use tokio::{
    runtime::Handle,
    task::{coop::consume_budget, yield_now},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    capacity::Capacity,
    ends::Entered,
    fetcher::Dispatch,
    finisher::{Ended, Finisher},
    handlers::{Attempt, HandlerRuntime, Handlers},
    held_leases::HeldLeases,
    places::Place,
    quarantine::{self, ExclusiveRun, Quarantine},
    skew,
    slots::{Slot, Slots},
};

/// A prefetched job that has waited this long for a slot is released: the current jobs run longer
/// than the previous ones, and another worker may be idle.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// While no job may start, jobs that were leased meanwhile are released at this interval.
const RELEASE_INTERVAL: Duration = Duration::from_millis(20);
/// After this much time in runs, a slot yields its thread to other tasks: runs in progress need the
/// thread a few times, for each message that they send or receive.
const TURN: Duration = Duration::from_micros(250);

/// Runs jobs. One per process.
pub struct Runner {
    /// The handlers of the job kinds.
    pub handlers: Handlers,
    /// The runtime of the runs.
    pub runtime: HandlerRuntime,
    /// The runtime on which `system` and `index` have their connections.
    pub control: Handle,
    /// The fetch permits, adjusted to the run times.
    pub capacity: Arc<Capacity>,
    /// Determines the next job to start.
    pub slots: Slots<Dispatch>,
    /// The held leases.
    pub held_leases: HeldLeases,
    /// Accepts outcomes.
    pub finisher: Finisher,
    /// Exclusive runs, for which all other jobs are released.
    pub quarantine: Quarantine,
    /// Records exclusive runs in the ledger.
    pub system: SystemDb,
    /// Verifies that an old lease is still held by this process.
    pub index: Index,
    /// Once this is cancelled, jobs that have not started are released.
    pub stop: CancellationToken,
}

impl Runner {
    /// Starts leased jobs, each as soon as a slot is free for it.
    pub fn start(self: &Arc<Self>, dispatches: Vec<Dispatch>) {
        for dispatch in dispatches {
            self.enter(dispatch);
        }
    }

    fn enter(self: &Arc<Self>, mut dispatch: Dispatch) {
        if self.is_closed() {
            return self.give_back(dispatch);
        }
        // Reserved permits are for tenants that are newly active in this worker. If the tenant has
        // most of the slots, free the permit for others while the job waits.
        if !self.capacity.has(&dispatch.place) && self.slots.has_most(dispatch.lease.tenant) {
            dispatch.place.free();
        }
        if let Some(slot) = self.slots.enter(dispatch.lease.tenant, dispatch) {
            self.fill(slot);
        }
    }

    /// Fills slots that could not be filled at once. Never returns.
    pub async fn fill_slots(self: &Arc<Self>) {
        loop {
            let slot = self.slots.due().await;
            self.fill(slot);
        }
    }

    /// Runs one job after the other in a slot, as a task on the handlers' runtime. So runs use all
    /// processors, and a run that blocks does not stop the others.
    fn fill(self: &Arc<Self>, slot: Slot<Dispatch>) {
        let runner = Arc::clone(self);
        self.runtime.handle.spawn(async move {
            let mut began = Instant::now();
            for dispatch in slot {
                runner.take(dispatch).await;
                if began.elapsed() < TURN {
                    consume_budget().await;
                } else {
                    yield_now().await;
                    began = Instant::now();
                }
            }
        });
    }

    async fn take(&self, dispatch: Dispatch) {
        let Dispatch { lease, cancelled, place } = dispatch;
        let span = tracing::info_span!("job", job_id = %lease.id, tenant = %lease.tenant, kind = %lease.kind, attempt = lease.attempt);
        let Ran { ran, end } = self.run(lease, cancelled).instrument(span).await;
        if let Some(ran) = ran {
            self.capacity.observe(ran);
            place.observe(ran);
        }
        self.leave(end, place);
    }

    /// A reserved permit goes to the next newly active tenant at once, however many outcomes of
    /// this tenant wait.
    fn leave(&self, end: Option<Entered>, place: Place) {
        if let Some(end) = end.filter(|_| self.capacity.has(&place)) {
            end.keep(place);
        }
    }

    /// Runs a leased job and passes its outcome to the finisher.
    async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Ran {
        let kind = match skew::judge(self.handlers.registry(), &lease) {
            Ok(kind) => kind,
            Err(reason) => return self.put_off(lease, reason).await,
        };
        let Some(company) = self.company(&lease, &cancelled).await else { return self.release(lease) };
        if !self.is_own(&lease).await {
            return self.release(lease);
        }
        if !self.held_leases.begin(lease.id, lease.token) {
            return Ran::NOT_HERE;
        }
        let Attempt { outcome, ran } = self.handlers.attempt(kind, &lease, cancelled).await;
        self.held_leases.end(lease.id, lease.token);
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        let end = self.finisher.ended(Ended { lease, outcome, ran });
        drop(company);
        Ran { ran: Some(ran), end: Some(end) }
    }

    /// Requeues a job for a worker of another release.
    async fn put_off(&self, lease: Arc<Lease>, reason: &'static str) -> Ran {
        crate::metrics::left(&lease, reason);
        sleep(skew::TAKES).await;
        if !self.held_leases.give_up(lease.id, lease.token) {
            return Ran::NOT_HERE;
        }
        let lease = skew::put_off(&lease, &self.handlers.environment().clock).into();
        Ran { ran: None, end: Some(self.finisher.ended(Ended { lease, outcome: None, ran: skew::TAKES })) }
    }

    /// Whether this process still holds the job's lease. Costs nothing unless the job waited, or
    /// the process stood still, for long.
    async fn is_own(&self, lease: &Arc<Lease>) -> bool {
        if lease.is_young() {
            return true;
        }
        let (lease, index) = (Arc::clone(lease), self.index.clone());
        // The task only fails when its runtime shuts down, and then no run may start.
        let renewed = self.control.spawn(async move { lease.is_own(&index).await }).await;
        renewed.is_ok_and(|renewed| {
            renewed.unwrap_or_else(|error| {
                tracing::debug!(%error, "could not renew the lease; the run does not start");
                false
            })
        })
    }

    /// Admits a run, exclusive or beside others. `None` if the job was cancelled, must be released
    /// for another exclusive run, or cannot start its own.
    async fn company(&self, lease: &Arc<Lease>, cancelled: &CancellationToken) -> Option<Admission<'_>> {
        if lease.crashes < quarantine::CRASHES {
            let may_begin = !cancelled.is_cancelled() && !self.is_closed();
            return may_begin.then_some(Admission::Others);
        }
        // Boxed: every run moves its future, and this rare part would enlarge it.
        Box::pin(cancelled.run_until_cancelled(self.quarantine(lease))).await.flatten()
    }

    async fn quarantine(&self, lease: &Arc<Lease>) -> Option<Admission<'_>> {
        let alone = self.quarantine.alone(&self.held_leases).await?;
        let (lease, system) = (Arc::clone(lease), self.system.clone());
        let noted = self.control.spawn(async move { rescue::begin_quarantine(&system, &lease).await }).await;
        match noted.ok()? {
            Ok(noted) => noted.then_some(Admission::ExclusiveRun(alone)),
            Err(error) => {
                tracing::warn!(error = sql_state(&error), "could not record the exclusive run; it does not start");
                None
            }
        }
    }

    /// Releases a job, unless it has started or is already released.
    fn release(&self, lease: Arc<Lease>) -> Ran {
        let end = self.held_leases.give_up(lease.id, lease.token).then(|| self.leave_not_begun(lease));
        Ran { ran: None, end }
    }

    fn leave_not_begun(&self, lease: Arc<Lease>) -> Entered {
        self.finisher.ended(Ended { lease, outcome: None, ran: Duration::ZERO })
    }

    fn give_back(&self, dispatch: Dispatch) {
        let end = self.release(dispatch.lease).end;
        self.leave(end, dispatch.place);
    }

    /// Whether no run may start.
    fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.quarantine.is_announced() || self.runtime.stall.is_on()
    }

    /// Releases jobs that may not start here, or have waited too long. Never returns. Call it on
    /// another runtime than that of the handlers.
    pub async fn release_unstarted(&self) {
        loop {
            let waited = tokio::select! {
                () = self.closed() => self.slots.take_out(),
                () = sleep(LONGEST_WAIT / 5) => self.slots.take_out_after(LONGEST_WAIT),
            };
            if !waited.is_empty() && !self.is_closed() {
                self.capacity.observe_wait(LONGEST_WAIT);
            }
            for dispatch in waited {
                self.give_back(dispatch);
            }
            if self.runtime.stall.is_on() {
                // These jobs have a slot, but no thread.
                for lease in self.held_leases.give_up_all() {
                    self.leave_not_begun(lease).keep(());
                }
            }
            sleep(RELEASE_INTERVAL).await;
        }
    }

    async fn closed(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.quarantine.announced() => {}
            () = self.runtime.stall.begun() => {}
        }
    }
}

/// The result of a leased job in this process.
struct Ran {
    /// Run time; `None` if the job did not start.
    ran: Option<Duration>,
    /// Receipt of the outcome; `None` if another task releases the job.
    end: Option<Entered>,
}

impl Ran {
    /// The job was already released.
    const NOT_HERE: Self = Self { ran: None, end: None };
}

/// The admission of a run, held until the run ends.
enum Admission<'a> {
    ExclusiveRun(#[expect(dead_code, reason = "held, not read")] ExclusiveRun<'a>),
    Others,
}
