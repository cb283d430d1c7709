//! Bounds how slowly a body may come. How large it may be is axum's `DefaultBodyLimit`, set beside this.
//!
//! Invariant: a body that pauses longer than the limit fails to read, so that a slow sender holds a handler no longer
//! than that; the total is bounded by `time_limit.rs`.

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
