//! The HTTP server of every process: connections and their limits. It knows no routes; a tower
//! service handles requests.
//!
//! Invariants: a connection that makes no progress with a request (sends nothing, sends half a
//! head, or idles) costs one socket for a bounded time, never takes a slot that an active client
//! needs, and never delays the drain. A request that is in flight at shutdown is finished within
//! the grace period. One mechanism implements all of this: `activity.rs` tracks the phase of a
//! connection, `open_connections.rs` reviews all connections on a tick and closes those that have
//! exceeded their limits, `connection.rs` ends them. `flood.rs` counts the HTTP/2 frames that hyper
//! does not limit. `accept.rs` accepts connections; [`probe`] is the small server of worker and
//! scheduler.

mod accept;
mod activity;
mod connection;
mod flood;
mod frames;
mod held_body;
mod listener;
mod open_connections;
mod open_files;
pub mod probe;
mod request_service;
mod watched_stream;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Bytes, Incoming};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::accept::Acceptor;
pub use self::held_body::HeldBody;
pub use self::listener::{ListenError, bind};

/// The error type of bodies, as in tower and hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Address of the peer, an extension of every request. Behind a proxy it is the proxy's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Limits of one connection, and of their number.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Time from the first byte of a request to the end of its head; default 10 s.
    pub header_timeout: Duration,
    /// Time from the connect to the first byte; default 10 s.
    pub first_byte_timeout: Duration,
    /// Time from the end of a response to the next request; default 75 s, longer than the
    /// keep-alive of common proxies.
    pub keep_alive: Duration,
    /// How long a client may leave a response unread; default 30 s.
    pub write_timeout: Duration,
    /// Maximum number of open connections; default 10,000, fewer if the limit of open files is low.
    /// At the maximum, the connection that has been idle longest is closed for a new one.
    pub max_connections: usize,
    /// Maximum bytes of a request's head; default 64 KiB, minimum 8 KiB.
    pub max_header_bytes: u32,
    /// Time from the stop to the end of the last request in flight; default 25 s, below the usual
    /// 30 s of supervisors.
    pub drain_grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_header_bytes: 64 * 1024,
            drain_grace: Duration::from_secs(25),
        }
    }
}

/// Result of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections cut off with a request in flight at the end of the grace period; 0 in the good
    /// case.
    pub cut_off: usize,
}

/// A service that handles requests. `serve` clones it for each connection.
pub trait HttpService<B>:
    tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<B, S> HttpService<B> for S where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

/// Serves until `stop`, then drains, and returns within [`ServerLimits::drain_grace`].
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: ServerLimits,
    stop: CancellationToken,
) -> DrainReport
where
    S: HttpService<B>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let max_connections = open_files::connections_within(open_files::raise_limit(), limits.max_connections);
    let limits = ServerLimits { max_connections, ..limits };
    Acceptor::new(Arc::new(limits), stop).run(listener, service).await
}

/// The body of the server's own small responses.
type SmallBody = UnsyncBoxBody<Bytes, Infallible>;
