//! The operations that have no parameters in their query string, derived from the document.
//!
//! Invariant: a request with a valid credential to one of them is rejected if it has a query string,
//! so that a misplaced argument does not look effective; operations with parameters reject unknown
//! ones by `deny_unknown_fields`. Routes without a credential accept any query string, because mail
//! gateways and probes add parameters to links and health checks.

use std::collections::HashSet;

use axum::extract::MatchedPath;
use http::{Method, request::Parts};
use utoipa::openapi::{OpenApi, PathItem};

use super::refusals;
use crate::problem::{Problem, ProblemCode};

/// The operations, by method and path template.
#[derive(Debug)]
pub struct WithoutQuery(HashSet<(Method, String)>);

impl WithoutQuery {
    pub(super) fn of(document: &OpenApi) -> Self {
        let all = document.paths.paths.iter().flat_map(|(path, item)| {
            let PathItem { get, put, post, delete, patch, .. } = item;
            let methods = [
                (Method::GET, get),
                (Method::PUT, put),
                (Method::POST, post),
                (Method::DELETE, delete),
                (Method::PATCH, patch),
            ];
            methods.into_iter().filter_map(move |(method, operation)| Some((method, path, operation.as_ref()?)))
        });
        let theirs = all.filter(|(_, _, operation)| refusals::is_without_query(operation));
        Self(theirs.map(|(method, path, _)| (method, path.clone())).collect())
    }

    /// Rejects the query string of a request to one of them.
    pub fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let Some(parameter) = query.split('&').find(|parameter| !parameter.is_empty()) else { return Ok(()) };
        // The handler of `GET` also answers `HEAD`.
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if !self.0.contains(&(method, path.to_owned())) {
            return Ok(());
        }
        let name = parameter.split('=').next().unwrap_or(parameter);
        let detail = format!("unknown parameter {name:?}; this endpoint has no query parameters");
        Err(Problem::new(ProblemCode::InvalidQuery).detail(detail))
    }
}
