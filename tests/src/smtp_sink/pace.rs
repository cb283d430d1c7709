//! A limit on the messages that the sink accepts per second, so that a campaign lasts long enough
//! to inject faults.
//!
//! Invariant: the sink requests message bodies at least one interval apart, over all connections
//! together. A client that waits has sent no complete message, so nothing can be accepted after its
//! death.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
pub(super) struct Pace {
    interval: Option<Duration>,
    next: Mutex<Instant>,
}

impl Pace {
    /// `None` or 0 is no limit.
    pub fn per_second(rate: Option<u32>) -> Self {
        let interval = rate.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(1) / rate);
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    pub async fn wait(&self) {
        let Some(interval) = self.interval else { return };
        let slot = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = (*next).max(Instant::now());
            *next = slot + interval;
            slot
        };
        sleep_until(slot).await;
    }
}
