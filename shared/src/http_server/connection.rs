//! The life of one connection: served, then closed by the client, by its own idleness, to make room, or by the drain.
//!
//! Invariant: after a goodbye only a request in flight, or an answer still being taken, keeps it open. What it is
//! doing is told by `activity.rs`; hyper's own timers are off, as they know neither the wait for the first byte nor
//! the guess at the protocol that goes before hyper proper.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Verdict};
use super::request_service::RequestService;
use super::watched_stream::WatchedStream;
use super::{BoxError, HttpService, PeerAddr, ServerLimits};

/// After a goodbye: time for a request that crossed it on the way to show up.
const LINGER: Duration = Duration::from_millis(250);

const MAX_STREAMS: u32 = 200;
const PING_EVERY: Duration = Duration::from_secs(20);

pub(super) type Builder = auto::Builder<TokioExecutor>;

/// HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first bytes.
pub(super) fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new(TokioExecutor::new());
    let head_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(head_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.max_header_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        // A peer that vanished without a word would stay for good once it has a request in flight.
        .keep_alive_interval(PING_EVERY);
    builder
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: PeerAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) limits: Arc<ServerLimits>,
    pub(super) builder: Arc<Builder>,
}

impl Connection {
    /// Serves until the connection ends for whatever reason.
    pub(super) async fn run<S, B>(self, service: S, stop: CancellationToken)
    where
        S: HttpService<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let Self {
            stream,
            peer,
            activity,
            limits,
            builder,
        } = self;
        let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&activity)));
        let service = RequestService {
            inner: service,
            peer,
            activity: Arc::clone(&activity),
        };
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut ticks = ticks(&limits);
        loop {
            tokio::select! {
                biased;
                end = connection.as_mut() => return log_end(end),
                () = stop.cancelled() => break,
                () = activity.evicted() => break,
                _ = ticks.tick() => match activity.verdict(&limits) {
                    Verdict::Keep => {}
                    Verdict::Close => break,
                    Verdict::Cut => return,
                },
            }
        }
        connection.as_mut().graceful_shutdown();
        let goodbye = Instant::now();
        loop {
            tokio::select! {
                biased;
                end = connection.as_mut() => return log_end(end),
                _ = ticks.tick() => {
                    let lingered = goodbye.elapsed() >= LINGER || activity.is_evicted();
                    if (lingered && activity.idle_since().is_some()) || activity.verdict(&limits) == Verdict::Cut {
                        return;
                    }
                }
            }
        }
    }
}

/// Often enough to be near the shortest limit, seldom enough for ten thousand connections.
fn ticks(limits: &ServerLimits) -> Interval {
    let shortest = limits
        .header_timeout
        .min(limits.first_byte_timeout)
        .min(limits.keep_alive);
    let period = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_millis(500));
    // Not at once: most connections of a burst are gone before the first look.
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Clients hang up and send nonsense all day: of interest only to who looks for it.
fn log_end(end: Result<(), BoxError>) {
    if let Err(error) = end {
        tracing::debug!(
            error = &*error as &dyn std::error::Error,
            "a connection ended early"
        );
    }
}
