//! The metrics of this process, for Prometheus.
//!
//! Invariant: metrics contain no tenant's name or id, and are not public all the same. With
//! `METRICS_PORT` they are on that port alone (`cli/serve.rs`); without it they are here, for
//! requests from this machine that no proxy forwarded. Other requests get a 404.

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, FORWARDED, VIA};
use metrics_exporter_prometheus::PrometheusHandle;
use shared::http_server::PeerAddr;

use crate::problem::ProblemCode;

/// `GET /metrics`.
pub fn router(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(render)).with_state(handle)
}

async fn render(
    State(handle): State<PrometheusHandle>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() || is_passed_on(&headers) {
        return ProblemCode::NotFound.into_response();
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
}

/// With a proxy on this machine every client looks local; the common proxies set one of these
/// headers.
fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
        || headers.contains_key(VIA)
        || headers.keys().any(|name| name.as_str().starts_with("x-forwarded-") || name == "x-real-ip")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    async fn status(peer: &str, field: Option<&'static str>) -> StatusCode {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let mut request = Request::get("/metrics").extension(PeerAddr(peer.parse().expect("an address")));
        if let Some(field) = field {
            request = request.header(field, "1");
        }
        let request = request.body(Body::empty()).expect("a request");
        router(recorder.handle()).oneshot(request).await.expect("an answer").status()
    }

    #[tokio::test]
    async fn metrics_are_served_to_loopback_peers_only() {
        for peer in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(status(peer, None).await, StatusCode::OK, "{peer}");
        }
        for peer in ["10.0.0.1:1", "192.168.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1"] {
            assert_eq!(status(peer, None).await, StatusCode::NOT_FOUND, "{peer}");
        }
        for field in ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"] {
            assert_eq!(status("127.0.0.1:1", Some(field)).await, StatusCode::NOT_FOUND, "{field}");
        }
    }
}
