//! Decides whether a request is admitted.
//!
//! Invariant: the shared counters decide as long as they respond; otherwise this process does, with
//! its share of each limit.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use redis::RedisError;
use tokio_util::sync::CancellationToken;

use super::{
    api_count::ApiCount, breaker::Breaker, decision::Decision, known_networks::KnownNetworks,
    local_counters::LocalCounters, shared_counters::SharedCounters, subject::Subject,
};
use crate::{
    queue::Index,
    telemetry::names::{RATE_LIMIT_LOCAL_TOTAL, RATE_LIMITED_TOTAL, label},
};

/// How the limiter uses Redis.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitSettings {
    /// Timeout of a call; default 100 ms. A request waits at most half as long again.
    pub response_timeout: Duration,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self { response_timeout: Duration::from_millis(100) }
    }
}

/// Limits the rate of requests. One per process.
pub struct RateLimiter {
    shared: Arc<SharedCounters>,
    breaker: Breaker,
    local: LocalCounters,
    apis: ApiCount,
    networks: KnownNetworks,
}

impl RateLimiter {
    /// Starts to count in the Redis of `index`, and to note this API there until `stop`.
    pub fn start(index: &Index, settings: RateLimitSettings, stop: CancellationToken) -> Result<Self, RedisError> {
        let shared = Arc::new(SharedCounters::open(index, settings.response_timeout)?);
        let apis = ApiCount::start(Arc::clone(&shared), stop);
        let (local, networks) = (LocalCounters::default(), KnownNetworks::default());
        Ok(Self { shared, breaker: Breaker::closed(), local, apis, networks })
    }

    /// Checks a request, and charges it if it is admitted.
    pub async fn admit(&self, subject: &Subject) -> Decision {
        let decision = self.admit_by_all(subject).await.unwrap_or_else(|| {
            counter!(RATE_LIMIT_LOCAL_TOTAL).increment(1);
            self.local.admit(subject, self.apis.get())
        });
        for state in decision.violated() {
            counter!(RATE_LIMITED_TOTAL, label::POLICY => state.policy.name).increment(1);
        }
        decision
    }

    /// The decision of the shared counters, if they have room for the subject and respond.
    async fn admit_by_all(&self, subject: &Subject) -> Option<Decision> {
        let is_known = subject.network().is_none_or(|network| self.networks.admit(network));
        if !is_known || !self.breaker.may_try() {
            return None;
        }
        match self.shared.admit(subject).await {
            Ok(decision) => {
                if self.breaker.close() {
                    tracing::info!("rate limits are counted in Redis again");
                }
                Some(decision)
            }
            Err(error) => {
                if self.breaker.open() {
                    let error = crate::error_text::with_causes(&error);
                    tracing::warn!(
                        error,
                        apis = self.apis.get(),
                        "Redis does not count requests: each API admits its share"
                    );
                }
                None
            }
        }
    }
}
