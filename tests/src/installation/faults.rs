//! The faults that a campaign must survive, each from injection to full recovery.
//!
//! Invariant: when the function of a fault returns, all processes and stores run and are ready, so
//! whatever is missing then is Rota's responsibility.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::Installation;
use crate::{eventually::eventually, tcp_proxy::Mode};

const SOON: Duration = Duration::from_secs(10);

impl Installation {
    /// Kills a worker in the middle of its work and starts it again.
    pub async fn kill_worker(&mut self, number: usize) -> Result<()> {
        self.workers.get_mut(number).context("there is no such worker")?.kill_and_restart().await
    }

    /// Deletes everything in Redis.
    pub async fn flush_redis(&mut self) -> Result<()> {
        self.redis.flush_all().await
    }

    /// Kills Redis and restarts it with the data of an earlier dump.
    pub async fn restart_redis_from(&mut self, dump: &Path) -> Result<()> {
        self.redis.restart_from_dump(dump).await
    }

    /// Crashes PostgreSQL and recovers it.
    pub async fn crash_postgres(&mut self) -> Result<()> {
        self.postgres.restart_immediate().await
    }

    /// Terminates every process and starts it again, one after the other.
    pub async fn terminate_in_turn(&mut self) -> Result<()> {
        for role in self.roles() {
            role.terminate_and_restart().await?;
        }
        Ok(())
    }

    /// Accepts a campaign and kills the API before Redis receives it. Returns the campaign's path.
    pub async fn kill_api_between_commit_and_push(&mut self, name: &str, leads_csv: &str) -> Result<String> {
        self.links.api.redis.set(Mode::Blackhole);
        let before = self.links.api.redis.bytes();
        let campaign = self.tenant.campaign_at_once(name, leads_csv).await?;
        self.api.process.kill9().await?;
        // `Reset` discards the bytes that the black hole holds; `Pass` would forward them.
        self.links.api.redis.set(Mode::Reset);
        eventually(SOON, "the API's connections to Redis are gone", async || {
            (self.links.api.redis.open_connections() == 0).then_some(())
        })
        .await;
        ensure!(self.links.api.redis.bytes() == before, "Redis received the campaign");
        self.links.api.redis.set(Mode::Pass);
        self.api.kill_and_restart().await?;
        Ok(campaign)
    }
}
