//! A query string, parsed into a type.
//!
//! Invariant: an invalid query string is rejected with `invalid_query`. Types reject unknown
//! parameters with `deny_unknown_fields`, so that a misspelt filter does not return everything. NUL
//! is rejected everywhere because PostgreSQL's text cannot store it, and invalid UTF-8 because it
//! would be read as another value.

use std::error::Error;

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, value};

use super::body::cause_of_type;
use crate::problem::{Problem, ProblemCode};

/// The query string of a request.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if let Some(fault) = parts.uri.query().and_then(no_text) {
            return Err(Problem::new(ProblemCode::InvalidQuery).detail(fault));
        }
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(ProblemCode::InvalidQuery).detail(cause(&rejection))),
        }
    }
}

/// The error in the first parameter that is not valid text.
fn no_text(query: &str) -> Option<String> {
    query.split('&').find_map(|parameter| {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        let fault = match percent_decode_str(parameter).decode_utf8() {
            Err(_) => "is not UTF-8",
            Ok(text) if text.contains('\0') => "contains a NUL character",
            Ok(_) => return None,
        };
        Some(format!("the value of {name:?} {fault}"))
    })
}

/// The parameter at fault and the reason, without the outer text, which repeats that the query is
/// invalid.
fn cause(rejection: &(dyn Error + 'static)) -> String {
    match cause_of_type::<serde_path_to_error::Error<value::Error>>(rejection) {
        Some(error) => fault(&error.path().to_string(), &error.inner().to_string()),
        None => rejection.to_string(),
    }
}

/// Replaces the standard library's number errors, which name neither the expected type nor the
/// parameter.
fn fault(name: &str, why: &str) -> String {
    match why {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            format!("{name}: expected a whole number")
        }
        "number too large to fit in target type" | "number too small to fit in target type" => {
            format!("{name}: the number is out of range")
        }
        // A dot is the path of the query as a whole.
        why if name == "." || why.contains(name) => why.to_owned(),
        why => format!("{name}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its rejections are tested")]
    struct Filter {
        limit: Option<u16>,
        kind: Option<String>,
        only: Option<bool>,
    }

    async fn refusal(query: &str) -> String {
        let (mut parts, ()) = Request::get(format!("/?{query}")).body(()).expect("a request").into_parts();
        let refused = Query::<Filter>::from_request_parts(&mut parts, &()).await.expect_err(query);
        refused.detail_text().to_owned()
    }

    #[tokio::test]
    async fn an_error_names_the_parameter_and_the_expected_value() {
        for (query, told) in [
            ("limit=x", "limit: expected a whole number"),
            ("limit=", "limit: expected a whole number"),
            ("limit=99999", "limit: the number is out of range"),
            ("kind=%ff", "the value of \"kind\" is not UTF-8"),
            ("kind=a%00", "the value of \"kind\" contains a NUL character"),
            ("only=maybe", "only: provided string was not `true` or `false`"),
            ("tenant_id=1", "unknown field `tenant_id`, expected one of `limit`, `kind`, `only`"),
            ("kind=a&kind=b", "duplicate field `kind`"),
        ] {
            assert_eq!(refusal(query).await, told, "{query}");
        }
    }
}
