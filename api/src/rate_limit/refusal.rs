//! The response to a request that a policy refuses.

use shared::rate_limit::{Decision, policy};

use crate::problem::{Problem, ProblemCode};

/// The problem of a refused request; `None` if it is admitted.
pub(super) fn of(decision: &Decision) -> Option<Problem> {
    let retry_after = decision.retry_after()?;
    let violated: Vec<&str> = decision.violated().map(|state| state.policy.name).collect();
    let code = if violated.contains(&policy::DAILY) { ProblemCode::QuotaExceeded } else { ProblemCode::RateLimited };
    Some(Problem::new(code).member("violated-policies", violated).retry_after(retry_after))
}
