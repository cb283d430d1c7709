//! An API that is killed at its first, second, third … message to any peer, wherever that is: in a
//! handshake, before a commit, between commit and push, between push and response.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    eventually::poll_until, free_port::free_port, http_sink::HttpSink, process::ProcessUnderTest, test_app::ApiClient,
    test_app::TestApp,
};
use tokio::net::TcpStream;

use crate::queue::support::{LEASE, Ledger, PATIENCE, indexed, process_spec, skipped};

const STRACE: &str = "/usr/bin/strace";
/// More messages than the start and one request send.
const MOST_MESSAGES: usize = 60;

/// Returns an API that listens or has already died; `when` is the number of the message at which it
/// is killed.
async fn start(app: &TestApp, port: u16, when: usize) -> Result<ProcessUnderTest> {
    let inject = format!("inject=sendto,writev,sendmsg:signal=SIGKILL:when={when}");
    let strace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto,writev,sendmsg", "-e", &inject];
    // If strace ends first, the API must end, too.
    let leash = ["/usr/bin/setpriv", "--pdeathsig", "KILL"];
    let spec = process_spec(&app.system, "api")?.arg("serve").env("PORT", port.to_string());
    let spec = spec.env("TOKIO_WORKER_THREADS", "1").env("RUST_LOG", "error");
    let mut api = spec.under(STRACE, strace.into_iter().chain(leash)).start()?;
    let listening = poll_until(PATIENCE, async || {
        let ended = api.exit_status().ok()?.is_some();
        (ended || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).then_some(())
    });
    ensure!(listening.await.is_some(), "the API neither listens nor ends");
    Ok(api)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_message_a_repeated_request_makes_one_job() -> Result<()> {
    if !Path::new(STRACE).exists() {
        skipped("strace is not installed (bin/setup installs it where apt is there)");
        return Ok(());
    }
    let (app, sink) = (TestApp::start().await?, HttpSink::start().await?);
    let tenant = app.tenant("acme").await?;
    let key = app.key(tenant.id, &["jobs:create", "jobs:read"], None).await?.1;
    let (_scheduler, worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    indexed(&app.system, 0).await;
    let (mut kills, mut requests) = (0, 0);
    for when in 1..=MOST_MESSAGES {
        let port = free_port()?;
        let mut api = start(&app, port, when).await?;
        let body = json!({ "kind": "callback", "args": { "url": sink.url(), "token": when.to_string() } });
        let victim = ApiClient::new(&format!("http://127.0.0.1:{port}"), Some(&key));
        let first = victim.post_once("/api/v1/jobs", &when.to_string(), &body).await.ok();
        requests += 1;
        // The push comes after the response; an API that still lives shortly afterwards has sent
        // all its messages.
        let dead =
            poll_until(Duration::from_millis(300), async || api.exit_status().ok()?.is_some().then_some(())).await;
        let repeated = tenant.api.post_once("/api/v1/jobs", &when.to_string(), &body).await?;
        let id = repeated.id();
        if let Some(first) = first.filter(|answer| answer.status < 300) {
            assert_eq!(first.id(), id, "message {when}");
        }
        if dead.is_none() {
            api.kill9().await?;
            break;
        }
        kills += 1;
    }
    ensure!(kills > 5, "only {kills} kills: was nothing sent?");
    ensure!(kills < MOST_MESSAGES, "the API was still killed at message {MOST_MESSAGES}");
    let completed = Ledger::open(&app.system).await?.completed(requests).await;
    assert_eq!(completed, requests);
    worker.stop().await?;
    let tokens = sink.tokens();
    assert!(tokens.len() == usize::try_from(requests)? && tokens.values().all(|count| *count == 1), "{tokens:?}");
    Ok(())
}
