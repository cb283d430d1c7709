//! The rate limits of one request: a request extension, because an extractor cannot set headers of
//! the response.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, request::Parts};
use shared::rate_limit::{Decision, Subject};

use super::{headers, refusal};
use crate::{problem::Problem, state::Parts as State};

/// The decision about one request, once it is known. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestRate(Arc<OnceLock<Decision>>);

impl RequestRate {
    /// Counts the request of `parts` for a subject; fails if a policy refuses it. Without a limiter
    /// nothing is counted.
    pub async fn charge(state: &State, parts: &Parts, subject: impl FnOnce() -> Subject) -> Result<(), Problem> {
        let Some(limiter) = &state.rate_limiter else { return Ok(()) };
        let decision = limiter.admit(&subject()).await;
        let refused = refusal::of(&decision);
        if let Some(Self(rate)) = parts.extensions.get() {
            rate.get_or_init(|| decision);
        }
        refused.map_or(Ok(()), Err)
    }

    /// The decision, if the request was counted.
    pub fn decision(&self) -> Option<&Decision> {
        self.0.get()
    }

    /// Writes the headers of the response.
    pub fn write(&self, response: &mut HeaderMap) {
        if let Some(decision) = self.decision() {
            headers::write(decision, response);
        }
    }
}
