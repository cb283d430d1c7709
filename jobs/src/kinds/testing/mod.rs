//! Kinds for measuring throughput, fairness and faults from outside. They exist only with
//! `ROTA_TEST_KINDS`, never in production. Running one twice is harmless, because they exist for
//! that purpose.

mod abort;
mod alloc;
mod callback;
mod fail;
mod noop;
mod panic;
mod sleep;
mod spin;
mod stamp;

use shared::queue::QueueName;

use crate::kind::Kind;

/// The queue of all test-only kinds.
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

/// Number of names and of queues that [`many`] uses.
const MANY: (usize, usize) = (1_000, 10);

/// `sleep` as `sleep_0` to `sleep_999`, in the queues `test_0` to `test_9`.
pub fn many() -> Vec<Kind> {
    let sleep = |at| {
        // Kinds live as long as the process.
        let name = Box::leak(format!("sleep_{at}").into_boxed_str());
        let queue = QueueName::of_program(&format!("test_{}", at % MANY.1));
        Kind::of::<sleep::Sleep>().under(name, queue)
    };
    (0..MANY.0).map(sleep).collect()
}
