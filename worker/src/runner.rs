//! One run of one job: wait for a slot, then, on the handlers' runtime, find the job's kind, run its handler, and leave the end with the finisher.
//! What this release does not know is left to another worker: see [`skew`].
//!
//! Invariant: whatever a handler does (fail, panic, take too long, block its thread), leases are renewed, ends are written and health is
//! answered, for all of that runs on another runtime with connections of its own. A job that has not begun can be taken back from there at
//! any time: see [`Runner::hand_back_while_stalled`]. Only death takes the process: that is what leases are for.

use std::{sync::Arc, time::Duration};

use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{Index, consumer::Lease, rescue},
    tenancy::TenantId,
};
use tokio::{runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    capacity::Capacity,
    fetcher::Dispatch,
    finisher::{Ended, Finisher},
    handlers::{Attempt, HandlerRuntime, Handlers},
    holdings::Holdings,
    last_chance::{self, Alone, LastChances},
    skew,
    slots::Slot,
};

/// A job that was fetched ahead and has waited this long for a slot is given back: jobs turned out longer than they were, and
/// another worker may be idle.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// While handlers get no thread, what was leased meanwhile is handed back this often.
const HAND_BACK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs jobs. One for the process.
pub struct Runner {
    /// What the kinds do.
    pub handlers: Handlers,
    /// Where runs are tasks.
    pub runtime: HandlerRuntime,
    /// The runtime on which `system` and `index` have their connections.
    pub control: Handle,
    /// Gives slots.
    pub capacity: Arc<Capacity>,
    /// What this process holds.
    pub holdings: Holdings,
    /// Where ends are left.
    pub finisher: Finisher,
    /// The runs before which everything else gives way.
    pub last_chances: LastChances,
    /// Notes last chances.
    pub system: SystemDb,
    /// Says whether an old lease is still this process's.
    pub index: Index,
    /// What has not begun when this is cancelled is handed back.
    pub stop: CancellationToken,
}

impl Runner {
    /// Waits for a slot and starts the run of a leased job, as a task of its own on the handlers' runtime, so that runs use all processors and
    /// one that blocks does not stop the others. Nothing waits there but what has a slot: of two tasks that wait, the runtime may take either.
    pub async fn start(self: &Arc<Self>, dispatch: Dispatch) {
        match self.slot(dispatch.lease.tenant).await {
            Some(slot) => {
                let runner = Arc::clone(self);
                self.runtime.handle.spawn(async move { runner.take(dispatch, slot).await });
            }
            None => self.hand_back(dispatch.lease).await,
        }
    }

    async fn take(&self, dispatch: Dispatch, slot: Slot) {
        let Dispatch { lease, cancelled, place } = dispatch;
        let span = tracing::info_span!("job", job_id = %lease.id, tenant = %lease.tenant, kind = %lease.kind, attempt = lease.attempt);
        if let Some(ran) = self.run(lease, cancelled, slot).instrument(span).await {
            self.capacity.observe(ran);
            place.observe(ran);
        }
    }

