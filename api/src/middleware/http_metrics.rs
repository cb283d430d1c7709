//! Counts and times every request by its route.
//!
//! Invariant: labels are bounded whatever clients send: the route's template, the standard methods,
//! the status.

use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{counter, histogram};
use shared::telemetry::names::{self, label};

/// Records a response.
pub fn record(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let method = method_label(method);
    histogram!(names::HTTP_REQUEST_DURATION_SECONDS, label::METHOD => method, label::ROUTE => route.to_owned())
        .record(took);
    let status = status.as_str().to_owned();
    counter!(names::HTTP_REQUESTS_TOTAL, label::METHOD => method, label::ROUTE => route.to_owned(), label::STATUS => status)
        .increment(1);
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
