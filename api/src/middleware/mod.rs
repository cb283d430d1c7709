//! Middleware around every handler.
//!
//! Invariant: [`crate::server::layers`] alone defines the order; each file here does one thing and
//! depends on its neighbours only through extensions of request and response.

pub mod access_log;
pub mod html;
pub mod http_metrics;
pub mod panic;
pub mod problem_details;
pub mod request_body;
pub mod request_head;
pub mod request_id;
pub mod time_limit;

use axum::extract::{MatchedPath, Request};

/// The template of the matched route, never the path itself, which contains ids.
fn route_of(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str)
}
