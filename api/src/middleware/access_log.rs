//! A span around every request, and one log line for its response.
//!
//! Invariant: the span carries the request id, so every log line inside the span carries it too;
//! authentication fills in `tenant` (`Span::current().record("tenant", …)`). The line contains the
//! route's template, not the path, and nothing of headers, query or body.

use std::time::Duration;

use http::{Method, StatusCode};
use tracing::{Span, field::Empty};

use super::request_id::RequestId;

/// The span of a request.
pub fn span(id: &RequestId, method: &Method, route: &str) -> Span {
    tracing::info_span!("request", request_id = id.as_str(), tenant = Empty, %method, route)
}

/// Logs a response, within the span of its request.
pub fn write(route: &str, status: StatusCode, took: Duration) {
    let (status, ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    // Probes arrive every few seconds.
    if route.starts_with("/api/health") {
        tracing::debug!(status, ms, "request completed");
    } else {
        tracing::info!(status, ms, "request completed");
    }
}
