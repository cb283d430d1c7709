//! Reconciles limits and pauses in the index with the ledger: the message of a command may be lost,
//! or a tenant may be new.

use std::time::Duration;

use shared::queue::{QueueName, limits::Limiter};

use crate::{elector::Leading, maintainer::Service};

/// Compares all queues, one after the other.
pub struct LimitKeeper {
    limiter: Limiter,
    queues: Vec<QueueName>,
    interval: Duration,
}

impl LimitKeeper {
    /// A keeper that runs every `interval`.
    pub const fn new(limiter: Limiter, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { limiter, queues, interval }
    }
}

impl Service for LimitKeeper {
    const NAME: &'static str = "limit keeper";
    type Report = u64;

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<u64> {
        Ok(self.limiter.reconcile(&self.queues).await?)
    }
}
