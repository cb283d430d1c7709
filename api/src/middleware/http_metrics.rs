//! Counts and times every request by its route.
//!
//! Invariant: labels are bounded whatever clients send: the route's template, the standard methods,
//! the status.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use metrics::{counter, histogram};
use shared::telemetry::names::{self, label};
use tokio::time::Instant;

use super::route_of;

/// The middleware.
pub async fn handle(request: Request, next: Next) -> Response {
    let (method, route) = (method_label(request.method()), route_of(&request).to_owned());
    let begun = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    histogram!(names::HTTP_REQUEST_DURATION_SECONDS, label::METHOD => method, label::ROUTE => route.clone())
        .record(begun.elapsed());
    counter!(names::HTTP_REQUESTS_TOTAL, label::METHOD => method, label::ROUTE => route, label::STATUS => status)
        .increment(1);
    response
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
