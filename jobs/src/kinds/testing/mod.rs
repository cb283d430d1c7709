//! Kinds with which anyone can measure throughput, fairness and faults from outside. Only with `ROTA_TEST_KINDS=1`, and
//! never in production. Running one twice is harmless: that is what they are for.

mod abort;
mod alloc;
mod callback;
mod fail;
mod noop;
mod panic;
mod sleep;
mod spin;
mod stamp;

use crate::registry::Kind;

/// Where all of them wait.
const QUEUE: &str = "default";

/// The test-only kinds.
pub fn all() -> Vec<Kind> {
    vec![
        Kind::of::<abort::Abort>(),
        Kind::of::<alloc::Alloc>(),
        Kind::of::<callback::Callback>(),
        Kind::of::<fail::Fail>(),
        Kind::of::<noop::Noop>(),
        Kind::of::<panic::Panic>(),
        Kind::of::<sleep::Sleep>(),
        Kind::of::<spin::Spin>(),
    ]
}
