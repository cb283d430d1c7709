//! One run of one job: once a slot has come to it, on the handlers' runtime, find its kind, run its handler, and leave the end with the finisher.
//! What this release does not know is left to another worker: see [`skew`].
//!
//! Invariant: whatever a handler does (fail, panic, take too long, block its thread), leases are renewed, ends are written and health is
//! answered, for all of that runs on another runtime with connections of its own. A job that has not begun can be taken back from there at
//! any time: see [`Runner::hand_back_what_waits`]. Only death takes the process: that is what leases are for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{Index, consumer::Lease, rescue},
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
    holdings::Holdings,
    last_chance::{self, Alone, LastChances},
    places::Place,
    skew,
    slots::{Slot, Slots},
};

/// A job that was fetched ahead and has waited this long for a slot is given back: jobs turned out longer than they were, and
/// another worker may be idle.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// While nothing is to begin, what was leased meanwhile is handed back this often.
const HAND_BACK_INTERVAL: Duration = Duration::from_millis(20);
/// After runs that took so long together, a slot's thread looks after whatever else waits for it: a run that goes on needs it a few times, for
/// each message that it sends or gets.
const TURN: Duration = Duration::from_micros(250);

/// Runs jobs. One for the process.
pub struct Runner {
    /// What the kinds do.
    pub handlers: Handlers,
    /// Where runs are tasks.
    pub runtime: HandlerRuntime,
    /// The runtime on which `system` and `index` have their connections.
    pub control: Handle,
    /// Learns how long jobs take.
    pub capacity: Arc<Capacity>,
    /// Whose job is next.
    pub slots: Slots<Dispatch>,
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
    /// Has leased jobs run, each as soon as it is its turn.
    pub fn start(self: &Arc<Self>, dispatches: Vec<Dispatch>) {
        for dispatch in dispatches {
            self.enter(dispatch);
        }
    }

    fn enter(self: &Arc<Self>, mut dispatch: Dispatch) {
        if self.is_closed() {
            return self.give_back(dispatch);
        }
        // Guests are to be new here. While one that is not waits for a slot, others come in.
        if !self.capacity.has(&dispatch.place) && self.slots.has_most(dispatch.lease.tenant) {
            dispatch.place.free();
        }
        if let Some(slot) = self.slots.enter(dispatch.lease.tenant, dispatch) {
            self.fill(slot);
        }
    }

    /// Fills slots that could not be filled at once, for ever.
    pub async fn fill_slots(self: &Arc<Self>) {
        loop {
            let slot = self.slots.due().await;
            self.fill(slot);
        }
    }

    /// Runs one job after the other in a slot, as a task of its own on the handlers' runtime, so that runs use all processors and one that blocks
    /// does not stop the others.
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

    /// A guest's place is for the next who comes new, whatever its tenant has waiting.
    fn leave(&self, end: Option<Entered>, place: Place) {
        if let Some(end) = end.filter(|_| self.capacity.has(&place)) {
            end.keep(place);
        }
    }

    /// Runs a leased job to its end and leaves the end with the finisher.
    async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Ran {
        let kind = match skew::judge(self.handlers.registry(), &lease) {
            Ok(kind) => kind,
            Err(reason) => return self.put_off(lease, reason).await,
        };
        let Some(company) = self.company(&lease, &cancelled).await else { return self.hand_back(lease) };
        if !self.is_own(&lease).await {
            return self.hand_back(lease);
        }
        if !self.holdings.begin(lease.id, lease.token) {
            return Ran::NOT_HERE;
        }
        let Attempt { outcome, ran } = self.handlers.attempt(kind, &lease, cancelled).await;
        self.holdings.end(lease.id, lease.token);
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        let end = self.finisher.ended(Ended { lease, outcome, ran });
        drop(company);
        Ran { ran: Some(ran), end: Some(end) }
    }

    /// Leaves a job to a worker of another release.
    async fn put_off(&self, lease: Arc<Lease>, reason: &'static str) -> Ran {
        crate::metrics::left(&lease, reason);
        sleep(skew::TAKES).await;
        if !self.holdings.give_up(lease.id, lease.token) {
            return Ran::NOT_HERE;
        }
        let lease = skew::put_off(&lease, &self.handlers.environment().clock).into();
        Ran { ran: None, end: Some(self.finisher.ended(Ended { lease, outcome: None, ran: skew::TAKES })) }
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
            let may_begin = !cancelled.is_cancelled() && !self.is_closed();
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
    fn hand_back(&self, lease: Arc<Lease>) -> Ran {
        let end = self.holdings.give_up(lease.id, lease.token).then(|| self.leave_not_begun(lease));
        Ran { ran: None, end }
    }

    fn leave_not_begun(&self, lease: Arc<Lease>) -> Entered {
        self.finisher.ended(Ended { lease, outcome: None, ran: Duration::ZERO })
    }

    fn give_back(&self, dispatch: Dispatch) {
        let end = self.hand_back(dispatch.lease).end;
        self.leave(end, dispatch.place);
    }

    /// Whether nothing is to begin.
    fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.last_chances.is_announced() || self.runtime.stall.is_on()
    }

    /// Hands back what is not to begin here, or not soon enough, for ever; to be run on another runtime than that of handlers.
    pub async fn hand_back_what_waits(&self) {
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
                // These have a slot, and no thread.
                for lease in self.holdings.give_up_all() {
                    self.leave_not_begun(lease).keep(());
                }
            }
            sleep(HAND_BACK_INTERVAL).await;
        }
    }

    async fn closed(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.last_chances.announced() => {}
            () = self.runtime.stall.begun() => {}
        }
    }
}

/// What came of a leased job here.
struct Ran {
    /// How long it ran; `None` if it did not begin.
    ran: Option<Duration>,
    /// Its end is to be written; `None` if somebody else hands it back.
    end: Option<Entered>,
}

impl Ran {
    /// It was given up.
    const NOT_HERE: Self = Self { ran: None, end: None };
}

/// Held for the length of a run.
enum Company<'a> {
    Alone(#[expect(dead_code, reason = "held, not read")] Alone<'a>),
    Others,
}
