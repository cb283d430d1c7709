//! The layers around all routes, in their order, and the server under them.
//!
//! Invariant: every response has a request id, is counted and logged, and is a problem if it is an
//! error. `shared::http_server` handles connections and their limits.

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use shared::clock::Clock;
use shared::http_server::{self, DrainReport, ServerLimits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::middleware::{
    envelope,
    guard::{self, TimeLimits},
    panic,
};
use crate::problem::ProblemCode;

/// Limits of one request.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Time for the head of a response; default 30 s. A route may extend it with
    /// [`crate::middleware::time_limit::at_least`].
    pub handler_timeout: Duration,
    /// Bytes of a body; default 2 MiB. A route may set another `DefaultBodyLimit`.
    pub body_limit: usize,
    /// Longest pause within a body; default 10 s.
    pub body_pause: Duration,
    /// Limits of one connection.
    pub connections: ServerLimits,
    /// The clock for request ids.
    pub clock: Clock,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            handler_timeout: Duration::from_secs(30),
            body_limit: 2 * 1024 * 1024,
            body_pause: Duration::from_secs(10),
            connections: ServerLimits::default(),
            clock: Clock::system(),
        }
    }
}

/// Puts the layers around `router`; the first one is the outermost. They form a single type: each
/// `Router::layer` would box the layers inside it, and every request clones every box, the inner
/// ones again for each outer one.
pub fn layers(router: Router, settings: &HttpSettings) -> Router {
    let no_store = HeaderValue::from_static("no-store");
    let no_sniff = HeaderValue::from_static("nosniff");
    let limits = TimeLimits { handler: settings.handler_timeout, body_pause: settings.body_pause };
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(settings.clock.clone(), envelope::handle))
        .layer(SetResponseHeaderLayer::if_not_present(X_CONTENT_TYPE_OPTIONS, no_sniff))
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store))
        .layer(panic::layer())
        .layer(from_fn_with_state(limits, guard::handle))
        .layer(DefaultBodyLimit::max(settings.body_limit));
    router.fallback(async || ProblemCode::NotFound).layer(layers)
}

/// Serves `router` with its layers until `stop`, then drains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: HttpSettings,
    stop: CancellationToken,
) -> DrainReport {
    let service = layers(router, &settings);
    http_server::serve(listener, service, settings.connections, stop).await
}
