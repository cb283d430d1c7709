//! The outer middleware: what every request and response has, whatever the inner layers do.
//!
//! Invariant: a response that leaves here has the form of [`super::problem_details`] if it is an
//! error, the headers of [`super::html`] if it is a page, and the request's id; its line in the log
//! and its metrics have the final status. This is one layer rather than five, because axum's
//! `from_fn` clones and boxes all inner layers for each request.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use shared::clock::Clock;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{access_log, html, http_metrics, problem_details, request_id::RequestId, route_of};

/// The middleware.
pub async fn handle(State(clock): State<Clock>, mut request: Request, next: Next) -> Response {
    let (id, begun) = (RequestId::of(request.headers(), &clock), Instant::now());
    let (method, route, uri) = (request.method().clone(), route_of(&request).to_owned(), request.uri().clone());
    request.extensions_mut().insert(id.clone());
    let span = access_log::span(&id, &method, &route);
    async move {
        let mut response = next.run(request).await;
        html::protect(&mut response, uri.path());
        let mut response = problem_details::unify(response, &id, uri.path());
        http_metrics::record(&method, &route, response.status(), begun.elapsed());
        access_log::write(&route, response.status(), begun.elapsed());
        id.set(&mut response);
        response
    }
    .instrument(span)
    .await
}
