//! 500 idle sockets and 500 half-sent requests must have no measurable effect on other clients of
//! the real binary.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use tests::{
    free_port::free_port,
    postgres::DatabaseUrls,
    process::{ProcessSpec, ProcessUnderTest},
    test_app::TestApp,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::api::PATIENCE;

const GET: &[u8] = b"GET /api/health/liveness HTTP/1.1\r\nHost: test\r\n\r\n";
const END: &[u8] = br#"{"status":"up"}"#;
const REQUESTS: usize = 1_000;
const ROUNDS: usize = 6;

struct Server {
    process: ProcessUnderTest,
    address: SocketAddr,
}

impl Server {
    async fn start(urls: &DatabaseUrls, redis: &str) -> Result<Self> {
        Self::start_from(ProcessSpec::binary("api")?.arg("serve"), urls, redis).await
    }

    async fn start_from(spec: ProcessSpec, urls: &DatabaseUrls, redis: &str) -> Result<Self> {
        let port = free_port()?;
        let spec = spec.env("PORT", port.to_string());
        let spec = spec.env("DATABASE_URL", &urls.app).env("DATABASE_SYSTEM_URL", &urls.system);
        // One thread each, so that the two servers do not compete for the same cores.
        let spec = spec.env("REDIS_URL", redis).env("ENVIRONMENT", "test").env("TOKIO_WORKER_THREADS", "1");
        let mut process = spec.start()?;
        process.wait_ready(&format!("http://127.0.0.1:{port}/api/health/liveness"), PATIENCE).await?;
        Ok(Self { process, address: ([127, 0, 0, 1], port).into() })
    }

    async fn send(&self, bytes: &[u8]) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(bytes).await?;
        Ok(stream)
    }

    /// Sends SIGTERM and returns how long a clean exit took.
    async fn stop(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.process.sigterm()?;
        let status = self.process.wait_exit(PATIENCE).await?;
        assert_eq!(status.code(), Some(0), "{status}");
        Ok(begun.elapsed())
    }
}

async fn ask(stream: &mut TcpStream) -> Result<Duration> {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    stream.write_all(GET).await?;
    while !seen.ends_with(END) {
        anyhow::ensure!(stream.read_buf(&mut seen).await? > 0, "closed after {}", String::from_utf8_lossy(&seen));
    }
    Ok(begun.elapsed())
}

/// Sends requests to the two servers alternately, so that other load on the machine affects both
/// equally; returns p90 and p99 of each.
async fn percentiles(servers: [&Server; 2]) -> Result<[[Duration; 2]; 2]> {
    let mut streams = [servers[0].send(b"").await?, servers[1].send(b"").await?];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..REQUESTS {
        for (stream, times) in streams.iter_mut().zip(&mut times) {
            times.push(ask(stream).await?);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        [90, 99].map(|percent| times[times.len() * percent / 100])
    }))
}

async fn pester(server: &Server) -> Result<Vec<TcpStream>> {
    let mut sockets = Vec::new();
    for _ in 0..500 {
        sockets.push(server.send(b"").await?);
        sockets.push(server.send(b"GET /api/health HTTP/1.1\r\nHost: te").await?);
    }
    Ok(sockets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bad_clients_slow_no_other_and_do_not_block_the_shutdown() -> Result<()> {
    // Starting a server raises the limit of open files of its process; here that is the test's
    // process, which holds as many sockets.
    let app = TestApp::start().await?;
    let (urls, redis) = (&app.system.urls, &app.system.redis_url);
    let (mut quiet, mut pestered) = (Server::start(urls, redis).await?, Server::start(urls, redis).await?);
    // On a busy machine one request in a hundred waits for a processor on either server, so one
    // round in which both percentiles agree is enough. If the bad clients slow the server down, no
    // round passes.
    let mut rounds = Vec::new();
    let mut sockets = Vec::new();
    while rounds.len() < ROUNDS {
        drop(std::mem::take(&mut sockets));
        sockets = pester(&pestered).await?;
        let [alone, among] = percentiles([&quiet, &pestered]).await?;
        rounds.push((alone, among));
        if among[0] <= alone[0] * 2 && among[1] <= alone[1] * 2 {
            break;
        }
    }
    let (alone, among) = rounds[rounds.len() - 1];
    assert!(among[0] <= alone[0] * 2 && among[1] <= alone[1] * 2, "p90 and p99, undisturbed and disturbed: {rounds:?}");
    // All sockets are still open: SIGTERM must not wait for their time-outs.
    assert_eq!(sockets.len(), 1_000);
    let took = pestered.stop().await?;
    assert!(took < Duration::from_secs(5), "the shutdown took {took:?}");
    quiet.stop().await?;
    Ok(())
}

/// Most file descriptors hold idle sockets of other clients; a well-behaved client and the
/// connections to the stores still get theirs.
#[tokio::test(flavor = "multi_thread")]
async fn idle_sockets_are_closed_at_the_limit_of_open_files() -> Result<()> {
    let app = TestApp::start().await?;
    let api = ProcessSpec::binary("api")?.arg("serve").under("sh", ["-c", r#"ulimit -n 128; exec "$@""#, "sh"]);
    let mut server = Server::start_from(api, &app.system.urls, &app.system.redis_url).await?;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(server.send(b"").await?);
    }
    let mut waits = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let mut stream = server.send(&[]).await?;
        ask(&mut stream).await?;
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[10] < Duration::from_millis(200), "{waits:?}");
    // The connections to the stores work, too.
    let ready = reqwest::get(format!("http://{}/api/health/readiness", server.address)).await?;
    assert_eq!(ready.status().as_u16(), 200);
    drop(idle);
    server.stop().await?;
    Ok(())
}
