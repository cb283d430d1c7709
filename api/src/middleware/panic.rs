//! Turns a panic of a handler into a 500.
//!
//! Invariant: a panic ends one request, but neither the connection's other requests nor the
//! process; its message goes to the log (`problem_details.rs`), never to the client.

use std::any::Any;

use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::problem::{Problem, ProblemCode};

/// The layer.
pub fn layer() -> CatchPanicLayer<PanicProblem> {
    CatchPanicLayer::custom(PanicProblem)
}

/// Builds the response.
#[derive(Clone, Copy, Debug)]
pub struct PanicProblem;

impl ResponseForPanic for PanicProblem {
    type ResponseBody = axum::body::Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Response {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let cause = format!("panic: {}", text.unwrap_or("without a message"));
        Problem::new(ProblemCode::Internal).caused_by(cause).into_response()
    }
}
