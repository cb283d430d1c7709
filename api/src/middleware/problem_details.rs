//! Gives every error response the form of a problem with its request id, and logs it.
//!
//! Invariant: no error response (400 and above) that leaves has another form, whether it comes
//! from a handler, an extractor, the router's own 404 and 405, or an inner layer. An error is
//! logged here and nowhere else.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::request_id::RequestId;
use crate::problem::{PROBLEM_JSON, Problem, ProblemCode};

/// Converts and logs an error response to a request for `path`, within the span of the request.
pub fn unify(response: Response, request_id: &RequestId, path: &str) -> Response {
    let Some(code) = ProblemCode::for_status(response.status()) else {
        return response;
    };
    let mut response = as_problem(response, code);
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log(&problem);
        *response.body_mut() = problem.body(Some(request_id.as_str()), Some(path)).to_body();
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// Converts a response that is not a problem. Its headers stay, since `Allow` belongs to a 405; its
/// status becomes that of the code, so that the two never contradict each other.
fn as_problem(mut response: Response, code: ProblemCode) -> Response {
    if response.extensions().get::<Problem>().is_some() {
        return response;
    }
    let problem = Problem::new(code);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    for (name, value) in problem.clone().into_response().headers() {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    *response.status_mut() = code.status();
    response.extensions_mut().insert(problem);
    response
}

fn log(problem: &Problem) {
    let code = problem.code().as_str();
    match (problem.code().status().is_server_error(), problem.cause()) {
        (true, Some(error)) => tracing::error!(code, error, "a request failed"),
        (true, None) => tracing::warn!(code, "a request could not be served"),
        (false, Some(error)) => tracing::debug!(code, error, "a request was rejected"),
        (false, None) => tracing::debug!(code, "a request was rejected"),
    }
}
