//! `/api/v1/usage`: how much of its limits the tenant has used.

use axum::Extension;
use serde::Serialize;
use shared::rate_limit::PolicyState;
use utoipa::ToSchema;

use crate::{
    auth::{Permit, QuotasRead},
    extract::Json,
    rate_limit::RequestRate,
};

/// A limit on requests, and how much of it is used.
#[derive(Serialize, ToSchema)]
pub struct RequestLimit {
    /// The name of the policy, as in the header `RateLimit`.
    #[schema(example = "hourly")]
    policy: &'static str,
    /// How requests are counted: `fixed_window`, `sliding_window` or `token_bucket`.
    #[schema(example = "sliding_window")]
    algorithm: &'static str,
    /// Requests per window.
    limit: u32,
    /// The window.
    window_seconds: u64,
    /// Requests that count now, this one included.
    used: u32,
    /// Requests that may follow at once.
    remaining: u32,
    /// Time until more may follow.
    reset_seconds: u64,
}

/// What the tenant has used.
#[derive(Serialize, ToSchema)]
pub struct Usage {
    /// The limits on requests; empty if the operator disabled them. `burst` is that of the
    /// credential, the others are common to all credentials of the company.
    requests: Vec<RequestLimit>,
}

impl From<&PolicyState> for RequestLimit {
    fn from(state: &PolicyState) -> Self {
        let policy = state.policy;
        Self {
            policy: policy.name,
            algorithm: policy.algorithm.into(),
            limit: policy.limit,
            window_seconds: policy.window.as_secs(),
            used: policy.limit.saturating_sub(state.remaining),
            remaining: state.remaining,
            reset_seconds: state.more_in_seconds(),
        }
    }
}

/// Shows how much of its limits the company has used.
#[utoipa::path(get, path = "/api/v1/usage", operation_id = "get_usage", tag = "usage",
    responses((status = 200, body = Usage, description = "The limits and their use")))]
pub async fn show(_permit: Permit<QuotasRead>, Extension(rate): Extension<RequestRate>) -> Json<Usage> {
    let states = rate.decision().map_or(&[][..], |decision| decision.policies());
    Json(Usage { requests: states.iter().map(RequestLimit::from).collect() })
}
