//! One span around every request, and one line when it has been answered.
//!
//! Invariant: the span carries the request id, so that every line inside tells it; `tenant` is filled in by
//! authentication (`Span::current().record("tenant", …)`). The line has the route's template, not the path, and
//! nothing of headers, query or body.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::request_id::RequestId;
use super::route_of;

/// The middleware; it needs [`super::request_id`] around it.
pub async fn handle(request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().map_or("", RequestId::as_str);
    let (method, route) = (request.method().clone(), route_of(&request).to_owned());
    let span = tracing::info_span!("request", request_id, tenant = Empty, %method, route);
    let begun = Instant::now();
    async move {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Probes and scrapes ask every few seconds for ever.
        if route == "/metrics" || route.starts_with("/api/health") {
            tracing::debug!(status, ms, "request answered");
        } else {
            tracing::info!(status, ms, "request answered");
        }
        response
    }
    .instrument(span)
    .await
}
