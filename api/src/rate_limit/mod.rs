//! Limits on the rate of requests, as clients see them: 429 with `violated-policies`, and the
//! headers `RateLimit-Policy` and `RateLimit` of every response to a counted request.
//!
//! Invariant: a request is counted once, before its body is read: with a credential by
//! [`crate::auth::Permit`], without one by [`AnonymousClient`]. [`shared::rate_limit`] decides.

mod anonymous;
mod headers;
mod refusal;
mod request_rate;

pub use self::{anonymous::AnonymousClient, request_rate::RequestRate};
