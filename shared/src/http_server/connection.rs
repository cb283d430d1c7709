//! Serves one connection until it ends or is closed.
//!
//! Invariant: a connection wakes only for its own traffic and for the close signal, so a thousand
//! silent connections cost nothing. `open_connections.rs` decides when to close, using the phase in
//! `activity.rs`. hyper's own timers are disabled, because they cover neither the wait for the
//! first byte nor the protocol detection before hyper proper.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use super::activity::Activity;
use super::request_service::RequestService;
use super::watched_stream::WatchedStream;
use super::{BoxError, HttpService, PeerAddr, ServerLimits};

const MAX_STREAMS: u32 = 200;
const PING_EVERY: Duration = Duration::from_secs(20);

pub(super) type Builder = auto::Builder<TokioExecutor>;

/// HTTP/1.1, and HTTP/2 with prior knowledge, distinguished by the first bytes.
pub(super) fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new(TokioExecutor::new());
    let head_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder.http1().header_read_timeout(None).max_buf_size(head_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        // A peer that vanished without closing would otherwise stay forever while a request is in
        // flight.
        .keep_alive_interval(PING_EVERY);
    builder
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: PeerAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) builder: Arc<Builder>,
}

impl Connection {
    /// Serves until the connection ends for any reason.
    pub(super) async fn run<S, B>(self, service: S)
    where
        S: HttpService<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let Self { stream, peer, activity, builder } = self;
        let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&activity)));
        let service = RequestService { inner: service, peer, activity: Arc::clone(&activity) };
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            biased;
            end = connection.as_mut() => return log_end(end),
            () = activity.closing() => connection.as_mut().graceful_shutdown(),
        }
        log_end(connection.await);
    }
}

/// Clients disconnect and send invalid data all the time, so this is logged at debug level only.
fn log_end(end: Result<(), BoxError>) {
    if let Err(error) = end {
        tracing::debug!(error = &*error as &dyn std::error::Error, "a connection ended early");
    }
}
