//! Few jobs whose ends affect other jobs: every case combines keys, expiry and dependencies.

use proptest::prelude::*;

use super::{
    request::Request,
    step::{Mix, Step, finish, holder_dies, pick, pick_flag, pick_told, redrive, work_off},
};

/// Small requests with relations.
pub struct Related;

impl Mix for Related {
    fn weighted() -> Vec<(u32, BoxedStrategy<Step>)> {
        vec![
            (24, enqueue()),
            (10, (1..=3_usize).prop_map(|wanted| Step::Fetch { wanted }).boxed()),
            (6, work_off(0.4)),
            (14, finish()),
            (3, holder_dies()),
            (3, Just(Step::Rescue).boxed()),
            (5, pick_told(|pick, told| Step::Cancel { pick, told })),
            (8, redrive()),
            (1, Just(Step::LoseIndex).boxed()),
            (2, pick(|pick| Step::OldState { pick })),
            (3, any::<bool>().prop_map(|asserted| Step::Rebuild { asserted }).boxed()),
            (3, Just(Step::Sweep).boxed()),
            (3, pick(|pick| Step::FallDue { pick })),
            (2, Just(Step::Promote).boxed()),
            (8, pick_flag(0.7, |pick, held| Step::TimeIsUp { pick, held })),
            (6, Just(Step::Expire).boxed()),
        ]
    }
}

fn enqueue() -> BoxedStrategy<Step> {
    (Request::related(), prop::bool::weighted(0.8)).prop_map(|(request, told)| Step::Enqueue { request, told }).boxed()
}
