//! A TCP proxy that injects faults on command, between a process and PostgreSQL, Redis, SMTP or
//! another peer.
//!
//! Invariant: a change of mode applies to the next chunk of every connection, existing or new.
//! `Reset` applies at once, and so does any mode to data that `Blackhole` holds back. Nothing is
//! reordered and, except with `DropReply`, only a reset loses data.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Resets new connections and leaves existing ones alone.
    Refuse,
    /// Resets every connection, existing and new.
    Reset,
    /// Accepts connections, and holds back all data both ways until the mode changes.
    Blackhole,
    /// Delays each chunk by this long.
    Delay(Duration),
    /// Resets a connection after this many bytes in one direction; `None` is no limit.
    CutAfter {
        up_bytes: Option<u64>,
        down_bytes: Option<u64>,
    },
    /// The upstream receives and executes requests, the client gets no replies.
    DropReply,
}

/// The running proxy; stopped with its connections on `Drop`.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Connections up to this number forward nothing.
    silent: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl TcpProxy {
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            mode: watch::Sender::new(Mode::Pass),
            silent: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, server })
    }

    /// A proxy of the server that `url` names, and the URL through it.
    pub async fn before(url: &str) -> Result<(String, Self)> {
        let server: url::Url = url.parse()?;
        let upstream = (server.host_str().context("a host")?, server.port().context("a port")?);
        let proxy = Self::start(tokio::net::lookup_host(upstream).await?.next().context("an address")?).await?;
        Ok((proxy.url(url)?, proxy))
    }

    /// The URL of the upstream, through this proxy.
    pub fn url(&self, upstream: &str) -> Result<String> {
        let mut url: url::Url = upstream.parse()?;
        url.set_ip_host(self.address.ip()).ok().context("an address")?;
        url.set_port(Some(self.address.port())).ok().context("a port")?;
        Ok(url.into())
    }

    /// The address to connect to instead of the upstream.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Stops forwarding on all open connections without closing them, as if a firewall had dropped
    /// their state. New connections work.
    pub fn silence_open(&self) {
        self.shared.silent.store(self.connections(), Ordering::Relaxed);
    }

    /// Connections accepted so far, including the refused ones.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that have not ended.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Bytes forwarded to the upstream and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.up_bytes.load(Ordering::Relaxed), self.shared.down_bytes.load(Ordering::Relaxed))
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The set owns the connections, so aborting this task ends them too.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            connection(client, number, &shared).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection(mut client: TcpStream, number: u64, shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    if matches!(*mode.borrow(), Mode::Refuse | Mode::Reset) {
        return reset(&client);
    }
    let Ok(mut upstream) = TcpStream::connect(shared.upstream).await else {
        return reset(&client);
    };
    // The proxy must add no delay of its own: both peers disable Nagle's algorithm too.
    if client.set_nodelay(true).and_then(|()| upstream.set_nodelay(true)).is_err() {
        return reset(&client);
    }
    let outcome = {
        let (client_reader, client_writer) = client.split();
        let (upstream_reader, upstream_writer) = upstream.split();
        let up = pump(client_reader, upstream_writer, (number, Direction::Up), shared);
        let down = pump(upstream_reader, client_writer, (number, Direction::Down), shared);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(drop),
            _ = mode.wait_for(|mode| *mode == Mode::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    if outcome.is_err() {
        reset(&client);
        reset(&upstream);
    }
}

/// Makes closing the stream send an RST.
fn reset(stream: &TcpStream) {
    // If this fails, the connection merely closes normally.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Copies until the end of input, and forwards the end; an error resets both sides.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    (number, direction): (u64, Direction),
    shared: &Shared,
) -> io::Result<()> {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut seen_bytes = 0;
    loop {
        let length = from.read(&mut buffer).await?;
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Blackhole).await.map(|mode| *mode) else {
            return Ok(());
        };
        if number <= shared.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if length == 0 {
            return to.shutdown().await;
        }
        match now {
            Mode::Delay(delay) => sleep(delay).await,
            // Data held back by the black hole is lost with its connection.
            Mode::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            Mode::DropReply if direction == Direction::Down => continue,
            _ => {}
        }
        let allowed = now.allowance(direction, seen_bytes).map_or(length, |bytes| bytes.min(length));
        to.write_all(&buffer[..allowed]).await?;
        shared.forwarded(direction, allowed);
        seen_bytes += allowed as u64;
        if now.allowance(direction, seen_bytes) == Some(0) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}

impl Mode {
    /// How many more bytes may be forwarded in this direction; `None` is no limit.
    fn allowance(self, direction: Direction, seen_bytes: u64) -> Option<usize> {
        let Self::CutAfter { up_bytes, down_bytes } = self else { return None };
        let limit = if direction == Direction::Up { up_bytes } else { down_bytes };
        limit.map(|limit| usize::try_from(limit.saturating_sub(seen_bytes)).unwrap_or(usize::MAX))
    }
}

impl Shared {
    fn forwarded(&self, direction: Direction, bytes: usize) {
        let counter = if direction == Direction::Up { &self.up_bytes } else { &self.down_bytes };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
