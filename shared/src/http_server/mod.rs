//! The HTTP server under every process: connections and their limits. It knows no routes; a tower service answers.
//!
//! Invariants: a connection that does not get on with a request (sends nothing, half a head, or idles) costs a socket
//! for a bounded time, never a slot that a good client needs, and never delays the drain; a request in flight when
//! the process is asked to stop is finished within the grace. One mechanism does all of it: `activity.rs` knows what a
//! connection is doing, `open_connections.rs` looks at all of them on a tick and tells those that have had their time,
//! `connection.rs` obeys.
//! `flood.rs` counts the HTTP/2 frames that hyper does not. `accept.rs` lets connections in; [`probe`] is the small server of worker and scheduler.

mod accept;
mod activity;
mod connection;
mod flood;
mod frames;
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
pub use self::listener::{ListenError, bind};

/// An error of a body, as tower and hyper exchange it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who is at the other end of the connection; an extension of every request. Behind a proxy it is the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// What one connection may take and how many there may be.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// From the first byte of a request to the end of its head; default 10 s.
    pub header_timeout: Duration,
    /// From the connect to the first byte; default 10 s.
    pub first_byte_timeout: Duration,
    /// From the end of one answer to the next request; default 75 s, longer than the usual proxies keep theirs.
    pub keep_alive: Duration,
    /// How long a client may leave an answer unread; default 30 s.
    pub write_timeout: Duration,
    /// Open at once; default 10,000, fewer where the limit of open files is low. Beyond it the connection that has idled longest makes room.
    pub max_connections: usize,
    /// Bytes of a request's head; default 64 KiB, least 8 KiB.
    pub max_header_bytes: u32,
    /// From the stop to the end of the last request in flight; default 25 s, below the usual 30 s of supervisors.
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

/// How the drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections cut off with a request in flight when the grace was over; 0 is the good case.
    pub cut_off: usize,
}

/// A service that answers requests: what `serve` is given a clone of per connection.
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

/// The body of our own small answers.
type SmallBody = UnsyncBoxBody<Bytes, Infallible>;
