//! How long a request waits for shared resources: a connection, a commit.
//!
//! Invariant: all waits of a request count from its arrival. Consecutive waits do not add up, so a
//! client gets its refusal in time however many clients wait, and for whichever resource.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Time from the arrival of a request until it is refused because the service is unavailable.
/// Clients are promised three seconds.
pub const PATIENCE: Duration = Duration::from_millis(2_500);
/// Wait for each transaction of a request that runs for longer than [`PATIENCE`].
const LEAST: Duration = Duration::from_millis(400);

tokio::task_local! {
    static ARRIVED: Instant;
}

/// Runs the handler of a request that has just arrived.
pub async fn from_now<T>(request: impl Future<Output = T>) -> T {
    ARRIVED.scope(Instant::now(), request).await
}

/// How long the current request may still wait; `None` outside of a request.
pub fn of_request() -> Option<Duration> {
    let waited = ARRIVED.try_with(Instant::elapsed).ok()?;
    Some(PATIENCE.saturating_sub(waited).max(LEAST))
}

/// How long the current request may still wait. Outside of a request the wait starts now.
pub fn remaining() -> Duration {
    of_request().unwrap_or(PATIENCE)
}

/// Waits for as long as the current request may; `None` if that time runs out.
pub async fn within<T>(wait: impl Future<Output = T>) -> Option<T> {
    timeout(remaining(), wait).await.ok()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn remaining_after(waited: Duration) -> Duration {
        ARRIVED.scope(Instant::now() - waited, async { remaining() }).await
    }

    #[tokio::test]
    async fn the_remaining_wait_counts_from_the_arrival_of_the_request() {
        assert_eq!(remaining(), PATIENCE);
        assert!(remaining_after(Duration::from_secs(1)).await + Duration::from_secs(1) <= PATIENCE);
        assert_eq!(remaining_after(Duration::from_secs(10)).await, LEAST);
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_patience_is_exhausted() {
        let waited = ARRIVED.scope(Instant::now() - PATIENCE, within(pending::<()>()));
        assert_eq!(timeout(PATIENCE, waited).await.expect("it ends before"), None);
    }
}
