//! A span around every request, and one log line for its response.
//!
//! Invariant: the span carries the request id, so every log line inside the span carries it too;
//! authentication fills in `tenant` (`Span::current().record("tenant", …)`). The line contains the
//! route's template, not the path, and nothing of headers, query or body.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::request_id::RequestId;
use super::route_of;

/// The middleware; it must be inside [`super::request_id`].
pub async fn handle(request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let (method, route) = (request.method().clone(), route_of(&request).to_owned());
    let span = tracing::info_span!("request", request_id, tenant = Empty, %method, route);
    let begun = Instant::now();
    async move {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Probes and scrapes arrive every few seconds.
        if route == "/metrics" || route.starts_with("/api/health") {
            tracing::debug!(status, ms, "request completed");
        } else {
            tracing::info!(status, ms, "request completed");
        }
        response
    }
    .instrument(span)
    .await
}
