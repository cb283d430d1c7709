//! Path parameters, parsed into a type.
//!
//! Invariant: an invalid id gets the same 404 as an unknown id or another tenant's, so responses
//! reveal nothing about the form of ids. The hyphenated form of RFC 9562 is the only one accepted;
//! ids in braces, without hyphens or with the prefix `urn:uuid:` are rejected, so that a resource
//! has one URL.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::{Problem, ProblemCode};

/// The length of a hyphenated id.
const ID_LENGTH: usize = 36;

/// The parameters of the matched path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, state).await.map_err(|_| ProblemCode::NotFound)?;
        if raw.iter().any(|(_, value)| is_id_of_another_form(value)) {
            return Err(ProblemCode::NotFound.into());
        }
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(ProblemCode::NotFound.into()),
            // The route has parameters other than its handler expects: a bug.
            Err(rejection) => Err(Problem::new(ProblemCode::Internal).caused_by(rejection)),
        }
    }
}

/// Parses an id in its only form: hyphenated, in lower or upper case.
pub fn parse_id(text: &str) -> Option<Uuid> {
    text.parse().ok().filter(|_| text.len() == ID_LENGTH)
}

fn is_id_of_another_form(text: &str) -> bool {
    parse_id(text).is_none() && text.parse::<Uuid>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_accepted_in_hyphenated_form_only() {
        let id = Uuid::from_u128(0x019a_a0c8_0000_7000_8000_0000_0000_0abc);
        assert_eq!(parse_id(&id.to_string()), Some(id));
        assert_eq!(parse_id(&id.to_string().to_uppercase()), Some(id));
        for other in [id.simple().to_string(), id.braced().to_string(), id.urn().to_string()] {
            assert_eq!(parse_id(&other), None, "{other}");
            assert!(is_id_of_another_form(&other), "{other}");
        }
        assert!(!is_id_of_another_form("a-token") && !is_id_of_another_form(""));
    }
}
