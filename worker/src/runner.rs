//! One run of one job, as the machinery sees it: find its kind, have its handler run, and leave the end with the finisher. What this release
//! does not know is left to another worker: see [`skew`].
//!
//! Invariant: whatever a handler does, the run ends in an [`Outcome`](shared::queue::finish::Outcome) and the process lives on. Only death takes
//! the process: that is what leases are for.

use std::{sync::Arc, time::Duration};

use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{Index, consumer::Lease, rescue},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    finisher::{Ended, Finisher},
    handlers::{Attempt, Handlers},
    holdings::Holdings,
    last_chance::{self, Alone, LastChances},
    skew,
    slots::Slot,
};

/// Runs jobs. One for the process.
pub struct Runner {
    handlers: Handlers,
    holdings: Holdings,
    finisher: Finisher,
    last_chances: LastChances,
    system: SystemDb,
    index: Index,
}

impl Runner {
    /// A runner over the process's kinds and services.
    pub const fn new(
        handlers: Handlers,
        holdings: Holdings,
        finisher: Finisher,
        last_chances: LastChances,
        system: SystemDb,
        index: Index,
    ) -> Self {
        Self { handlers, holdings, finisher, last_chances, system, index }
    }

    /// Runs a leased job to its end, gives its slot back, leaves the end with the finisher, and returns how long it ran; `None` if it did
    /// not begin.
    pub async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken, slot: Slot) -> Option<Duration> {
        let span = tracing::info_span!("job", job_id = %lease.id, tenant = %lease.tenant, kind = %lease.kind, attempt = lease.attempt);
        self.run_inside_span(lease, cancelled, slot).instrument(span).await
    }

    async fn run_inside_span(&self, lease: Arc<Lease>, cancelled: CancellationToken, slot: Slot) -> Option<Duration> {
        if let Err(reason) = skew::judge(self.handlers.registry(), &lease) {
            crate::metrics::left(&lease, reason);
            tokio::time::sleep(skew::TAKES).await;
            drop(slot);
            let lease = skew::put_off(&lease, &self.handlers.environment().clock).into();
            self.finisher.ended(Ended { lease, outcome: None, ran: skew::TAKES }).await;
            return None;
        }
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
        let Attempt { outcome, ran } = self.handlers.attempt(Arc::clone(&lease), cancelled).await;
        drop(slot);
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        self.finisher.ended(Ended { lease, outcome, ran }).await;
        drop(company);
        (!ran.is_zero()).then_some(ran)
    }

    /// Whether the job's lease is still this process's, which costs nothing unless it waited, or the process stood still, for long.
    async fn is_own(&self, lease: &Lease) -> bool {
        match lease.is_own(&self.index).await {
            Ok(is_own) => is_own,
            Err(error) => {
                tracing::debug!(%error, "the lease cannot be renewed, so the run does not begin");
                false
            }
        }
    }

    /// Who else may be in the process meanwhile; `None` if the job was cancelled, must give way to another's last chance, or its own
    /// cannot begin.
    async fn company(&self, lease: &Lease, cancelled: &CancellationToken) -> Option<Company<'_>> {
        if lease.crashes < last_chance::CRASHES {
            let may_begin = !cancelled.is_cancelled() && !self.last_chances.is_announced();
            return may_begin.then_some(Company::Others);
        }
        // A box keeps what is seldom needed out of the future of each run, which is moved about.
        Box::pin(cancelled.run_until_cancelled(self.last_chance(lease))).await.flatten()
    }

    async fn last_chance(&self, lease: &Lease) -> Option<Company<'_>> {
        let alone = self.last_chances.alone(&self.holdings).await?;
        match rescue::begin_last_chance(&self.system, lease).await {
            Ok(noted) => noted.then_some(Company::Alone(alone)),
            Err(error) => {
                tracing::warn!(error = sql_state(&error), "the last chance cannot be noted, so it does not begin");
                None
            }
        }
    }

    /// Gives up what was leased but has not begun.
    pub async fn hand_back(&self, lease: Arc<Lease>) {
        self.finisher.ended(Ended { lease, outcome: None, ran: Duration::ZERO }).await;
    }

    /// The runs before which everything else gives way.
    pub const fn last_chances(&self) -> &LastChances {
        &self.last_chances
    }

    /// What runs handlers.
    pub const fn handlers(&self) -> &Handlers {
        &self.handlers
    }

    /// What this process holds.
    pub const fn holdings(&self) -> &Holdings {
        &self.holdings
    }
}

/// Held for the length of a run.
enum Company<'a> {
    Alone(#[expect(dead_code, reason = "held, not read")] Alone<'a>),
    Others,
}
