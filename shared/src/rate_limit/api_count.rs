//! The number of APIs, among which a limit is divided while Redis is unavailable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::shared_counters::SharedCounters;

const INTERVAL: Duration = Duration::from_secs(2);
/// An API that is not noted for this long no longer counts.
const MEMORY: Duration = Duration::from_secs(10);

/// The last known number. It is kept while Redis is unavailable; until it is known, it is one.
#[derive(Clone)]
pub(super) struct ApiCount(Arc<AtomicU32>);

impl ApiCount {
    /// Counts until `stop`.
    pub(super) fn start(counters: Arc<SharedCounters>, stop: CancellationToken) -> Self {
        let count = Self(Arc::new(AtomicU32::new(1)));
        tokio::spawn(count.clone().run(counters, stop));
        count
    }

    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    async fn run(self, counters: Arc<SharedCounters>, stop: CancellationToken) {
        let id = Uuid::new_v4().to_string();
        let mut ticks = interval(INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // The limiter logs outages.
            if let Ok(count) = counters.count_apis(&id, MEMORY).await {
                self.0.store(count.max(1), Ordering::Relaxed);
            }
        }
    }
}
