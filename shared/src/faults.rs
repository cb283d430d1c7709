//! Planned faults: named points between two steps, at which a test makes the process die, hang or
//! report a failure.
//!
//! Invariant: without a plan a point costs one relaxed load and does nothing, and production never
//! has a plan (see [`crate::config::EnvironmentConfig`]). A plan strikes once, the nth time that
//! its point is reached. The points are listed here so that `docs/RELIABILITY.md` can state the
//! guarantee at each of them.

use std::{
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use strum::{EnumString, IntoStaticStr};

/// A point between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Point {
    /// A group of jobs is committed. An error stands for a connection that broke before it returned
    /// the commit's reply.
    AfterCommitBeforeItsReply,
    /// A group of jobs is committed. No client has a response, and no worker is notified.
    AfterCommitBeforePush,
    /// A group of jobs is committed and its responses are being sent. No worker is notified.
    BeforePush,
    /// A cancellation is committed. Neither the index nor the lease holder is notified.
    AfterCancelBeforeAnnouncement,
    /// Ids are leased in the index. Their rows are not read yet.
    AfterLeaseBeforeRead,
    /// A run has ended. Its result is not recorded anywhere yet.
    AfterEffectBeforeFinish,
    /// The ledger has the outcomes of some runs. An error stands for a connection that broke before
    /// it returned the commit's reply.
    AfterEndBeforeItsReply,
    /// The ledger has the outcome of a run. Its lease is still active.
    AfterLedgerBeforeSettle,
    /// A committed outcome released or cancelled dependent jobs. The index is not notified.
    AfterFollowUpBeforeAnnouncement,
    /// One part of a cascade is committed. The index is not notified, and the rest is still to do.
    CascadeBetweenSteps,
    /// The attempts of lost jobs are raised. Their leases are still expired.
    RescueAfterLedger,
    /// The index is empty. No holder has asserted its lease.
    RebuildAfterClear,
    /// One page of the ledger is in the rebuilt index, the next one is not.
    RebuildBetweenPages,
    /// A queue's shard count is changing: the previous shards hand out no jobs, and the new count
    /// is not recorded.
    ReshardAfterRetire,
    /// The new shard count is recorded. The new shards are not built.
    ReshardAfterNote,
}

/// The fault at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Strike {
    /// SIGKILL: no cleanup runs.
    Kill,
    /// The task never continues; the process stays alive.
    Hang,
    /// The step fails as if the ledger were unavailable. Points whose step cannot fail ignore this.
    Error,
}

/// `POINT:NTH:STRIKE`, for example `after_lease_before_read:2:kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    point: Point,
    nth: u32,
    strike: Strike,
}

/// The text is not a valid fault plan.
#[derive(Debug, thiserror::Error)]
#[error("a planned fault is POINT:NTH:STRIKE")]
pub struct InvalidFaultPlan;

impl FromStr for FaultPlan {
    type Err = InvalidFaultPlan;

    fn from_str(text: &str) -> Result<Self, InvalidFaultPlan> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(InvalidFaultPlan);
        let point = part()?.parse().map_err(|_| InvalidFaultPlan)?;
        let nth = part()?.parse().ok().filter(|nth| *nth > 0).ok_or(InvalidFaultPlan)?;
        let strike = part()?.parse().map_err(|_| InvalidFaultPlan)?;
        Ok(Self { point, nth, strike })
    }
}

static ARMED: AtomicBool = AtomicBool::new(false);
static PLAN: OnceLock<FaultPlan> = OnceLock::new();
static REACHED: AtomicU32 = AtomicU32::new(0);

/// Activates a plan for the rest of the process's life. Later calls have no effect.
pub fn arm(plan: Option<FaultPlan>) {
    if let Some(plan) = plan
        && PLAN.set(plan).is_ok()
    {
        tracing::warn!(?plan, "a fault is planned");
        ARMED.store(true, Ordering::Release);
    }
}

/// A point whose step cannot fail.
pub async fn pass(point: Point) {
    // This step cannot fail, so a planned error is dropped.
    let _ = reach(point).await;
}

/// A point whose step can fail.
pub async fn reach(point: Point) -> Result<(), sqlx::Error> {
    if !ARMED.load(Ordering::Relaxed) {
        return Ok(());
    }
    match strike(point) {
        None => Ok(()),
        Some(Strike::Kill) => kill(),
        Some(Strike::Hang) => std::future::pending().await,
        Some(Strike::Error) => Err(sqlx::Error::Io(std::io::Error::other("a planned fault"))),
    }
}

fn strike(point: Point) -> Option<Strike> {
    let plan = PLAN.get().filter(|plan| plan.point == point)?;
    (REACHED.fetch_add(1, Ordering::AcqRel) + 1 == plan.nth).then_some(plan.strike)
}

fn kill() -> ! {
    // The signal ends the process before the call returns; if it is not permitted, an abort is as
    // sudden.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_parsed_as_point_count_and_strike() {
        let plan: FaultPlan = "after_lease_before_read:2:kill".parse().unwrap();
        assert_eq!(plan, FaultPlan { point: Point::AfterLeaseBeforeRead, nth: 2, strike: Strike::Kill });
        for wrong in
            ["", "nowhere:1:kill", "rebuild_after_clear:0:kill", "rebuild_after_clear:1", "rebuild_after_clear:1:burn"]
        {
            assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
        }
    }

    /// The only plan of this test process.
    #[tokio::test]
    async fn a_plan_strikes_once_at_its_point_and_count() {
        arm(Some("rescue_after_ledger:2:error".parse().unwrap()));
        arm(Some("rescue_after_ledger:1:kill".parse().unwrap()));
        assert!(reach(Point::RebuildAfterClear).await.is_ok());
        assert!(reach(Point::RescueAfterLedger).await.is_ok());
        assert!(reach(Point::RescueAfterLedger).await.is_err());
        assert!(reach(Point::RescueAfterLedger).await.is_ok());
    }
}
