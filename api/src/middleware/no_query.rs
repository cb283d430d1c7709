//! Rejects a query string on operations without query parameters: a misplaced argument must not
//! look accepted.
//!
//! Invariant: these operations are derived from the OpenAPI document; operations with query
//! parameters use `deny_unknown_fields` instead. Routes without a credential accept any query
//! string, because links in mails and health checks get parameters added on their way.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;

use super::route_of;
use crate::problem::{Problem, ProblemCode};

/// Operations, by method and path template.
pub type Operations = Arc<HashSet<(Method, String)>>;

/// The middleware; its state is the set of operations without query parameters.
pub async fn handle(State(operations): State<Operations>, request: Request, next: Next) -> Response {
    let first = request.uri().query().and_then(|query| query.split('&').find(|parameter| !parameter.is_empty()));
    match first {
        Some(parameter) if operations.contains(&(method_of(&request), route_of(&request).to_owned())) => {
            let name = parameter.split('=').next().unwrap_or(parameter);
            Problem::new(ProblemCode::InvalidQuery)
                .detail(format!("unknown parameter {name:?}; this operation has no query parameters"))
                .into_response()
        }
        _ => next.run(request).await,
    }
}

/// The `GET` route also serves `HEAD`.
fn method_of(request: &Request) -> Method {
    if request.method() == Method::HEAD { Method::GET } else { request.method().clone() }
}
