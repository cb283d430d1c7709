//! The accept loop, and the drain that ends it.
//!
//! Invariant: no error of `accept` ends the loop or makes it spin. Each connection runs as its own
//! task (`connection.rs`); the drain waits for these tasks, at most for the grace period.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::activity::Activity;
use super::connection::{self, Builder, Connection};
use super::open_connections::OpenConnections;
use super::{BoxError, DrainReport, HttpService, PeerAddr, ServerLimits};

/// Pause after an error such as "too many open files", which would recur immediately.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time that the tasks of aborted connections get to end.
const ABORT_GRACE: Duration = Duration::from_millis(500);

pub(super) struct Acceptor {
    limits: Arc<ServerLimits>,
    builder: Arc<Builder>,
    connections: Arc<OpenConnections>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    pub(super) fn new(limits: Arc<ServerLimits>, stop: CancellationToken) -> Self {
        Self {
            builder: Arc::new(connection::builder(&limits)),
            limits,
            connections: Arc::default(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    pub(super) async fn run<S, B>(self, listener: TcpListener, service: S) -> DrainReport
    where
        S: HttpService<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let serving = async {
            while let Some((stream, peer)) = self.stop.run_until_cancelled(self.next(&listener)).await {
                self.spawn(stream, PeerAddr(peer), service.clone());
            }
            // Frees the port for a successor while requests in flight finish.
            drop(listener);
            self.drain().await
        };
        tokio::select! {
            report = serving => report,
            never = self.connections.keep_reviewing(&self.limits) => match never {},
        }
    }

    async fn next(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    // Only after the accept, so that no connection is evicted before another one
                    // needs its place.
                    self.connections.wait_for_room(self.limits.max_connections).await;
                    return accepted;
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept connections, pausing");
                    self.connections.evict_idlest();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn<S, B>(&self, stream: TcpStream, peer: PeerAddr, service: S)
    where
        S: HttpService<B>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        // Otherwise small responses wait for the acknowledgement of the previous one. This fails on
        // a closed socket.
        let _ = stream.set_nodelay(true);
        let activity = Activity::new();
        let entry = self.connections.enter(Arc::clone(&activity));
        let builder = Arc::clone(&self.builder);
        let connection = Connection { stream, peer, activity: Arc::clone(&activity), builder };
        self.tasks.spawn(async move {
            activity.until_cut(connection.run(service)).await;
            drop(entry);
        });
    }

    async fn drain(&self) -> DrainReport {
        self.tasks.close();
        self.connections.close_all();
        let drained = tokio::time::timeout(self.limits.drain_grace, self.tasks.wait()).await;
        if drained.is_ok() {
            return DrainReport { cut_off: 0 };
        }
        let cut_off = self.connections.busy();
        self.connections.cut_all();
        tracing::warn!(cut_off, "the grace period is over, requests in flight are cut off");
        let _ = tokio::time::timeout(ABORT_GRACE, self.tasks.wait()).await;
        DrainReport { cut_off }
    }
}

/// Whether the error belongs to the connection being accepted, which no longer exists.
fn is_of_one_client(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
