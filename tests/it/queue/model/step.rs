//! What can happen to a queue. A `pick` selects among the existing candidates when the step is
//! applied; without any, the step does nothing.

use std::marker::PhantomData;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use super::request::Request;

/// Few, so that their jobs often interact.
pub const TENANTS: usize = 3;
/// The maximum charge of a run, in milliseconds.
pub const LONGEST_MS: u64 = 10;
/// The maximum number of jobs per fetch.
pub const WIDEST_FETCH: usize = 6;

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Completed,
    /// Failed, and due again at once.
    RetryNow,
    /// Failed, and due in an hour.
    RetryLater,
    /// Snoozed for an hour.
    Snoozed,
    Discarded,
    Cancelled,
}

/// One event.
#[derive(Clone, Debug)]
pub enum Step {
    /// Commits jobs; `told`: the producer's push arrives.
    Enqueue {
        request: Request,
        told: bool,
    },
    /// A worker fetches.
    Fetch {
        wanted: usize,
    },
    /// A worker fetches and completes all jobs; `discards`: the first one is discarded instead.
    WorkOff {
        wanted: usize,
        ran_ms: u64,
        discards: bool,
    },
    /// A run ends, possibly a zombie's; `settled`: the holder survives to settle in the index.
    Finish {
        pick: usize,
        end: End,
        ran_ms: u64,
        settled: bool,
    },
    /// A worker stops and releases a job.
    Release {
        pick: usize,
    },
    /// A holder dies or freezes: its lease expires.
    HolderDies {
        pick: usize,
        /// An exclusive run, if this was one, had begun.
        begun: bool,
    },
    /// The leader rescues the jobs of dead holders.
    Rescue,
    /// The leader claims leases and raises attempts, and stops there, for a while or for good.
    RescueBegins,
    RescueEnds,
    /// A worker fetches, and its response is in flight; `newly_active`: only jobs of newly active
    /// tenants.
    Ask {
        wanted: usize,
        newly_active: bool,
    },
    /// A worker reads a response or a direct dispatch, however late.
    Read {
        pick: usize,
    },
    /// A response or a direct dispatch stays in flight for longer than a lease.
    MessageAges {
        pick: usize,
        /// The message never arrives.
        lost: bool,
    },
    /// The push of a job arrives, whatever has happened to the job since.
    LatePush {
        pick: usize,
        twice: bool,
    },
    /// A settlement arrives late, or again.
    LateSettle {
        pick: usize,
    },
    /// A renewal arrives after its holder was taken for dead.
    LateRenew {
        pick: usize,
    },
    /// `told`: the process that cancels survives to announce it.
    Cancel {
        pick: usize,
        told: bool,
    },
    Redrive {
        pick: usize,
        /// Prefers discarded and cancelled jobs.
        given_up: bool,
        told: bool,
    },
    /// Redis loses everything.
    LoseIndex,
    /// Redis restores jobs that are final or not free by now.
    OldState {
        pick: usize,
    },
    /// `asserted`: living holders assert their leases in the grace.
    Rebuild {
        asserted: bool,
    },
    /// The leader dies in the grace of a rebuild.
    RebuildCutShort,
    /// The crawl passes all waiting jobs.
    Sweep,
    /// An hour passes for one job.
    FallDue {
        pick: usize,
    },
    Promote,
    /// The expiry of one job passes.
    TimeIsUp {
        pick: usize,
        /// Prefers jobs that are held.
        held: bool,
    },
    /// The leader discards expired jobs.
    Expire,
}

/// The frequency and size of each step.
pub trait Mix: 'static {
    /// Strategies with their weights.
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)>;
}

/// Generates steps. The candidates depend on the real queue, so picks are resolved when a step is
/// applied.
pub struct Steps<M>(PhantomData<M>);

impl<M: Mix> ReferenceStateMachine for Steps<M> {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        Union::new_weighted(M::weighted()).boxed()
    }

    fn apply((): (), _step: &Step) {}
}

/// All steps.
pub struct Any;

