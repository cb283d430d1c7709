//! How a process is told to stop, and what it makes of the other signals.
//!
//! SIGTERM, SIGINT, SIGHUP and SIGQUIT ask it to drain. A further SIGTERM or SIGINT ends it at once, unless it comes
//! within [`SAME_REQUEST`] of the first: a terminal and a supervisor often send a signal each for one stop. Signals with no
//! meaning here, whose default action is to end the process undrained, are logged and ignored.
//!
//! Invariant: one token stands for "stop" in the whole process; it is cancelled once and never taken back. Whoever
//! holds a clone ends its own work; [`crate::http_server`] drains on it.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process ended by SIGINT; said when an operator does not want to wait for the drain.
const EXIT_ON_SECOND_SIGNAL: i32 = 130;
/// Signals this close together are one request to stop.
pub const SAME_REQUEST: Duration = Duration::from_secs(1);
/// Signals come one at a time; what does not fit was sent faster than a log can be read.
const PENDING: usize = 64;

/// Numbers as on Linux, for the signals that `SignalKind` has no name for. SIGTTIN, SIGTTOU and SIGTSTP keep their default,
/// which is job control; SIGPIPE is ignored by Rust's runtime; the rest cannot be handled or says that the process is broken.
#[cfg(target_os = "linux")]
const OTHER_IGNORED: [(i32, &str); 5] =
    [(16, "SIGSTKFLT"), (26, "SIGVTALRM"), (27, "SIGPROF"), (29, "SIGIO"), (30, "SIGPWR")];
/// Real-time signals; the two below the first belong to the C library.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// What a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Drain; and when draining already, end at once.
    Stop,
    /// Drain, and nothing more: closing a terminal sends it beside another one.
    Drain,
    /// Nothing.
    Ignore,
}

/// Listens to the signals for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Starts to listen. Call it inside the runtime and before any work, or an early signal kills the process.
    pub fn new() -> io::Result<Self> {
        let (sender, received) = mpsc::channel(PENDING);
        for (kind, name, meaning) in named() {
            forward(signal(kind)?, name, meaning, sender.clone());
        }
        for (kind, name) in unnamed() {
            // A system without such a signal needs no handler for it.
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

    /// Returns once the process has been asked to stop.
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
                tracing::info!(signal, "asked to stop, draining; a second SIGTERM or SIGINT ends the process at once");
                draining_since = Some(Instant::now());
                token.cancel();
            }
            (Meaning::Stop, Some(since)) if since.elapsed() >= SAME_REQUEST => {
                tracing::warn!(signal, "told to stop a second time, leaving without draining");
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
    async fn ignored_signals_leave_the_process_alone_and_sigterm_cancels_the_token() {
        let shutdown = Shutdown::new().unwrap();
        // Not every kill(1) knows the names of all: 29 is IO, 34 and 64 are the first and the last real-time signal.
        for name in ["-USR1", "-USR2", "-ALRM", "-VTALRM", "-PROF", "-29", "-34", "-64"] {
            send(name);
        }
        assert!(!shutdown.token().is_cancelled());
        send("-TERM");
        send("-TERM");
        tokio::time::timeout(Duration::from_secs(5), shutdown.wait()).await.unwrap();
    }
}
