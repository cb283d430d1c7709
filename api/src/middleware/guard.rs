//! The inner middleware: what a request must satisfy before its handler runs, and how long it may
//! take.
//!
//! Invariant: a handler sees an unambiguous head ([`super::request_head`]), a body that may not arrive
//! too slowly ([`super::request_body`]), an account for its bytes ([`crate::in_flight`]), a
//! place for its rate limits ([`crate::rate_limit`]) and a deadline ([`super::time_limit`]). One
//! layer, for the reason given in [`super::envelope`].

use std::time::Duration;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    Version,
    header::{CONNECTION, HeaderValue},
};

use super::{request_body, request_head, time_limit::Deadline};
use crate::{in_flight::RequestAccount, rate_limit::RequestRate};

/// Time limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// For the head of the response, unless the route extends it.
    pub handler: Duration,
    /// Longest pause within the body.
    pub body_pause: Duration,
}

/// The middleware.
pub async fn handle(State(limits): State<TimeLimits>, request: Request, next: Next) -> Response {
    let version = request.version();
    let (request, unread) = request_body::limit_pauses(request, limits.body_pause);
    let mut response = respond(limits, request, next).await;
    // The server closes an HTTP/1 connection on which the rest of a body is still to come. Without
    // this header the client would send its next request there.
    if version < Version::HTTP_2 && !unread.discard().await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond(limits: TimeLimits, mut request: Request, next: Next) -> Response {
    if let Err(problem) = request_head::check(request.version(), request.uri(), request.headers()) {
        return problem.into_response();
    }
    let (account, rate) = (RequestAccount::default(), RequestRate::default());
    let deadline = Deadline::after(limits.handler);
    request.extensions_mut().insert(account.clone());
    request.extensions_mut().insert(rate.clone());
    request.extensions_mut().insert(deadline.clone());
    let mut response = deadline.bound(next.run(request)).await;
    rate.write(response.headers_mut());
    account.count_response(response)
}
