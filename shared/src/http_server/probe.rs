//! The small server of worker and scheduler: `/metrics`, and the health routes under the same paths
//! as the API's.
//!
//! Invariant: the probe responds while the process is up, whatever its work is doing. Liveness
//! checks nothing, since a restart does not repair a database. [`crate::health`] defines readiness.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DrainReport, ServerLimits, SmallBody};
use crate::{
    health::{HealthChecks, HealthReport},
    plain_json,
};

const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// Checks that take longer count as failed, because the prober itself waits no longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// State behind the probe's routes.
#[derive(Clone)]
pub struct Probe {
    /// Rendered at `/metrics`.
    pub metrics: PrometheusHandle,
    /// Checked at `/api/health/readiness`.
    pub checks: Arc<dyn HealthChecks>,
}

/// Serves the probe until `stop`. Stop it last, because an orchestrator observes the drain through
/// it.
pub async fn serve(listener: TcpListener, probe: Probe, stop: CancellationToken) -> DrainReport {
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let probe = probe.clone();
        async move { Ok::<_, Infallible>(probe.response_to(request.method(), request.uri().path()).await) }
    });
    let limits = ServerLimits { max_connections: 200, drain_grace: Duration::from_secs(2), ..ServerLimits::default() };
    super::serve(listener, service, limits, stop).await
}

impl Probe {
    async fn response_to(&self, method: &Method, path: &str) -> Response<SmallBody> {
        if !matches!(path, "/metrics" | "/api/health" | "/api/health/liveness" | "/api/health/readiness") {
            return respond(StatusCode::NOT_FOUND, PLAIN, "not found\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => respond(StatusCode::OK, PLAIN, self.metrics.render()),
            "/api/health/liveness" => respond(StatusCode::OK, JSON, r#"{"status":"up"}"#),
            _ => self.readiness().await,
        }
    }

    async fn readiness(&self) -> Response<SmallBody> {
        let Ok(checks) = tokio::time::timeout(CHECK_TIMEOUT, self.checks.check()).await else {
            return unavailable(r#"{"status":"down","checks":[]}"#.to_owned());
        };
        let report = HealthReport::new(checks);
        let body = plain_json::text(&report);
        if report.is_ready() { respond(StatusCode::OK, JSON, body) } else { unavailable(body) }
    }
}

fn unavailable(body: String) -> Response<SmallBody> {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<hyper::body::Bytes>) -> Response<SmallBody> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Check, CheckState};
    use std::sync::atomic::{AtomicBool, Ordering};

    async fn get(probe: &Probe, path: &str) -> (StatusCode, String) {
        let response = probe.response_to(&Method::GET, path).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_and_metrics_are_served() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("seen_total").increment(1));
        let down = Arc::new(AtomicBool::new(false));
        let checks = {
            let down = Arc::clone(&down);
            move || {
                let state = if down.load(Ordering::SeqCst) { CheckState::Down } else { CheckState::Up };
                vec![Check { name: "database", state, reason: None }]
            }
        };
        let probe = Probe { metrics: recorder.handle(), checks: Arc::new(checks) };
        assert!(get(&probe, "/metrics").await.1.contains("seen_total 1"));
        assert_eq!(get(&probe, "/api/health/readiness").await.0, StatusCode::OK);
        down.store(true, Ordering::SeqCst);
        let (status, body) = get(&probe, "/api/health/readiness").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"status":"down","checks":[{"name":"database","state":"down"}]}"#);
        assert_eq!(get(&probe, "/api/health/liveness").await.0, StatusCode::OK);
        assert_eq!(get(&probe, "/other").await.0, StatusCode::NOT_FOUND);
        let refused = probe.response_to(&Method::POST, "/metrics").await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
