//! One of the long-running processes, and how to stop it and start it again.
//!
//! Invariant: after `restart…` the readiness probe succeeds.

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

    /// The URL of the readiness probe.
    pub fn ready_url(&self) -> &str {
        &self.ready_url
    }

    /// Waits until the readiness probe succeeds.
    pub async fn ready(&mut self) -> Result<()> {
        self.process.wait_ready(&self.ready_url, READY_TIMEOUT).await
    }

    /// Kills the process with SIGKILL and starts it again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.ready().await
    }

    /// Stops the process with SIGTERM, requires exit status 0, and starts it again.
    pub async fn terminate_and_restart(&mut self) -> Result<()> {
        self.process.sigterm()?;
        let status = self.process.wait_exit(READY_TIMEOUT).await?;
        ensure!(status.success(), "{} exited after SIGTERM with {status}", self.name);
        self.process.restart().await?;
        self.ready().await
    }
}
