//! The body of an HTML form.
//!
//! Invariant: only pages of Rota itself post forms; programs send JSON. The types of bodies reject
//! unknown fields as those of JSON do.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// The fields of a form.
#[derive(Clone, Copy, Debug)]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Form::from_request(request, state).await {
            Ok(axum::Form(fields)) => Ok(Self(fields)),
            Err(rejection) => {
                let code = ProblemCode::for_status(rejection.status()).unwrap_or(ProblemCode::BadRequest);
                Err(Problem::new(code).detail(rejection.body_text()))
            }
        }
    }
}
