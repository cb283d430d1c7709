//! Receives stamps from the kinds when runs begin and end (see `jobs::kinds::testing::stamp`).
//!
//! Invariant: times are taken by the worker, on the clock that [`now_ns`] also reads; a lost stamp
//! is missing, never wrong.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use shared::clock::Clock;
use tests::eventually::poll_until;
use tokio::{net::UdpSocket, task::JoinHandle};

/// The stamps of one token.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Unix nanoseconds of each start, in order of arrival.
    pub starts: Vec<i64>,
    /// Unix nanoseconds of each end.
    pub ends: Vec<i64>,
}

/// The receiver of stamps.
pub struct Stamps {
    port: u16,
    heard: Arc<Mutex<HashMap<u64, Runs>>>,
    listener: JoinHandle<()>,
}

impl Stamps {
    /// Listens on a port chosen by the kernel.
    pub async fn listen() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // Bursts of short jobs must not be lost before they are read; the kernel may grant less.
        socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
        let (port, heard) = (socket.local_addr()?.port(), Arc::<Mutex<HashMap<u64, Runs>>>::default());
        let listener = tokio::spawn(hear(socket, Arc::clone(&heard)));
        Ok(Self { port, heard, listener })
    }

    /// The argument that makes a kind send stamps.
    pub fn argument(&self, token: u64) -> serde_json::Value {
        serde_json::json!({ "port": self.port, "token": token })
    }

    /// The port that stamps are sent to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// All stamps received so far.
    pub fn heard(&self) -> HashMap<u64, Runs> {
        self.lock().clone()
    }

    /// The stamps received for one token.
    pub fn of(&self, token: u64) -> Runs {
        self.lock().get(&token).cloned().unwrap_or_default()
    }

    /// Waits until a condition holds for a token; `None` if it does not within `patience`.
    pub async fn wait(&self, token: u64, patience: Duration, condition: impl Fn(&Runs) -> bool) -> Option<Runs> {
        poll_until(patience, async || Some(self.of(token)).filter(|runs| condition(runs))).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Runs>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The clock of the stamps.
pub fn now_ns() -> i64 {
    Clock::system().now().timestamp_nanos_opt().unwrap_or_default()
}

/// The time from one stamp to another, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "spans here are far below 2^52 ns")]
pub const fn ms_between(from_ns: i64, to_ns: i64) -> f64 {
    (to_ns - from_ns) as f64 / 1e6
}

async fn hear(socket: UdpSocket, heard: Arc<Mutex<HashMap<u64, Runs>>>) {
    let mut buffer = [0; 128];
    while let Ok(length) = socket.recv(&mut buffer).await {
        let Some((event, token, at_ns)) = parse(&buffer[..length]) else { continue };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = heard.entry(token).or_default();
        if event == "start" { runs.starts.push(at_ns) } else { runs.ends.push(at_ns) }
    }
}

fn parse(datagram: &[u8]) -> Option<(&str, u64, i64)> {
    let mut words = std::str::from_utf8(datagram).ok()?.split(' ');
    Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
