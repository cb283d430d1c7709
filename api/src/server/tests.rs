//! Responses as clients receive them, through the whole stack of layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, post};
use futures::stream;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shared::health::{Check, CheckState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;
use uuid::Uuid;

use super::*;
use crate::extract::{Json, Path, Query};
use crate::{openapi, routes};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    limit: u8,
}

async fn echo(Json(value): Json<Value>) -> Json<Value> {
    Json(value)
}

fn app(down: Arc<AtomicBool>) -> Router {
    let checks = move || {
        let state = if down.load(Ordering::SeqCst) { CheckState::Down } else { CheckState::Degraded };
        vec![Check { name: "redis", state, reason: None }]
    };
    let long = from_fn_with_state(Duration::from_secs(5), crate::middleware::time_limit::at_least);
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        "done"
    };
    let router = Router::new()
        .route("/echo", post(echo))
        .route("/large", post(echo).layer(DefaultBodyLimit::max(4096)))
        .route("/things/{id}", get(async |Path(id): Path<Uuid>| id.to_string()))
        .route("/list", get(async |Query(filter): Query<Filter>| filter.limit.to_string()))
        .route("/plain-error", get(async || (StatusCode::IM_A_TEAPOT, "short and stout")))
        .route("/panic", get(async || -> String { panic!("secret") }))
        .route("/slow", get(slow))
        .route("/long", get(slow).layer(long))
        .merge(
            openapi::with_docs(
                openapi::router().merge(routes::health::router(Arc::new(checks))),
                &jobs::registry::Registry::new(shared::config::TestKinds::None),
            )
            .0,
        );
    let settings = HttpSettings {
        handler_timeout: Duration::from_millis(500),
        body_limit: 1024,
        body_pause: Duration::from_millis(50),
        ..HttpSettings::default()
    };
    layers(router, &settings)
}

async fn send(request: Request<Body>) -> Response {
    app(Arc::default()).oneshot(request).await.unwrap()
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).header(HOST, "rota.test").body(Body::empty()).unwrap()
}

fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header(HOST, "rota.test").header(CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks the form of an error response and returns its code.
async fn code_of(response: Response) -> String {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let (status, id) = (response.status(), response.headers()["x-request-id"].clone());
    let body = text(response).await;
    assert!(!body.contains("secret"), "a panic message must not reach clients");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["request_id"], id.to_str().unwrap());
    assert!(problem["instance"].as_str().unwrap().starts_with('/'));
    let code = problem["code"].as_str().unwrap().to_owned();
    assert_eq!(problem["type"], format!("/problems/{code}"));
    code
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_code() {
    let form = Request::post("/echo")
        .header(HOST, "rota.test")
        .header(CONTENT_TYPE, "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    let patch =
        Request::builder().method(Method::PATCH).uri("/echo").header(HOST, "rota.test").body(Body::empty()).unwrap();
    for (request, code) in [
        (get_request("/nowhere"), "not_found"),
        (patch, "method_not_allowed"),
        (get_request("/things/7"), "not_found"),
        (get_request("/list?limit=x"), "invalid_query"),
        (get_request("/list?limit=1&page=2"), "invalid_query"),
        (form, "unsupported_media_type"),
        (json_request("/echo", "{"), "invalid_json"),
        (json_request("/echo", format!("\"{}\"", "x".repeat(1023))), "payload_too_large"),
        (get_request("/plain-error"), "bad_request"),
        (get_request("/panic"), "internal"),
        (get_request("/slow"), "timeout"),
        (get_request("/api/docs/no-such-file"), "not_found"),
    ] {
        let path = request.uri().path().to_owned();
        assert_eq!(code_of(send(request).await).await, code, "{path}");
    }
}

#[tokio::test]
async fn bodies_up_to_their_limit_and_long_handlers_are_accepted() {
    assert_eq!(send(json_request("/echo", format!("\"{}\"", "x".repeat(1022)))).await.status(), StatusCode::OK);
    assert_eq!(send(json_request("/large", format!("\"{}\"", "x".repeat(2000)))).await.status(), StatusCode::OK);
    assert_eq!(text(send(get_request("/long")).await).await, "done");
}

#[tokio::test]
async fn a_405_has_an_allow_header_and_a_timeout_a_retry_after_header() {
    let response = send(json_request("/list", "{}")).await;
    assert_eq!(response.headers()[ALLOW], "GET,HEAD");
    assert_eq!(send(get_request("/slow")).await.headers()[RETRY_AFTER], "1");
}

/// A body with too large a declared length is rejected at once, even if the client sends nothing.
#[tokio::test]
async fn a_body_declared_too_large_is_refused_without_reading_it() {
    for (length, code) in
        [("1025", "payload_too_large"), ("99999999999", "payload_too_large"), ("1024", "body_timeout")]
    {
        let mut request = json_request("/echo", Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()));
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
        assert_eq!(code_of(send(request).await).await, code, "{length}");
    }
}

#[tokio::test]
async fn a_stalled_body_times_out() {
    let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from("{\"a\":"))]);
    let body = Body::from_stream(futures::StreamExt::chain(begun, stream::pending()));
    assert_eq!(code_of(send(json_request("/echo", body)).await).await, "body_timeout");
}

