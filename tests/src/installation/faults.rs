//! The faults that a campaign must survive, each from its injection until everything is up again.
//!
//! Invariant: when a fault's function returns, all processes and stores run and are ready, so that whatever is still
//! missing then is for Rota to bring about.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::Installation;
use crate::{eventually::eventually, tcp_proxy::Mode};

const SOON: Duration = Duration::from_secs(10);

impl Installation {
    /// A worker is killed with what it was doing, and comes back.
    pub async fn kill_worker(&mut self, number: usize) -> Result<()> {
        self.workers.get_mut(number).context("there is no such worker")?.kill_and_restart().await
    }

    /// Redis loses everything.
    pub async fn flush_redis(&mut self) -> Result<()> {
        self.redis.flush_all().await
    }

    /// Redis dies and comes back with what it knew when the dump was made.
    pub async fn restart_redis_from(&mut self, dump: &Path) -> Result<()> {
        self.redis.restart_from_dump(dump).await
    }

    /// PostgreSQL crashes and recovers.
    pub async fn crash_postgres(&mut self) -> Result<()> {
        self.postgres.restart_immediate().await
    }

    /// Every process is asked to stop and started again, one after the other.
    pub async fn terminate_in_turn(&mut self) -> Result<()> {
        for role in self.roles() {
            role.terminate_and_restart().await?;
        }
        Ok(())
    }

    /// A campaign is accepted, and the API dies before Redis hears of it. Returns the campaign's path.
    pub async fn kill_api_between_commit_and_push(&mut self, name: &str, leads_csv: &str) -> Result<String> {
        self.links.api.redis.set(Mode::Blackhole);
        let before = self.links.api.redis.bytes();
        let campaign = self.tenant.campaign_at_once(name, leads_csv).await?;
        self.api.process.kill9().await?;
        // What the black hole holds is thrown away, not handed on.
        self.links.api.redis.set(Mode::Reset);
        eventually(SOON, "the API's connections to Redis are gone", async || {
            (self.links.api.redis.open_connections() == 0).then_some(())
        })
        .await;
        ensure!(self.links.api.redis.bytes() == before, "Redis heard of the campaign");
        self.links.api.redis.set(Mode::Pass);
        self.api.kill_and_restart().await?;
        Ok(campaign)
    }
}
