//! Requests that reach no handler: wrong path, method, size, media type or syntax. All responses
//! have the same form.

use anyhow::Result;
use axum::http::Method;
use serde_json::json;
use tests::test_app::{Answer, ApiClient, TestApp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::api::redacted;

const JOBS: &str = "/api/v1/jobs";

async fn post_raw(api: &ApiClient, media_type: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
    Answer::to(api.request(&Method::POST, JOBS).header("content-type", media_type).body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_is_a_problem_with_its_request() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for path in ["/", "/api", "/api/v1", "/api/v1/nothing", "/api/v2/jobs", "/api/v1/jobs/", "/api/v1/jobs/a/b/c"] {
        let answer = api.get(path).await?;
        assert_eq!(answer.problem(404, "not_found")["instance"], path);
        app.anonymous().get(path).await?.problem(404, "not_found");
    }
    let answer = Answer::to(api.request(&Method::GET, "/nothing").header("x-request-id", "mine-1")).await?;
    insta::assert_json_snapshot!(redacted(answer.problem(404, "not_found").clone()), @r#"
    {
      "code": "not_found",
      "detail": "the resource does not exist",
      "instance": "/nothing",
      "request_id": "mine-1",
      "status": 404,
      "title": "Not found",
      "type": "/problems/not_found"
    }
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_gets_the_allowed_ones() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (method, path, allowed) in [
        (Method::DELETE, JOBS, "GET,HEAD,POST"),
        (Method::GET, "/api/v1/jobs/batch/", ""),
        (Method::PATCH, "/api/v1/job-kinds", "GET,HEAD"),
        (Method::PUT, "/api/health", "GET,HEAD"),
    ] {
        let answer = Answer::to(api.request(&method, path)).await?;
        if allowed.is_empty() {
            answer.problem(404, "not_found");
            continue;
        }
        answer.problem(405, "method_not_allowed");
        let mut told: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        told.sort_unstable();
        assert_eq!(told.join(","), allowed, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_have_the_json_media_type() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        post_raw(&api, media_type, r#"{"kind":"noop"}"#).await?.problem(415, "unsupported_media_type");
    }
    post_raw(&api, "application/json; charset=utf-8", r#"{"kind":"noop"}"#).await?.ok(202);
    let deep = format!("{{\"kind\":\"noop\",\"args\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    post_raw(&api, "application/json", deep).await?.problem(422, "invalid_args");
    for body in ["", "{", r#"{"kind":"noop"} x"#, "{'kind':'noop'}", "\u{feff}{}"] {
        let answer = post_raw(&api, "application/json", body.to_owned()).await?;
        assert_eq!(answer.status, 400, "{body:.40}: {}", answer.text);
        answer.problem(400, "invalid_json");
    }
    for (body, pointer) in [("[]", ""), ("null", ""), (r#"{"args":{}}"#, ""), (r#"{"kind":7}"#, "/kind")] {
        let answer = post_raw(&api, "application/json", body).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error().0, pointer, "{body}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_2_mib_at_most() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = |length: usize| {
        let around = json!({ "kind": "noop", "priority": 2 }).to_string();
        format!("{around}{}", " ".repeat(length - around.len()))
    };
    post_raw(&api, "application/json", body(2 << 20)).await?.ok(202);
    post_raw(&api, "application/json", body((2 << 20) + 1)).await?.problem(413, "payload_too_large");
    // The limit applies without a Content-Length, too.
    let key = app.key(app.system.tenant("acme").await?, &["jobs:create"], None).await?.1;
    let head = format!("POST {JOBS} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n");
    let mut stream = TcpStream::connect(app.address()).await?;
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
    for _ in 0..3 {
        // The response may arrive and the connection close before the whole body is sent.
        let _ = stream.write_all(format!("100000\r\n{}\r\n", " ".repeat(1 << 20)).as_bytes()).await;
    }
    let mut told = vec![0; 12];
    stream.read_exact(&mut told).await?;
    assert_eq!(String::from_utf8_lossy(&told), "HTTP/1.1 413");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_id_of_the_client_is_kept() -> Result<()> {
    let app = TestApp::start().await?;
    let ask = async |id: &str| -> Result<String> {
        let request = app.anonymous().request(&Method::GET, "/api/health/liveness").header("x-request-id", id);
        Ok(Answer::to(request).await?.header("x-request-id").to_owned())
    };
    assert_eq!(ask("trace-1_a.b").await?, "trace-1_a.b");
    for odd in ["a b", "<script>", &"x".repeat(65)] {
        let made = ask(odd).await?;
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{odd} became {made}");
    }
    Ok(())
}
