//! Limits how slowly a body may arrive. axum's `DefaultBodyLimit`, set in [`crate::server::layers`], limits
//! its size.
//!
//! Invariant: reading fails after a pause longer than the limit, so a slow sender occupies a
//! handler no longer than that; `time_limit.rs` bounds the total.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use tower_http::timeout::TimeoutBody;

/// The request, with a body that fails after a longer pause.
pub fn limit_pauses(request: Request, pause: Duration) -> Request {
    request.map(|body| Body::new(Box::pin(TimeoutBody::new(pause, body))))
}
