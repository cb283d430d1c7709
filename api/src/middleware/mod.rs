//! Middleware around every handler.
//!
//! Invariant: [`crate::server::layers`] alone defines the order of the layers, [`envelope`] and
//! [`guard`] that of the steps inside them; each other file here does one thing.

mod access_log;
pub mod envelope;
pub mod guard;
mod html;
mod http_metrics;
pub mod panic;
mod problem_details;
mod request_body;
mod request_head;
pub mod request_id;
pub mod time_limit;

use axum::extract::{MatchedPath, Request};

/// The template of the matched route, never the path itself, which contains ids.
fn route_of(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str)
}
