//! A query string, read into a type.
//!
//! Invariant: what is not understood is refused with `invalid_query`; unknown parameters are refused by the types,
//! with `deny_unknown_fields`, so that a misspelt filter does not return everything. A NUL is refused everywhere: PostgreSQL's
//! text holds none.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// The query string of a request.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if let Some(name) = parts.uri.query().and_then(with_nul) {
            let detail = format!("the value of {name:?} holds a NUL character");
            return Err(Problem::new(ProblemCode::InvalidQuery).detail(detail));
        }
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(ProblemCode::InvalidQuery).detail(cause(&rejection))),
        }
    }
}

/// The first parameter in which a NUL stands.
fn with_nul(query: &str) -> Option<&str> {
    let parameter = query.split('&').find(|parameter| parameter.contains("%00"))?;
    Some(parameter.split_once('=').map_or(parameter, |(name, _)| name))
}

/// The innermost cause names the parameter; what is around it repeats that the query is invalid.
fn cause(rejection: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = rejection;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
