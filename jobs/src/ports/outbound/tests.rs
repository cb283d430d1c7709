//! The guard with real connections on loopback, and names that resolve as the test specifies.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Returns the next of its lists for each look-up, and the last one from then on.
struct Scripted {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Scripted {
    fn lookup(&self, _name: &str) -> LookedUp {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { if answer.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(answer) } })
    }
}

/// 127.0.0.2 stands for the public internet, 127.0.0.1 for a private network.
fn outbound(lookup: Arc<dyn Lookup>) -> Outbound {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = OutboundPolicy { allow_http: true, allowed_networks: vec!["127.0.0.2/32".parse().unwrap()] };
    Outbound::with_lookup(policy, lookup).unwrap()
}

/// Sends `answer` on every connection and counts the connections.
async fn server(address: &str, answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, accepted)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn post(outbound: &Outbound, url: &str) -> Result<Answer, OutboundError> {
    outbound.post(url, HeaderMap::new(), "{}".into()).await
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_checked_address_is_used() {
    let (address, accepted) = server("127.0.0.2", ok("thanks")).await;
    let names = Scripted::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let outbound = outbound(names.clone());
    let url = format!("http://rebinding.test:{}/", address.port());
    assert_eq!(post(&outbound, &url).await.unwrap(), Answer { status: 200, beginning: "thanks".into() });
    assert_eq!((names.asked.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst)), (1, 1));
    // The second look-up returns a private address: it is checked again, and no earlier connection
    // is reused.
    assert!(matches!(post(&outbound, &url).await, Err(OutboundError::Forbidden(_))));
    assert_eq!((names.asked.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn one_forbidden_address_refuses_the_whole_name() {
    let (good, at_good) = server("127.0.0.2", ok("")).await;
    let inside = TcpListener::bind(("127.0.0.1", good.port())).await.unwrap();
    for names in [&["127.0.0.2", "127.0.0.1"], &["127.0.0.1", "127.0.0.2"], &["::ffff:127.0.0.1", "127.0.0.2"]] {
        let outbound = outbound(Scripted::new(&[names.as_slice()]));
        let refused = post(&outbound, &format!("http://mixed.test:{}/", good.port())).await;
        assert!(matches!(refused, Err(OutboundError::Forbidden(_))), "{names:?}: {refused:?}");
    }
    assert_eq!(at_good.load(Ordering::SeqCst), 0);
    let nobody = tokio::time::timeout(Duration::from_millis(50), inside.accept()).await;
    assert!(nobody.is_err(), "no connection to the private address");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (inside, reached) = server("127.0.0.2", ok("secret")).await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: http://{inside}/\r\ncontent-length: 0\r\n\r\n");
    let (address, _) = server("127.0.0.2", redirect).await;
    let outbound = outbound(Scripted::new(&[&["127.0.0.2"]]));
    let answer = post(&outbound, &format!("http://{address}/")).await.unwrap();
    assert_eq!((answer.status, reached.load(Ordering::SeqCst)), (302, 0));
}

#[tokio::test]
async fn a_response_is_read_up_to_a_bound() {
    let endless = format!("HTTP/1.1 500 Oops\r\n\r\n{}", "\0y".repeat(10 * MAX_ANSWER_BYTES));
    let (address, _) = server("127.0.0.2", endless).await;
    let outbound = outbound(Scripted::new(&[&["127.0.0.2"]]));
    let answer = post(&outbound, &format!("http://{address}/")).await.unwrap();
    assert_eq!((answer.status, answer.beginning.chars().count()), (500, KEPT_ANSWER_BYTES));
    assert!(!answer.beginning.contains('\0'));
}

/// The status says what the server did, whether or not the body is complete.
#[tokio::test]
async fn a_response_with_a_truncated_body_counts() {
    let outbound = outbound(Scripted::new(&[&["127.0.0.2"]]));
    for status in [200, 410, 500] {
        let cut = format!("HTTP/1.1 {status} Cut\r\ncontent-length: 100\r\n\r\nbeginning");
        let (address, _) = server("127.0.0.2", cut).await;
        let answer = post(&outbound, &format!("http://{address}/")).await.unwrap();
        assert_eq!(answer, Answer { status, beginning: "beginning".into() });
    }
    let (address, _) = server("127.0.0.2", "HTTP/1.1 200 OK\r\ncontent-le".into()).await;
    let cut = post(&outbound, &format!("http://{address}/")).await;
    assert!(matches!(cut, Err(OutboundError::Failed(_))), "half a head is not a response: {cut:?}");
}

#[tokio::test]
async fn errors_give_the_cause_without_the_url() {
    let outbound = outbound(Scripted::new(&[&[]]));
    let unknown = post(&outbound, "http://nowhere.test/secret-path").await.unwrap_err().to_string();
    assert!(unknown.contains("dns") && !unknown.contains("secret-path"), "{unknown}");
    let literal = post(&outbound, "http://127.0.0.1/").await.unwrap_err();
    assert!(matches!(literal, OutboundError::Target(TargetError::Address)), "{literal}");
}
