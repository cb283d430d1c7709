//! The bytes of a request body.
//!
//! Invariant: at most the route's limit is read, and nothing of a body whose declared length
//! exceeds the limit: the sender may never send the rest.

use std::error::Error;

use axum::{RequestExt as _, body::Body, extract::Request};
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::LengthLimitError;
use tower_http::timeout::TimeoutError;

use crate::problem::{Problem, ProblemCode};

/// The body; reading fails beyond the route's `DefaultBodyLimit`.
pub(crate) fn limited_body(request: Request) -> Result<Body, Problem> {
    let declared: Option<u64> =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = request.into_limited_body();
    // The upper bound is the limit, or the known size of the body if that is less.
    if let Some((declared, most)) = declared.zip(body.size_hint().upper())
        && declared > most
    {
        let detail = format!("the body has {declared} bytes; the limit here is {most}");
        return Err(Problem::new(ProblemCode::PayloadTooLarge).detail(detail));
    }
    Ok(body)
}

/// The problem for a body that could not be read to its end.
pub(crate) fn body_problem(error: &(dyn Error + 'static)) -> Problem {
    if cause_of_type::<LengthLimitError>(error).is_some() {
        ProblemCode::PayloadTooLarge.into()
    } else if cause_of_type::<TimeoutError>(error).is_some() {
        ProblemCode::BodyTimeout.into()
    } else {
        Problem::new(ProblemCode::BadRequest).detail("the body is incomplete")
    }
}

/// Finds an error of this type among an error and its sources.
pub(super) fn cause_of_type<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}
