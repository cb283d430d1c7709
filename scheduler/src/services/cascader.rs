//! Continues the follow-up work that finished jobs left for their dependents.

use std::time::Duration;

use shared::{
    db::SystemDb,
    queue::{Index, control::cascade},
};

use crate::{elector::Leading, maintainer::Service};

const INTERVAL: Duration = Duration::from_millis(100);
/// Rounds per run: a leader whose term is over stops after the current run.
const ROUNDS: usize = 50;

/// Continues cascades.
pub struct Cascader {
    db: SystemDb,
    index: Index,
}

impl Cascader {
    /// A cascader over both stores.
    pub const fn new(db: SystemDb, index: Index) -> Self {
        Self { db, index }
    }
}

impl Service for Cascader {
    const NAME: &'static str = "cascader";
    type Report = u64;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<u64> {
        let mut done = 0;
        for _ in 0..ROUNDS {
            let steps = cascade::advance(&self.db, &self.index).await?;
            if steps == 0 {
                break;
            }
            done += steps;
        }
        Ok(done)
    }
}
