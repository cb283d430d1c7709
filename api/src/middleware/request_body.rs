//! Limits how slowly a body may arrive. axum's `DefaultBodyLimit`, set next to this layer, limits
//! its size.
//!
//! Invariant: reading fails after a pause longer than the limit, so a slow sender occupies a
//! handler no longer than that; `time_limit.rs` bounds the total.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::timeout::TimeoutBody;

/// The middleware.
pub async fn handle(State(pause): State<Duration>, request: Request, next: Next) -> Response {
    let request = request.map(|body| Body::new(Box::pin(TimeoutBody::new(pause, body))));
    next.run(request).await
}
