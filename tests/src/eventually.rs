//! The only polling loop of the test suite.
//!
//! For conditions without a notification: a row written by another process, a port that opens.
//! Where an event can be awaited (`wait_for` of the sinks), await it instead. Invariant: the
//! condition is checked at least once, and once more after the time-out, so a slow machine fails
//! only if the condition is really false.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const INTERVAL: Duration = Duration::from_millis(10);

/// Runs `check` every 10 ms until it returns a value, and returns that value.
///
/// # Panics
/// If `timeout` passes first; the message contains `what`.
pub async fn eventually<T, F>(timeout: Duration, what: &str, check: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    match poll_until(timeout, check).await {
        Some(value) => value,
        None => panic!("not within {timeout:?}: {what}"),
    }
}

/// Like [`eventually`], for callers with a more specific message or a fallback.
pub async fn poll_until<T, F>(timeout: Duration, mut check: F) -> Option<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + timeout;
    loop {
        let last = Instant::now() >= deadline;
        let found = check().await;
        if found.is_some() || last {
            return found;
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_first_value() {
        let mut tries = 0;
        let found = eventually(Duration::from_secs(5), "the third try", async || {
            tries += 1;
            (tries == 3).then_some("third")
        });
        assert_eq!(found.await, "third");
    }

    #[tokio::test]
    #[should_panic(expected = "not within 20ms: the moon")]
    async fn says_what_was_missing() {
        eventually(Duration::from_millis(20), "the moon", async || None::<()>).await;
    }
}
