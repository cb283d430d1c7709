//! Limits on the rate of requests: each request is checked against the policies of its subject, a
//! tenant with one of its credentials or the network of an anonymous client.
//!
//! ```text
//!   request ──▶ limiter ──▶ shared counters: one script in Redis, all APIs count together
//!                  │             │ Redis fails or stalls: the breaker opens for a second
//!                  └─────────────▶ local counters: this process's share, 1/N of each limit
//! ```
//!
//! Invariant: a request is decided within the time-out of one call to Redis, and a limit is never
//! open. A request that a policy refuses is charged to none of them by the shared counters.
//!
//! Next: [`policy`] for the limits of each tier, `admit.lua` for the algorithms, [`limiter`] for
//! the order of the steps.

mod api_count;
mod breaker;
mod decision;
mod known_networks;
mod limiter;
mod local_counters;
pub mod policy;
mod shared_counters;
mod subject;

pub use self::{
    decision::{Decision, PolicyState},
    limiter::{RateLimitSettings, RateLimiter},
    subject::{ClientNetwork, Subject},
};
