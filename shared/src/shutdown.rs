//! Signal handling: how a process is stopped, and what other signals do.
//!
//! SIGTERM, SIGINT, SIGHUP and SIGQUIT start a drain. A further SIGTERM or SIGINT ends the process
//! immediately, unless it arrives within [`SAME_REQUEST`] of the first: a terminal and a supervisor
//! often send one signal each for a single stop. Signals that have no meaning here and whose
//! default action would end the process without a drain are logged and ignored.
//!
//! Invariant: one token stands for "stop" in the whole process; it is cancelled once and never
//! reset. Each holder of a clone ends its own work; [`crate::http_server`] drains on it.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The exit status that a shell reports for a process ended by SIGINT, used when an operator does
/// not wait for the drain.
const EXIT_ON_SECOND_SIGNAL: i32 = 130;
/// Signals within this time of the first one belong to the same stop request.
pub const SAME_REQUEST: Duration = Duration::from_secs(1);
/// Capacity of the signal queue. Signals that do not fit arrived faster than a log can be read.
const PENDING: usize = 64;

/// Signals that `SignalKind` has no name for, numbered as on Linux. SIGTTIN, SIGTTOU and SIGTSTP
/// keep their default, which is job control; SIGPIPE is ignored by Rust's runtime; the others
/// cannot be handled or report that the process is broken.
#[cfg(target_os = "linux")]
const OTHER_IGNORED: [(i32, &str); 5] =
    [(16, "SIGSTKFLT"), (26, "SIGVTALRM"), (27, "SIGPROF"), (29, "SIGIO"), (30, "SIGPWR")];
/// Real-time signals. The C library uses the two below the first.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Drain; during a drain, exit immediately.
    Stop,
    /// Drain, and never cut a drain short: closing a terminal sends this signal in addition to
    /// another one.
    Drain,
    /// No effect.
    Ignore,
}

/// Handles signals for the lifetime of the process.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Installs the handlers. Call this inside the runtime and before any work; otherwise an early
    /// signal kills the process.
    pub fn new() -> io::Result<Self> {
        let (sender, received) = mpsc::channel(PENDING);
        for (kind, name, meaning) in named() {
            forward(signal(kind)?, name, meaning, sender.clone());
        }
        for (kind, name) in unnamed() {
            // A system without this signal needs no handler for it.
            if let Ok(listener) = signal(kind) {
                forward(listener, name, Meaning::Ignore, sender.clone());
            }
        }
        let token = CancellationToken::new();
        tokio::spawn(listen(received, token.clone()));
        Ok(Self { token })
    }

    /// A clone of the token that is cancelled on the first signal.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Returns once the process has been requested to stop.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}

fn named() -> [(SignalKind, &'static str, Meaning); 7] {
    [
        (SignalKind::terminate(), "SIGTERM", Meaning::Stop),
        (SignalKind::interrupt(), "SIGINT", Meaning::Stop),
        (SignalKind::hangup(), "SIGHUP", Meaning::Drain),
        (SignalKind::quit(), "SIGQUIT", Meaning::Drain),
        (SignalKind::user_defined1(), "SIGUSR1", Meaning::Ignore),
        (SignalKind::user_defined2(), "SIGUSR2", Meaning::Ignore),
        (SignalKind::alarm(), "SIGALRM", Meaning::Ignore),
    ]
}

#[cfg(target_os = "linux")]
fn unnamed() -> impl Iterator<Item = (SignalKind, &'static str)> {
    let others = OTHER_IGNORED.into_iter().chain(REAL_TIME.map(|number| (number, "a real-time signal")));
    others.map(|(number, name)| (SignalKind::from_raw(number), name))
}

#[cfg(not(target_os = "linux"))]
fn unnamed() -> impl Iterator<Item = (SignalKind, &'static str)> {
    std::iter::empty()
}

fn forward(mut listener: Signal, name: &'static str, meaning: Meaning, to: mpsc::Sender<(&'static str, Meaning)>) {
    tokio::spawn(async move { while listener.recv().await.is_some() && to.send((name, meaning)).await.is_ok() {} });
}

async fn listen(mut signals: mpsc::Receiver<(&'static str, Meaning)>, token: CancellationToken) {
    let mut draining_since: Option<Instant> = None;
    while let Some((signal, meaning)) = signals.recv().await {
        match (meaning, draining_since) {
            (Meaning::Ignore, _) => tracing::info!(signal, "ignoring a signal that has no meaning here"),
            (_, None) => {
                tracing::info!(signal, "stop requested, draining; another SIGTERM or SIGINT ends the process at once");
                draining_since = Some(Instant::now());
                token.cancel();
            }
            (Meaning::Stop, Some(since)) if since.elapsed() >= SAME_REQUEST => {
                tracing::warn!(signal, "stop requested a second time, exiting without draining");
                std::process::exit(EXIT_ON_SECOND_SIGNAL);
            }
            (_, Some(_)) => tracing::info!(signal, "draining already"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn send(name: &str) {
        let own_id = std::process::id().to_string();
        assert!(Command::new("kill").args([name, &own_id]).status().unwrap().success());
    }

    #[tokio::test]
    async fn ignored_signals_have_no_effect_and_sigterm_cancels_the_token() {
        let shutdown = Shutdown::new().unwrap();
        // Not every kill(1) knows all names: 29 is IO, 34 and 64 are the first and last real-time
        // signals.
        for name in ["-USR1", "-USR2", "-ALRM", "-VTALRM", "-PROF", "-29", "-34", "-64"] {
            send(name);
        }
        assert!(!shutdown.token().is_cancelled());
        send("-TERM");
        send("-TERM");
        tokio::time::timeout(Duration::from_secs(5), shutdown.wait()).await.unwrap();
    }
}
