//! Security headers of HTML pages.
//!
//! Invariant: every HTML response has a content security policy. A page runs no script, loads
//! nothing, cannot be framed and posts only to its own origin; the documentation viewer, whose
//! files are part of this program, also runs its own scripts.

use axum::response::Response;
use http::{
    HeaderName,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS},
};

const PAGE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const VIEWER: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const VIEWER_PATH: &str = "/api/docs";

/// Adds the headers if the response to a request for `path` is HTML. The URL of a page may be a
/// credential (an unsubscribe link), so it is never sent as a referrer.
pub fn protect(response: &mut Response, path: &str) {
    let content_type = response.headers().get(CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html")) {
        return;
    }
    let policy = if path.starts_with(VIEWER_PATH) { VIEWER } else { PAGE };
    let headers: [(HeaderName, &'static str); 3] =
        [(CONTENT_SECURITY_POLICY, policy), (REFERRER_POLICY, "no-referrer"), (X_FRAME_OPTIONS, "DENY")];
    for (name, value) in headers {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}
