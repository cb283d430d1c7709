//! Requests that are refused before their body is read, sent as raw bytes: the refusal reaches the
//! client, which learns whether the connection can be used again.

use anyhow::{Result, ensure};
use tests::test_app::TestApp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::api::PATIENCE;

/// The head of the response to a request that is refused before its body is read, and the stream.
async fn refused_early(app: &TestApp, length: usize, body: &str) -> Result<(String, TcpStream)> {
    let mut stream = TcpStream::connect(app.address()).await?;
    let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}Content-Type: application/json\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n{") {
        ensure!(tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await?? > 0, "closed");
    }
    let answer = String::from_utf8(answer)?.to_lowercase();
    ensure!(answer.starts_with("http/1.1 401 "), "{answer}");
    Ok((answer, stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_after_a_refusal_unless_the_response_says_close() -> Result<()> {
    let app = TestApp::start().await?;
    let (answer, mut stream) = refused_early(&app, 2, "{}").await?;
    assert!(!answer.contains("connection: close"), "{answer}");
    stream.write_all(b"GET /api/health/liveness HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await?;
    let mut second = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut second)).await??;
    assert!(second.contains("HTTP/1.1 200 "), "{second}");
    let (answer, mut stream) = refused_early(&app, 1_000_000, "{").await?;
    assert!(answer.contains("connection: close"), "{answer}");
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await??;
    Ok(())
}

/// Most clients read only after they have sent the whole body.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_first_sends_its_whole_body() -> Result<()> {
    let app = TestApp::start().await?;
    for _ in 0..10 {
        let length = 6 << 20;
        let (answer, _) = refused_early(&app, length, &" ".repeat(length)).await?;
        assert!(answer.contains("\"code\":\"unauthenticated\""), "{answer}");
    }
    Ok(())
}
