//! The server against real sockets: the cost of bad clients, the service for good ones, and the
//! drain.

mod bad_clients;

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<DrainReport>,
}

/// `/slow` responds after 300 ms, `/endless` never ends its body, `/large` exceeds the socket
/// buffers.
async fn answer(request: Request<Incoming>) -> Result<Response<SmallBody>, Infallible> {
    assert!(request.extensions().get::<PeerAddr>().is_some());
    let body = match request.uri().path() {
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Full::from("slow").boxed_unsync()
        }
        "/endless" => {
            let frames = futures::stream::once(async { Ok(Frame::data(Bytes::from("begun"))) });
            StreamBody::new(futures::StreamExt::chain(frames, futures::stream::pending())).boxed_unsync()
        }
        "/large" => Full::from(vec![b'x'; 64 << 20]).boxed_unsync(),
        _ => Full::from("ok").boxed_unsync(),
    };
    Ok(Response::new(body))
}

async fn start(limits: ServerLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let done = tokio::spawn(serve(listener, tower::service_fn(answer), limits, stop.clone()));
    Server { address, stop, done }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn drain(self) -> (DrainReport, Duration) {
        let begun = Instant::now();
        self.stop.cancel();
        (self.done.await.unwrap(), begun.elapsed())
    }
}

/// Reads one response whose body ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed after {}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

/// Time until the server closes the connection; data sent before is discarded.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    // A reset counts as a close.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("never closed");
    begun.elapsed()
}

#[tokio::test]
async fn silent_slow_and_idle_connections_are_closed_at_their_timeouts() {
    let limits = ServerLimits {
        first_byte_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(400),
        keep_alive: Duration::from_millis(600),
        ..ServerLimits::default()
    };
    let server = start(limits).await;
    let mut silent = server.connect().await;
    let mut half = server.send(b"GET / HTTP/1.1\r\nHo").await;
    // A single byte of HTTP/2's preface leaves the protocol undecided.
    let mut undecided = server.send(b"P").await;
    let mut idle = server.send(GET).await;
    read_until(&mut idle, "ok").await;
    let sockets = [&mut silent, &mut half, &mut undecided, &mut idle];
    let times = futures::future::join_all(sockets.map(closed_after)).await;
    for (time, least) in times.iter().zip([150, 300, 300, 500]) {
        assert!((least..least + 3_000).contains(&time.as_millis()), "{times:?}");
    }
    assert_eq!(server.drain().await.0.cut_off, 0);
}

#[tokio::test]
async fn the_drain_finishes_requests_and_closes_idle_connections() {
    let server = start(ServerLimits::default()).await;
    let mut slow = server.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut idle = server.send(GET).await;
    read_until(&mut idle, "ok").await;
    let (stop, address) = (server.stop.clone(), server.address);
    let drained = tokio::spawn(server.drain());
    stop.cancelled().await;
    closed_after(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err(), "no new connection while draining");
    assert!(read_until(&mut slow, "slow").await.contains("connection: close"));
    assert_eq!(drained.await.unwrap().0.cut_off, 0);
}

#[tokio::test]
async fn an_endless_response_is_cut_off_after_the_grace_period() {
    let limits = ServerLimits { drain_grace: Duration::from_millis(400), ..ServerLimits::default() };
    let server = start(limits).await;
    let mut endless = server.send(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n").await;
    read_until(&mut endless, "begun\r\n").await;
    let (report, took) = server.drain().await;
    assert_eq!(report.cut_off, 1);
    assert!((Duration::from_millis(400)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let limits = ServerLimits { write_timeout: Duration::from_millis(300), ..ServerLimits::default() };
    let server = start(limits).await;
    let mut stuck = server.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (report, took) = server.drain().await;
    assert_eq!(report.cut_off, 0, "cut before the grace period was over");
    assert!((250..5_000).contains(&took.as_millis()), "{took:?}");
    closed_after(&mut stuck).await;
}

#[tokio::test]
async fn at_the_limit_the_longest_idle_connection_is_closed() {
    let server = start(ServerLimits { max_connections: 3, ..ServerLimits::default() }).await;
    let mut oldest = server.connect().await;
    let mut served = server.send(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n").await;
    read_until(&mut served, "begun\r\n").await;
    let mut young = server.send(GET).await;
    read_until(&mut young, "ok").await;
    let mut next = server.send(GET).await;
    read_until(&mut next, "ok").await;
    closed_after(&mut oldest).await;
    young.write_all(GET).await.unwrap();
    read_until(&mut young, "ok").await;
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let server = start(ServerLimits { max_header_bytes: 8 * 1024, ..ServerLimits::default() }).await;
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(16 * 1024));
    let mut stream = server.send(head.as_bytes()).await;
    let mut reply = vec![0; 64];
    let length = stream.read(&mut reply).await.unwrap();
    assert!(String::from_utf8_lossy(&reply[..length]).starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_and_drained() {
    let server = start(ServerLimits::default()).await;
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("http://test{path}")).body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request("/")).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let slow = tokio::spawn(sender.send_request(request("/slow")));
    // A second exchange on the same connection: when it ends, the server has received the slow
    // request too.
    sender.send_request(request("/")).await.unwrap();
    let (report, _) = server.drain().await;
    assert_eq!(report.cut_off, 0);
    assert_eq!(slow.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), "slow");
    connection.await.unwrap().unwrap();
}
