//! A child process that can be signalled and waited for, and that never outlives its handle.
//!
//! Shared by `process`, `postgres` and `redis_server`. The child is the standard library's and is
//! polled; tokio's would not work in `Drop` and across the runtimes of several tests. Invariant:
//! after `Drop` the process is dead and reaped.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::poll_until;

#[derive(Debug)]
pub struct ManagedChild {
    child: Child,
    drop_signal: Signal,
}

impl ManagedChild {
    /// `Drop` sends `drop_signal` first, then SIGKILL if the process still runs after two seconds.
    pub fn spawn(command: &mut Command, drop_signal: Signal) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, drop_signal })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Signalling a process that has already ended is not an error, since tests race with the exit
    /// on purpose.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("send {signal} to {pid}")),
        }
    }

    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for a child process")
    }

    /// Returns `None` if the process still runs after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        poll_until(timeout, async || self.exit_status().transpose()).await.transpose()
    }

    /// Sends `signal` and waits for the exit; fails if the process still runs after `timeout`.
    pub async fn end(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(timeout).await?.with_context(|| format!("process {} outlived {signal} by {timeout:?}", self.id()))
    }

    fn end_blocking(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(self.exit_status(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for ManagedChild {
    fn drop(&mut self) {
        // A stopped process handles no signal except SIGKILL until it is continued.
        let _ = self.signal(self.drop_signal);
        let _ = self.signal(Signal::SIGCONT);
        if !self.end_blocking(Duration::from_secs(2)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
