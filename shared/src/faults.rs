//! Planned faults: named points between two steps, at which a test has the process killed, hung, or told of a failure.
//!
//! Invariant: without a plan a point costs one relaxed load and does nothing, and there is never a plan in production (see
//! [`crate::config::EnvironmentConfig`]). A plan strikes once, at the nth time that its point is reached.
//! The points are listed here so that `docs/RELIABILITY.md` can say for each what holds.

use std::{
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use strum::{EnumString, IntoStaticStr};

/// A place between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Point {
    /// A group of jobs is committed; an error here is a connection that broke before it said so.
    AfterCommitBeforeItsReply,
    /// A group of jobs is committed; no client has its answer, no worker is told.
    AfterCommitBeforePush,
    /// A group of jobs is committed and is being answered; no worker is told.
    BeforePush,
    /// A cancellation is committed; index and holder are not told.
    AfterCancelBeforeAnnouncement,
    /// Ids are leased in the index; their rows are not read.
    AfterLeaseBeforeRead,
    /// A run has ended; nobody has been told.
    AfterEffectBeforeFinish,
    /// The ledger has the ends of some runs; an error here is a connection that broke before it said so.
    AfterEndBeforeItsReply,
    /// The ledger has the end of a run; its lease goes on.
    AfterLedgerBeforeSettle,
    /// Jobs that waited for others may run, or are cancelled, by a committed end; the index is not told.
    AfterAftermathBeforeAnnouncement,
    /// A part of a cascade is committed; the index is not told, and the rest is not done.
    CascadeBetweenSteps,
    /// The attempts of lost jobs are raised; their leases are still expired.
    RescueAfterLedger,
    /// The index is empty; no holder has asserted its lease.
    RebuildAfterClear,
    /// A page of the ledger is in the new index, the next is not.
    RebuildBetweenPages,
    /// A queue is to be split otherwise: nothing is handed out of the old shards; the new number is not noted.
    ReshardAfterRetire,
    /// The new number is noted; the new shards are not built.
    ReshardAfterNote,
}

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Strike {
    /// SIGKILL: nothing is tidied up.
    Kill,
    /// The task stands still for ever, the process lives on.
    Hang,
    /// The step fails as if the ledger were away. Points whose step cannot fail go on.
    Error,
}

/// `POINT:NTH:STRIKE`, say `after_lease_before_read:2:kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    point: Point,
    nth: u32,
    strike: Strike,
}

/// A text that is no plan.
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

/// Puts a plan in force, for the rest of the process's life. Only the first one counts.
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
    // A planned error has nobody to be told to.
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
    // The signal ends the process before the call returns; should it not be permitted, an abort is as sudden.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_point_time_and_strike() {
        let plan: FaultPlan = "after_lease_before_read:2:kill".parse().unwrap();
        assert_eq!(plan, FaultPlan { point: Point::AfterLeaseBeforeRead, nth: 2, strike: Strike::Kill });
        for wrong in
            ["", "nowhere:1:kill", "rebuild_after_clear:0:kill", "rebuild_after_clear:1", "rebuild_after_clear:1:burn"]
        {
            assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
        }
    }

    /// The one plan of this test process.
    #[tokio::test]
    async fn a_plan_strikes_once_at_its_point_and_time() {
        arm(Some("rescue_after_ledger:2:error".parse().unwrap()));
        arm(Some("rescue_after_ledger:1:kill".parse().unwrap()));
        assert!(reach(Point::RebuildAfterClear).await.is_ok());
        assert!(reach(Point::RescueAfterLedger).await.is_ok());
        assert!(reach(Point::RescueAfterLedger).await.is_err());
        assert!(reach(Point::RescueAfterLedger).await.is_ok());
    }
}
