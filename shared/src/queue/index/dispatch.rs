//! Leases jobs: a fetch takes up to a number of jobs in fair order, a direct dispatch is the lease
//! of one job that a push made for a waiting worker.
//!
//! Invariant: Redis executes no fetch after the caller's time-out, so no lease is made for a caller
//! that ignores the response.

use std::time::{Duration, Instant};

use redis::RedisError;
use uuid::Uuid;

use super::{Index, MAX_BATCH, millis, packed, scripts::FETCH, status::IndexState};
use crate::queue::{
    lease::{LeaseToken, LeasedRef},
    shard::Shard,
};

const PROMOTED_PER_FETCH: usize = 200;

/// Jobs that the index has leased to this process in one shard; the ledger has not confirmed them.
#[derive(Debug)]
pub struct Proposed {
    pub(in crate::queue) shard: Shard,
    /// Whether the index can be trusted; if not, nothing is leased.
    pub(in crate::queue) state: IndexState,
    pub(in crate::queue) leased: Vec<LeasedRef>,
    /// Time until the next job within the look-ahead is due, or until the next tenant may start
    /// more.
    pub(in crate::queue) next: Option<Duration>,
    /// Time of the leases by Redis's clock, in Unix milliseconds.
    pub(in crate::queue) at_ms: i64,
    /// Until then the leases are certainly held, by the monotonic clock.
    pub(in crate::queue) sure_until: Instant,
}

impl Proposed {
    /// The same leases, as if their message had been in transit for longer than they last.
    #[must_use]
    pub fn delayed(self) -> Self {
        Self { sure_until: Instant::now(), ..self }
    }
}

/// Which tenants a fetch serves, and which its ready mark accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchScope {
    /// Tenants in fair order. If they have fewer jobs than requested, the ready mark accepts any
    /// tenant.
    Next,
    /// The same; and if they have all requested jobs, the ready mark accepts a newly active tenant.
    NextAndNewlyActive,
    /// Only tenants that have nothing running, one job each.
    NewlyActive,
}

impl FetchScope {
    /// Value of the argument in `fetch.lua`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::NextAndNewlyActive => "next+newly_active",
            Self::NewlyActive => "newly_active",
        }
    }
}

/// A job that a push leased to this worker, as announced by a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectDispatch {
    pub(in crate::queue) leased: LeasedRef,
    /// Time of the dispatch by Redis's clock, in Unix milliseconds.
    pub(in crate::queue) at_ms: i64,
}

impl DirectDispatch {
    /// Parses a message: 8 bytes of token, 16 bytes of id, then the time and the score in the flow
    /// as text.
    pub(in crate::queue) fn parse(message: &[u8]) -> Option<Self> {
        let (token, rest) = message.split_at_checked(8)?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (at_ms, score) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
        let leased = packed::leased_ref(id, LeaseToken::parse(token)?, score)?;
        Some(Self { leased, at_ms: at_ms.parse().ok()? })
    }

    /// The job's id.
    pub const fn job(&self) -> Uuid {
        self.leased.id
    }

    /// Treats the dispatch as older by this span, as if the message had been in transit that long.
    #[must_use]
    pub fn delayed(self, by: Duration) -> Self {
        Self { at_ms: self.at_ms - i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4), ..self }
    }

    /// The message that [`Self::parse`] reads, as written by `push.lua`.
    #[cfg(test)]
    fn message(&self) -> Vec<u8> {
        let LeasedRef { id, token, priority, run_at_ms } = &self.leased;
        let flow_score = i64::from(priority.get()) * super::PRIORITY_SPAN + run_at_ms;
        [token.bytes(), id.as_bytes().as_slice(), format!("{} {flow_score}", self.at_ms).as_bytes()].concat()
    }
}

impl Index {
    /// Leases up to `wanted` jobs of a shard. A ready mark requests one more job as soon as one is
    /// available: the name of the [`Subscription`](super::notifications::Subscription) that receives
    /// it, and the token of its lease.
    pub(in crate::queue) async fn fetch(
        &self,
        shard: &Shard,
        wanted: usize,
        lease: Duration,
        token: LeaseToken,
        scope: FetchScope,
        ready_mark: Option<(&str, LeaseToken)>,
    ) -> Result<Proposed, RedisError> {
        self.read_clock().await?;
        let called_at = Instant::now();
        let mut call = self.call(&FETCH, shard);
        call.arg(wanted.min(MAX_BATCH))
            .arg(millis(lease))
            .arg(token.bytes())
            .arg(PROMOTED_PER_FETCH)
            .arg(self.clock.until(self.response_timeout))
            .arg(scope.as_str());
        if let Some((subscription, token)) = ready_mark {
            call.arg(subscription).arg(token.bytes());
        }
        let (state, ids, next_ms, scores, at_ms): (String, Vec<u8>, i64, String, i64) =
            call.invoke_async(&mut self.connection()).await?;
        self.clock.observe(at_ms, called_at);
        let leased = ids.chunks_exact(16).zip(scores.split(' '));
        Ok(Proposed {
            shard: shard.clone(),
            state: IndexState::parse(&state),
            leased: leased.filter_map(|(id, score)| packed::leased_ref(id, token, score)).collect(),
            next: u64::try_from(next_ms).ok().map(Duration::from_millis),
            at_ms,
            sure_until: called_at + lease / 2,
        })
    }

    /// A direct dispatch in the form of a fetch; `lease` is the duration of its lease.
    pub(in crate::queue) fn proposed(&self, shard: &Shard, dispatch: &DirectDispatch, lease: Duration) -> Proposed {
        Proposed {
            shard: shard.clone(),
            state: IndexState::Ready,
            leased: vec![dispatch.leased],
            next: None,
            at_ms: dispatch.at_ms,
            sure_until: Instant::now() + (lease / 2).saturating_sub(self.clock.age(dispatch.at_ms)),
        }
    }

    /// Reads Redis's clock if no response has provided it yet. Without it a fetch has no deadline,
    /// and Redis would lease jobs to a caller that has timed out.
    async fn read_clock(&self) -> Result<(), RedisError> {
        if !self.clock.is_known() {
            let called_at = Instant::now();
            let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut self.connection()).await?;
            self.clock.observe(seconds * 1_000 + micros / 1_000, called_at);
        }
        Ok(())
    }

    /// Lower bound on Redis's current time; `earlier_ms` is an earlier time of Redis.
    pub(in crate::queue) fn now_ms(&self, earlier_ms: i64) -> i64 {
        self.clock.now_ms(earlier_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::job::Priority;

    #[test]
    fn a_direct_dispatch_round_trips() {
        for priority in 1..=4 {
            let (id, token, priority) = (Uuid::from_u128(7), LeaseToken::random(), Priority::from_ledger(priority));
            let leased = LeasedRef { id, token, priority, run_at_ms: 1_795_337_988_365 };
            let dispatch = DirectDispatch { leased, at_ms: 1_795_337_988_366 };
            assert_eq!(DirectDispatch::parse(&dispatch.message()), Some(dispatch));
        }
        assert_eq!(DirectDispatch::parse(b"too short"), None);
    }
}