#[tokio::test]
async fn a_valid_request_id_is_echoed_and_an_invalid_one_replaced() {
    let mut request = get_request("/api/health");
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
    assert_eq!(send(request).await.headers()["x-request-id"], "mine-1");
    let mut request = get_request("/api/health");
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("a b"));
    let made = send(request).await.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn degraded_is_ready_and_down_names_the_failing_part() {
    let down = Arc::new(AtomicBool::new(false));
    let app = app(Arc::clone(&down));
    let ready = app.clone().oneshot(get_request("/api/health/readiness")).await.unwrap();
    let expected = json!({"status": "degraded", "checks": [{"name": "redis", "state": "degraded"}]});
    assert_eq!(serde_json::from_str::<Value>(&text(ready).await).unwrap(), expected);
    down.store(true, Ordering::SeqCst);
    let alive = app.clone().oneshot(get_request("/api/health/liveness")).await.unwrap();
    assert_eq!(alive.status(), StatusCode::OK);
    let refused = app.oneshot(get_request("/api/health/readiness")).await.unwrap();
    assert_eq!(
        (refused.status(), refused.headers()[RETRY_AFTER].as_bytes()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..])
    );
    assert!(text(refused).await.contains(r#""checks":[{"name":"redis","state":"down"}]"#));
}

#[tokio::test]
async fn the_document_and_its_viewer_are_served() {
    let document: Value = serde_json::from_str(&text(send(get_request("/api/openapi.json")).await).await).unwrap();
    assert!(document["paths"]["/api/health"]["get"]["responses"]["200"]["description"].is_string());
    assert!(text(send(get_request("/api/docs/")).await).await.contains("swagger-ui"));
    assert_eq!(send(get_request("/api/docs/swagger-ui.css")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    send(get_request(&format!("/things/{}", Uuid::nil()))).await;
    send(get_request("/nowhere/1")).await;
    drop(guard);
    let seen = handle.render();
    assert!(seen.contains(r#"rota_http_requests_total{method="GET",route="/things/{id}",status="200"} 1"#), "{seen}");
    assert!(seen.contains(r#"rota_http_requests_total{method="GET",route="unmatched",status="404"} 1"#), "{seen}");
}

#[tokio::test]
async fn the_router_is_served_over_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let router = Router::new().route("/echo", post(echo));
    let served = tokio::spawn(serve(listener, router, HttpSettings::default(), stop.clone()));
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 405") && reply.contains("method_not_allowed"), "{reply}");
    stop.cancel();
    assert_eq!(served.await.unwrap().cut_off, 0);
}
