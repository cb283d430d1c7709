//! What the policies say about one request.

use std::time::Duration;

use super::policy::Policy;

/// How much `Retry-After` may exceed the wait, so that refused clients do not return all at once.
const JITTER: f64 = 0.1;

/// One policy after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// The policy.
    pub policy: Policy,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Time until more may follow.
    pub more_in: Duration,
    /// Whether the policy refuses the request.
    pub refuses: bool,
}

impl PolicyState {
    /// [`Self::more_in`] in seconds, rounded up.
    pub fn more_in_seconds(&self) -> u64 {
        self.more_in.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
    }
}

/// The state of all policies of a request. The request is admitted if none refuses it.
#[derive(Clone, Debug)]
pub struct Decision(pub(super) Vec<PolicyState>);

impl Decision {
    /// All policies, in the order of the subject.
    pub fn policies(&self) -> &[PolicyState] {
        &self.0
    }

    /// The policies that refuse the request.
    pub fn violated(&self) -> impl Iterator<Item = &PolicyState> {
        self.0.iter().filter(|state| state.refuses)
    }

    /// Seconds until a refused request may be repeated, with jitter; `None` if it is admitted.
    pub fn retry_after(&self) -> Option<u64> {
        let wait = self.violated().map(PolicyState::more_in_seconds).max()?;
        let most = Duration::from_secs(wait).mul_f64(1.0 + JITTER * rand::random::<f64>());
        Some(most.as_secs().max(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::policy;

    fn state(more_in_ms: u64, refuses: bool) -> PolicyState {
        let more_in = Duration::from_millis(more_in_ms);
        PolicyState { policy: policy::ANONYMOUS, remaining: 0, more_in, refuses }
    }

    #[test]
    fn a_retry_is_not_too_early_and_at_most_a_tenth_late() {
        let refused = Decision(vec![state(99_001, true), state(1_000_000, false), state(5_000, true)]);
        let waits: Vec<_> = (0..1_000).filter_map(|_| refused.retry_after()).collect();
        assert_eq!((waits.iter().min(), waits.len()), (Some(&100), 1_000));
        assert!(waits.iter().max().is_some_and(|most| (105..=110).contains(most)), "{:?}", waits.iter().max());
        assert_eq!(Decision(vec![state(1, false)]).retry_after(), None);
    }
}
