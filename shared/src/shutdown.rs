//! How a process is told to stop: the first SIGTERM or SIGINT asks it to drain, the second ends it at once.
//!
//! Invariant: one token stands for "stop" in the whole process; it is cancelled once and never taken back. Whoever
//! holds a clone ends its own work; [`crate::http_server`] drains on it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process ended by SIGINT; said when an operator does not want to wait for the drain.
const EXIT_ON_SECOND_SIGNAL: i32 = 130;

/// Listens to the signals for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Starts to listen. Call it inside the runtime and before any work, or an early signal kills the process.
    pub fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let token = CancellationToken::new();
        tokio::spawn(listen(terminate, interrupt, token.clone()));
        Ok(Self { token })
    }

    /// A clone of the token that is cancelled on the first signal.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Returns once the process has been asked to stop.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}

async fn listen(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    let name = next_signal(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = name, "asked to stop, draining; a second signal ends the process at once");
    token.cancel();
    let name = next_signal(&mut terminate, &mut interrupt).await;
    tracing::warn!(signal = name, "told to stop a second time, leaving without draining");
    std::process::exit(EXIT_ON_SECOND_SIGNAL);
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[tokio::test]
    async fn sigterm_cancels_the_token() {
        let shutdown = Shutdown::new().unwrap();
        assert!(!shutdown.token().is_cancelled());
        let own_id = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &own_id]).status().unwrap().success());
        tokio::time::timeout(Duration::from_secs(5), shutdown.wait()).await.unwrap();
    }
}
