//! The parameters of a path, read into a type.
//!
//! Invariant: an id that cannot be one is answered like an id that is nobody's, with the same 404, so that the form of
//! ids tells nothing.

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// The parameters of the matched path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(ProblemCode::NotFound.into()),
            // The route has other parameters than its handler asks for: a fault of ours.
            Err(rejection) => Err(Problem::new(ProblemCode::Internal).caused_by(rejection)),
        }
    }
}
