//! The counters that all APIs share, in Redis.
//!
//! Invariant: the time is that of Redis, so APIs whose clocks differ decide alike; one script
//! checks all counters of a request and then charges them, so concurrent requests cannot both get
//! the last one. The counters have a connection of their own with a short time-out; calls of the
//! queue may take longer.

use std::{sync::LazyLock, time::Duration};

use redis::{RedisError, Script, aio::ConnectionManager};
use tokio::time::timeout;

use super::{
    decision::{Decision, PolicyState},
    subject::Subject,
};
use crate::queue::{Index, index::keys};

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("admit.lua")));
static COUNT_APIS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("count_apis.lua")));

/// Why the counters did not decide.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("no answer in time")]
    Late,
    #[error("redis")]
    Redis(#[from] RedisError),
    #[error("an answer of another form")]
    Malformed,
}

/// The connection to the counters.
pub(super) struct SharedCounters {
    connection: ConnectionManager,
    prefix: String,
    /// For one request, including a new connection.
    patience: Duration,
}

impl SharedCounters {
    pub(super) fn open(index: &Index, response_timeout: Duration) -> Result<Self, RedisError> {
        let connection = index.another_connection(response_timeout)?;
        // The client's own time-out comes first: it also ends a connection that is silent.
        Ok(Self { connection, prefix: index.prefix().to_owned(), patience: response_timeout * 3 / 2 })
    }

    /// Checks a request, and charges it if all policies admit it.
    pub(super) async fn admit(&self, subject: &Subject) -> Result<Decision, Unanswered> {
        let mut call = ADMIT.prepare_invoke();
        for charge in subject.charges() {
            let algorithm: &str = charge.policy.algorithm.into();
            call.key(subject.key(&self.prefix, charge));
            call.arg(algorithm).arg(charge.policy.limit).arg(micros(charge.policy.window));
        }
        let mut connection = self.connection.clone();
        let call = call.invoke_async::<Vec<u64>>(&mut connection);
        let answer = timeout(self.patience, call).await.map_err(|_| Unanswered::Late)??;
        decision(subject, &answer).ok_or(Unanswered::Malformed)
    }

    /// Notes an API, and counts those noted within `memory`.
    pub(super) async fn count_apis(&self, id: &str, memory: Duration) -> Result<u32, Unanswered> {
        let mut call = COUNT_APIS.key(keys::apis(&self.prefix));
        call.arg(id).arg(micros(memory) / 1_000);
        let mut connection = self.connection.clone();
        timeout(self.patience, call.invoke_async(&mut connection))
            .await
            .map_err(|_| Unanswered::Late)?
            .map_err(Into::into)
    }
}

fn decision(subject: &Subject, answer: &[u64]) -> Option<Decision> {
    let (admitted, rest) = answer.split_first()?;
    let (states, []) = rest.as_chunks() else { return None };
    let charges = subject.charges();
    let state = |(charge, [remaining, more_in]): (&super::subject::Charge, &[u64; 2])| PolicyState {
        policy: charge.policy,
        // The script returns what remained before the request.
        remaining: u32::try_from(remaining.saturating_sub(*admitted)).unwrap_or(u32::MAX),
        more_in: Duration::from_micros(*more_in),
        refuses: *remaining == 0,
    };
    (states.len() == charges.len()).then(|| Decision(charges.iter().zip(states).map(state).collect()))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