impl Mix for Any {
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)> {
        vec![
            (14, enqueue()),
            (10, (1..=WIDEST_FETCH).prop_map(|wanted| Step::Fetch { wanted }).boxed()),
            (10, work_off(0.1)),
            (14, finish()),
            (3, pick(|pick| Step::Release { pick })),
            (6, holder_dies()),
            (6, Just(Step::Rescue).boxed()),
            (3, Just(Step::RescueBegins).boxed()),
            (4, Just(Step::RescueEnds).boxed()),
            (8, ask()),
            (10, pick(|pick| Step::Read { pick })),
            (5, pick_flag(0.3, |pick, lost| Step::MessageAges { pick, lost })),
            (5, pick_flag(0.5, |pick, twice| Step::LatePush { pick, twice })),
            (4, pick(|pick| Step::LateSettle { pick })),
            (5, pick(|pick| Step::LateRenew { pick })),
            (5, pick_told(|pick, told| Step::Cancel { pick, told })),
            (6, redrive()),
            (2, Just(Step::LoseIndex).boxed()),
            (2, pick(|pick| Step::OldState { pick })),
            (4, any::<bool>().prop_map(|asserted| Step::Rebuild { asserted }).boxed()),
            (1, Just(Step::RebuildCutShort).boxed()),
            (4, Just(Step::Sweep).boxed()),
            (4, pick(|pick| Step::FallDue { pick })),
            (3, Just(Step::Promote).boxed()),
            (6, pick_flag(0.5, |pick, held| Step::TimeIsUp { pick, held })),
            (5, Just(Step::Expire).boxed()),
        ]
    }
}

/// All tenants have work waiting most of the time, which is when fairness matters.
pub struct Busy;

impl Busy {
    /// The steps before those of the case.
    pub fn backlog() -> Vec<Step> {
        (0..TENANTS).map(|tenant| Step::Enqueue { request: Request::plain(tenant, 60), told: true }).collect()
    }
}

impl Mix for Busy {
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)> {
        vec![
            (2, enqueue()),
            (20, work_off(0.0)),
            (1, (1..=WIDEST_FETCH).prop_map(|wanted| Step::Fetch { wanted }).boxed()),
            (4, finish()),
            (1, pick(|pick| Step::Release { pick })),
            (1, holder_dies()),
            (1, Just(Step::Rescue).boxed()),
        ]
    }
}

fn enqueue() -> BoxedStrategy<Step> {
    (Request::any(), prop::bool::weighted(0.8)).prop_map(|(request, told)| Step::Enqueue { request, told }).boxed()
}

pub fn work_off(discards: f64) -> BoxedStrategy<Step> {
    (1..=WIDEST_FETCH, 1..=LONGEST_MS, prop::bool::weighted(discards))
        .prop_map(|(wanted, ran_ms, discards)| Step::WorkOff { wanted, ran_ms, discards })
        .boxed()
}

pub fn finish() -> BoxedStrategy<Step> {
    let end = prop_oneof![
        4 => Just(End::Completed),
        2 => Just(End::RetryNow),
        1 => Just(End::RetryLater),
        1 => Just(End::Snoozed),
        1 => Just(End::Discarded),
        1 => Just(End::Cancelled),
    ];
    (any::<u16>(), end, 1..=LONGEST_MS, prop::bool::weighted(0.8))
        .prop_map(|(pick, end, ran_ms, settled)| Step::Finish { pick: pick.into(), end, ran_ms, settled })
        .boxed()
}

pub fn holder_dies() -> BoxedStrategy<Step> {
    pick_flag(0.7, |pick, begun| Step::HolderDies { pick, begun })
}

pub fn redrive() -> BoxedStrategy<Step> {
    (any::<u16>(), prop::bool::weighted(0.7), prop::bool::weighted(0.7))
        .prop_map(|(pick, given_up, told)| Step::Redrive { pick: pick.into(), given_up, told })
        .boxed()
}

pub fn pick(step: impl Fn(usize) -> Step + 'static) -> BoxedStrategy<Step> {
    any::<u16>().prop_map(move |pick| step(pick.into())).boxed()
}

pub fn pick_told(step: impl Fn(usize, bool) -> Step + 'static) -> BoxedStrategy<Step> {
    pick_flag(0.7, step)
}

fn ask() -> BoxedStrategy<Step> {
    let newly_active = prop::bool::weighted(0.3);
    (1..=WIDEST_FETCH, newly_active).prop_map(|(wanted, newly_active)| Step::Ask { wanted, newly_active }).boxed()
}

pub fn pick_flag(set: f64, step: impl Fn(usize, bool) -> Step + 'static) -> BoxedStrategy<Step> {
    (any::<u16>(), prop::bool::weighted(set)).prop_map(move |(pick, flag)| step(pick.into(), flag)).boxed()
}
