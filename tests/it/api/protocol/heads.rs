//! Request heads that two parsers could interpret differently, sent as raw bytes: each is refused
//! with a problem.

use anyhow::Result;
use tests::{
    free_port::free_port,
    system::TestSystem,
    test_app::{ApiClient, TestApp},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{api::PATIENCE, queue::support::process_spec};

/// Sends a request unchanged and returns the whole response.
async fn raw(app: &TestApp, head: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(app.address()).await?;
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

#[track_caller]
fn is_problem(answer: &str, status: u16, code: &str, told: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(
        answer.contains(&format!("\"code\":\"{code}\"")) && answer.contains("application/problem+json"),
        "{answer}"
    );
    assert!(answer.contains(told), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_valid_host_is_accepted() -> Result<()> {
    let app = TestApp::start().await?;
    let line = "GET /api/health/liveness HTTP/1.1\r\n";
    for hosts in [
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "",
        "Host: \r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:99999\r\n",
    ] {
        is_problem(&raw(&app, &format!("{line}{hosts}"), "").await?, 400, "bad_request", "Host");
    }
    for hosts in ["Host: a\r\n", "Host: [::1]:8080\r\n"] {
        assert!(raw(&app, &format!("{line}{hosts}"), "").await?.starts_with("HTTP/1.1 200"), "{hosts}");
    }
    assert!(raw(&app, "GET /api/health/liveness HTTP/1.0\r\n", "").await?.starts_with("HTTP/1.0 200"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_credential_key_and_type_headers_are_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let key = app.key(tenant.id, &["jobs:create", "jobs:read"], None).await?.1;
    let body = r#"{"kind":"noop"}"#;
    let post =
        format!("POST /api/v1/jobs HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n");
    let sized = format!("{post}Content-Length: {}\r\n", body.len());
    let with = async |fields: &str| raw(&app, &format!("{sized}{fields}"), body).await;
    is_problem(&with(&format!("x-api-key: {key}\r\n")).await?, 401, "unauthenticated", "more than once");
    is_problem(&with("X-API-Key: other\r\n").await?, 401, "unauthenticated", "more than once");
    is_problem(&with("Authorization: Bearer x\r\n").await?, 401, "unauthenticated", "Authorization");
    is_problem(&with("Content-Type: text/plain\r\n").await?, 400, "bad_request", "content-type");
    is_problem(&with("Idempotency-Key: a\r\nIdempotency-Key: b\r\n").await?, 400, "bad_request", "idempotency-key");
    for coding in ["gzip", "br", "identity, gzip", "x"] {
        is_problem(
            &with(&format!("Content-Encoding: {coding}\r\n")).await?,
            415,
            "unsupported_media_type",
            "Content-Encoding",
        );
    }
    assert!(with("Content-Encoding: identity\r\nIdempotency-Key: a\r\n").await?.starts_with("HTTP/1.1 202"));
    // Conflicting lengths are refused by hyper itself.
    let two = raw(&app, &format!("{sized}Content-Length: 3\r\n"), body).await?;
    assert!(two.starts_with("HTTP/1.1 400"), "{two}");
    // Transfer-Encoding together with Content-Length is never read as two requests.
    let both = format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let smuggled = "0\r\n\r\nGET /api/health/liveness HTTP/1.1\r\nHost: test\r\n\r\n";
    let answer = raw(&app, &both, smuggled).await?;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    Ok(())
}

/// A proxy on the same machine that adds no header looks like a local client, so the port that it
/// passes on never serves metrics.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_their_own_port_only() -> Result<()> {
    let system = TestSystem::start().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for own_port in [None, Some(free_port()?)] {
        let port = free_port()?;
        let mut spec = process_spec(&system, "api")?.arg("serve").env("PORT", port.to_string());
        if let Some(own_port) = own_port {
            spec = spec.env("METRICS_PORT", own_port.to_string());
        }
        let mut process = spec.start()?;
        process.wait_ready(&format!("http://127.0.0.1:{port}/api/health/liveness"), PATIENCE).await?;
        let api = ApiClient::new(&format!("http://127.0.0.1:{port}"), None);
        api.get("/metrics").await?.problem(404, "not_found");
        if let Some(own_port) = own_port {
            let metrics = client.get(format!("http://127.0.0.1:{own_port}/metrics")).send().await?;
            assert_eq!(metrics.status().as_u16(), 200);
            assert!(metrics.text().await?.contains("rota_build_info"));
        }
        process.sigterm()?;
        assert_eq!(process.wait_exit(PATIENCE).await?.code(), Some(0));
    }
    Ok(())
}
