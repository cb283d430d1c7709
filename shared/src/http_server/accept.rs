//! The accept loop, and the drain that ends it.
//!
//! Invariant: no error of `accept` ends the loop, and none makes it spin. Connections run as tasks of their own
//! (`connection.rs`); the drain waits for them, at most as long as the grace.

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

/// Pause after an error such as "too many open files", which the next call would only meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time for connections that are cut off to leave their tasks.
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
            // The port is free for a successor while we finish what is in flight.
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
                    // Only now: nobody is to make room for a connection that has not come.
                    self.connections.wait_for_room(self.limits.max_connections).await;
                    return accepted;
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no connection can be accepted, pausing");
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
        // Without it small answers wait for the acknowledgement of the last. It fails on a socket already gone.
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
        tracing::warn!(cut_off, "the grace is over, requests in flight are cut off");
        let _ = tokio::time::timeout(ABORT_GRACE, self.tasks.wait()).await;
        DrainReport { cut_off }
    }
}

/// Whether the error belongs to the connection that was about to come, which is gone by now.
fn is_of_one_client(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
