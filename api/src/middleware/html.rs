//! Security headers of HTML pages.
//!
//! Invariant: every HTML response has a content security policy. A page runs no script, loads
//! nothing, cannot be framed and posts only to its own origin; the documentation viewer, whose
//! files are part of this program, also runs its own scripts.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{
    HeaderName,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS},
};

const PAGE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const VIEWER: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const VIEWER_PATH: &str = "/api/docs";

/// Adds the headers to HTML responses. The URL of a page may be a credential (an unsubscribe link),
/// so it is never sent as a referrer.
pub async fn handle(request: Request, next: Next) -> Response {
    let policy = if request.uri().path().starts_with(VIEWER_PATH) { VIEWER } else { PAGE };
    let mut response = next.run(request).await;
    let is_html = response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if is_html {
        let headers: [(HeaderName, &'static str); 3] =
            [(CONTENT_SECURITY_POLICY, policy), (REFERRER_POLICY, "no-referrer"), (X_FRAME_OPTIONS, "DENY")];
        for (name, value) in headers {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
    }
    response
}