    /// `None` if the job is not to begin here.
    async fn slot(&self, tenant: TenantId) -> Option<Slot> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            slot = self.capacity.slot(tenant) => Some(slot),
            () = self.last_chances.announced() => None,
            () = self.runtime.stall.begun() => None,
            () = sleep(LONGEST_WAIT) => {
                self.capacity.observe_wait(LONGEST_WAIT);
                None
            }
        }
    }

    /// Runs a leased job to its end, gives its slot back, leaves the end with the finisher, and returns how long it ran; `None` if it did
    /// not begin.
    async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken, slot: Slot) -> Option<Duration> {
        let kind = match skew::judge(self.handlers.registry(), &lease) {
            Ok(kind) => kind,
            Err(reason) => {
                self.put_off(lease, slot, reason).await;
                return None;
            }
        };
        let Some(company) = self.company(&lease, &cancelled).await else {
            drop(slot);
            self.hand_back(lease).await;
            return None;
        };
        if !self.is_own(&lease).await {
            drop(slot);
            self.hand_back(lease).await;
            return None;
        }
        if !self.holdings.begin(lease.id, lease.token) {
            return None;
        }
        let Attempt { outcome, ran } = self.handlers.attempt(kind, &lease, cancelled).await;
        self.holdings.end(lease.id, lease.token);
        drop(slot);
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        self.finisher.ended(Ended { lease, outcome, ran }).await;
        drop(company);
        Some(ran)
    }

    /// Leaves a job to a worker of another release.
    async fn put_off(&self, lease: Arc<Lease>, slot: Slot, reason: &'static str) {
        crate::metrics::left(&lease, reason);
        sleep(skew::TAKES).await;
        drop(slot);
        if self.holdings.give_up(lease.id, lease.token) {
            let lease = skew::put_off(&lease, &self.handlers.environment().clock).into();
            self.finisher.ended(Ended { lease, outcome: None, ran: skew::TAKES }).await;
        }
    }

    /// Whether the job's lease is still this process's, which costs nothing unless it waited, or the process stood still, for long.
    async fn is_own(&self, lease: &Arc<Lease>) -> bool {
        if lease.is_young() {
            return true;
        }
        let (lease, index) = (Arc::clone(lease), self.index.clone());
        // The task ends with its runtime, and then nothing is to begin.
        let renewed = self.control.spawn(async move { lease.is_own(&index).await }).await;
        renewed.is_ok_and(|renewed| {
            renewed.unwrap_or_else(|error| {
                tracing::debug!(%error, "the lease cannot be renewed, so the run does not begin");
                false
            })
        })
    }

    /// Who else may be in the process meanwhile; `None` if the job was cancelled, must give way to another's last chance, or its own
    /// cannot begin.
    async fn company(&self, lease: &Arc<Lease>, cancelled: &CancellationToken) -> Option<Company<'_>> {
        if lease.crashes < last_chance::CRASHES {
            let may_begin = !cancelled.is_cancelled() && !self.last_chances.is_announced();
            return may_begin.then_some(Company::Others);
        }
        // A box keeps what is seldom needed out of the future of each run, which is moved about.
        Box::pin(cancelled.run_until_cancelled(self.last_chance(lease))).await.flatten()
    }

    async fn last_chance(&self, lease: &Arc<Lease>) -> Option<Company<'_>> {
        let alone = self.last_chances.alone(&self.holdings).await?;
        let (lease, system) = (Arc::clone(lease), self.system.clone());
        let noted = self.control.spawn(async move { rescue::begin_last_chance(&system, &lease).await }).await;
        match noted.ok()? {
            Ok(noted) => noted.then_some(Company::Alone(alone)),
            Err(error) => {
                tracing::warn!(error = sql_state(&error), "the last chance cannot be noted, so it does not begin");
                None
            }
        }
    }

    /// Gives up what was leased, unless it has begun or is given up already.
    async fn hand_back(&self, lease: Arc<Lease>) {
        if self.holdings.give_up(lease.id, lease.token) {
            self.leave_not_begun(lease).await;
        }
    }

    async fn leave_not_begun(&self, lease: Arc<Lease>) {
        self.finisher.ended(Ended { lease, outcome: None, ran: Duration::ZERO }).await;
    }

    /// Hands back what has not begun whenever handlers get no thread, for ever; to be run on another runtime than theirs.
    pub async fn hand_back_while_stalled(&self) {
        loop {
            self.runtime.stall.begun().await;
            for lease in self.holdings.give_up_all() {
                self.leave_not_begun(lease).await;
            }
            sleep(HAND_BACK_INTERVAL).await;
        }
    }
}

/// Held for the length of a run.
enum Company<'a> {
    Alone(#[expect(dead_code, reason = "held, not read")] Alone<'a>),
    Others,
}
