//! What can happen to a queue. A `pick` chooses among what is there when the step is taken; with nothing there the step does nothing.

use std::marker::PhantomData;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

use super::request::Request;

/// Few, so that they meet often.
pub const TENANTS: usize = 3;
/// A run is charged at most this many milliseconds.
pub const LONGEST_MS: u64 = 10;
/// Jobs of one fetch at the most.
pub const WIDEST_FETCH: usize = 6;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Completed,
    /// Failed, and due again at once.
    RetryNow,
    /// Failed, and due in an hour.
    RetryLater,
    /// Put off for an hour.
    Snoozed,
    Discarded,
    Cancelled,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// Jobs are committed; `told`: the push of the producer arrives.
    Enqueue {
        request: Request,
        told: bool,
    },
    /// A worker leases.
    Fetch {
        wanted: usize,
    },
    /// A worker leases, and completes all of it; `discards`: but for the first, which fails for good.
    WorkOff {
        wanted: usize,
        ran_ms: u64,
        discards: bool,
    },
    /// A run ends, a zombie's too; `settled`: the holder lives to tell the index.
    Finish {
        pick: usize,
        end: End,
        ran_ms: u64,
        settled: bool,
    },
    /// A worker stops and gives back.
    HandBack {
        pick: usize,
    },
    /// A holder dies or freezes: its lease runs out.
    HolderDies {
        pick: usize,
        /// If it was the job's last chance, that had begun.
        begun: bool,
    },
    /// The leader takes jobs from the dead.
    Rescue,
    /// The leader claims and raises attempts, and does not come further yet, or never does.
    RescueBegins,
    RescueEnds,
    /// A worker leases, and its answer is under way; jobs of newcomers alone, if it says so.
    Ask {
        wanted: usize,
        newcomers: bool,
    },
    /// A worker reads an answer or a grant, however late.
    Read {
        pick: usize,
    },
    /// An answer or a grant is under way for longer than a lease.
    MessageAges {
        pick: usize,
        /// It never arrives.
        lost: bool,
    },
    /// The push of a job arrives, whatever has become of the job.
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
    /// `told`: whoever cancels lives to tell the index.
    Cancel {
        pick: usize,
        told: bool,
    },
    Redrive {
        pick: usize,
        /// Of what was given up, if there is anything.
        given_up: bool,
        told: bool,
    },
    /// Redis loses everything.
    LoseIndex,
    /// Redis comes back with something that is finished by now.
    OldState {
        pick: usize,
    },
    /// `asserted`: those who live assert their leases in the grace.
    Rebuild {
        asserted: bool,
    },
    /// The leader dies in the grace of a rebuild.
    RebuildCutShort,
    /// The crawl passes all that waits.
    Sweep,
    /// An hour passes for one job.
    FallDue {
        pick: usize,
    },
    Promote,
    /// The time after which one job is not to be begun any more passes.
    TimeIsUp {
        pick: usize,
        /// Of one that is held, if any of those can expire.
        held: bool,
    },
    /// The leader discards what was not begun in time.
    Expire,
}

/// How often each step is taken, and of what size.
pub trait Mix: 'static {
    /// Strategies with their weights.
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)>;
}

/// Generates steps. What is sensible depends on the real thing's choices, so the picks are made there.
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

/// All that can happen.
pub struct Any;

impl Mix for Any {
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)> {
        vec![
            (14, enqueue()),
            (10, (1..=WIDEST_FETCH).prop_map(|wanted| Step::Fetch { wanted }).boxed()),
            (10, work_off(0.1)),
            (14, finish()),
            (3, pick(|pick| Step::HandBack { pick })),
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

/// All tenants have work waiting most of the time: what fairness is about.
pub struct Busy;

impl Busy {
    /// What they begin with.
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
            (1, pick(|pick| Step::HandBack { pick })),
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
    let newcomers = prop::bool::weighted(0.3);
    (1..=WIDEST_FETCH, newcomers).prop_map(|(wanted, newcomers)| Step::Ask { wanted, newcomers }).boxed()
}

pub fn pick_flag(set: f64, step: impl Fn(usize, bool) -> Step + 'static) -> BoxedStrategy<Step> {
    (any::<u16>(), prop::bool::weighted(set)).prop_map(move |(pick, flag)| step(pick.into(), flag)).boxed()
}
