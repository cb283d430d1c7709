//! One of the long-running processes, and how it is stopped and started again.
//!
//! Invariant: after `restart…` it answers its readiness probe.

use anyhow::{Result, ensure};

use super::READY_TIMEOUT;
use crate::process::{ProcessSpec, ProcessUnderTest};

/// An api, a worker or a scheduler.
#[derive(Debug)]
pub struct Role {
    pub name: String,
    pub process: ProcessUnderTest,
    ready_url: String,
}

impl Role {
    pub(super) fn start(name: &str, spec: ProcessSpec, port: u16) -> Result<Self> {
        let ready_url = format!("http://127.0.0.1:{port}/api/health/readiness");
        Ok(Self { name: name.to_owned(), process: spec.start()?, ready_url })
    }

    /// Where it says whether it takes work.
    pub fn ready_url(&self) -> &str {
        &self.ready_url
    }

    /// Waits until it takes work.
    pub async fn ready(&mut self) -> Result<()> {
        self.process.wait_ready(&self.ready_url, READY_TIMEOUT).await
    }

    /// Kills it with SIGKILL and starts it again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.ready().await
    }

    /// Ends it with SIGTERM, which it must obey with exit status 0, and starts it again.
    pub async fn terminate_and_restart(&mut self) -> Result<()> {
        self.process.sigterm()?;
        let status = self.process.wait_exit(READY_TIMEOUT).await?;
        ensure!(status.success(), "{} answered SIGTERM with {status}", self.name);
        self.process.restart().await?;
        self.ready().await
    }
}
