//! Notices a query string where an operation has no parameters in it. [`crate::auth`] rejects it
//! once the credential is known to be good, so that a misplaced argument does not look effective.
//!
//! Invariant: these operations are derived from the document, as `deny_unknown_fields` is for
//! operations that have parameters. Routes without a credential accept any query string, because
//! mail gateways and probes add parameters to links and health checks.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use super::route_of;
use crate::problem::{Problem, ProblemCode};

/// Operations, by method and path template.
pub type Operations = Arc<HashSet<(Method, String)>>;

/// The first parameter of a query string that should be empty: an extension of the request.
#[derive(Clone)]
pub struct UnknownParameter(String);

impl UnknownParameter {
    /// The rejection of the request.
    pub fn problem(&self) -> Problem {
        let detail = format!("unknown parameter {:?}; this endpoint has no query parameters", self.0);
        Problem::new(ProblemCode::InvalidQuery).detail(detail)
    }
}

/// The middleware; its state is the operations without parameters in the query string.
pub async fn handle(State(operations): State<Operations>, mut request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let first = query.split('&').find(|parameter| !parameter.is_empty());
    if let Some(parameter) = first
        && operations.contains(&(method_of(&request), route_of(&request).to_owned()))
    {
        let name = parameter.split('=').next().unwrap_or(parameter).to_owned();
        request.extensions_mut().insert(UnknownParameter(name));
    }
    next.run(request).await
}

/// The handler of `GET` also answers `HEAD`.
fn method_of(request: &Request) -> Method {
    if request.method() == Method::HEAD { Method::GET } else { request.method().clone() }
}
