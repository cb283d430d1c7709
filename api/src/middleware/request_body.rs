//! Limits how slowly a body may arrive, and discards what the handler did not read of it. axum's
//! `DefaultBodyLimit`, set in [`crate::server::layers`], limits its size.
//!
//! Invariant: reading fails after a pause longer than the limit, so a slow sender occupies a
//! handler no longer than that; `time_limit.rs` bounds the total.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tower_http::timeout::TimeoutBody;

/// At most this much of an unread body is discarded.
const MAX_DISCARDED: usize = 16 << 20;
/// At most this long. Clients are promised a refusal in three seconds, and most refusals need none
/// of them.
const DISCARD_TIME: Duration = Duration::from_millis(500);

/// The rest of a body, once the request has been dropped without reading it to its end.
#[derive(Clone, Default)]
pub struct Unread {
    rest: Arc<Mutex<Option<Body>>>,
    /// The client sends the body only when it is read (`Expect: 100-continue`).
    is_on_request: bool,
}

/// The request, with a body that fails after a longer pause, and the part of it that stays unread.
pub fn limit_pauses(request: Request, pause: Duration) -> (Request, Unread) {
    let unread = Unread { is_on_request: request.headers().contains_key(EXPECT), ..Unread::default() };
    if request.body().is_end_stream() {
        return (request, unread);
    }
    let watched = |body| WatchedBody { body, unread: unread.clone() };
    let request = request.map(|body| Body::new(Box::pin(TimeoutBody::new(pause, watched(body)))));
    (request, unread)
}

impl Unread {
    /// Reads and discards the rest, so that the connection can serve another request, and so that a
    /// client that sends its whole body before it reads receives the response: closing a connection
    /// with unread data resets it. Returns whether nothing is left.
    pub async fn discard(&self) -> bool {
        let rest = self.lock().take();
        let Some(mut body) = rest else { return true };
        if self.is_on_request {
            return false;
        }
        let discarding = async {
            let mut discarded = 0;
            while discarded <= MAX_DISCARDED {
                match body.frame().await {
                    None => return true,
                    Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) => return false,
                }
            }
            false
        };
        timeout(DISCARD_TIME, discarding).await.unwrap_or(false)
    }

    /// A panic while the lock is held leaves the body consistent.
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that leaves its unread part behind when it is dropped.
struct WatchedBody {
    body: Body,
    unread: Unread,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            *self.unread.lock() = Some(std::mem::take(&mut self.body));
        }
    }
}
