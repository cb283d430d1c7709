//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
//!
//! Invariant: both are lists of structured fields (RFC 9651): a quoted name with whole numbers as
//! parameters. Names of policies contain only letters, so nothing is escaped.

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::rate_limit::{Decision, PolicyState};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Writes both headers.
pub(super) fn write(decision: &Decision, headers: &mut HeaderMap) {
    let policy = |PolicyState { policy, .. }: &PolicyState| {
        format!("\"{}\";q={};w={}", policy.name, policy.limit, policy.window.as_secs())
    };
    let state =
        |state: &PolicyState| format!("\"{}\";r={};t={}", state.policy.name, state.remaining, state.more_in_seconds());
    insert(headers, POLICY, decision.policies().iter().map(policy));
    insert(headers, STATE, decision.policies().iter().map(state));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, items: impl Iterator<Item = String>) {
    if let Ok(value) = HeaderValue::try_from(items.collect::<Vec<_>>().join(", ")) {
        headers.insert(name, value);
    }
}
