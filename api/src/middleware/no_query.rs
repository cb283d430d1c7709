//! Refuses a query string where an operation has no parameters in it: a misplaced argument must not look as if it had counted.
//!
//! Invariant: which operations these are is derived from the document, like `deny_unknown_fields` for those that have some. Routes
//! without a credential take any query string, because links in mails and health checks get some added on their way.

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

/// The middleware; its state is the operations without parameters in the query string.
pub async fn handle(State(operations): State<Operations>, request: Request, next: Next) -> Response {
    let first = request.uri().query().and_then(|query| query.split('&').find(|parameter| !parameter.is_empty()));
    match first {
        Some(parameter) if operations.contains(&(method_of(&request), route_of(&request).to_owned())) => {
            let name = parameter.split('=').next().unwrap_or(parameter);
            Problem::new(ProblemCode::InvalidQuery)
                .detail(format!("unknown parameter {name:?}; this takes none in its query string"))
                .into_response()
        }
        _ => next.run(request).await,
    }
}

/// `HEAD` is answered by what answers `GET`.
fn method_of(request: &Request) -> Method {
    if request.method() == Method::HEAD { Method::GET } else { request.method().clone() }
}
