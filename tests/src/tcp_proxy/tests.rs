//! Every mode, as seen by the client.

use super::*;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

async fn connect() -> (TcpProxy, TcpStream) {
    let proxy = TcpProxy::start(echo().await).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), *b"ping");
    (proxy, client)
}

async fn ask(client: &mut TcpStream) -> io::Result<[u8; 4]> {
    client.write_all(b"ping").await?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn refuses_new_connections_only() {
    let (proxy, mut old) = connect().await;
    proxy.set(Mode::Refuse);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut new).await.unwrap_err();
    ask(&mut old).await.unwrap();
    assert_eq!((proxy.connections(), proxy.bytes()), (2, (8, 8)));
}

#[tokio::test]
async fn resets_idle_connections_at_once() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::Reset);
    let end = timeout(SECOND, client.read_u8()).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    crate::eventually::eventually(SECOND, "no connection", async || (proxy.open_connections() == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_reset_throws_away_what_a_blackhole_held() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::Blackhole);
    client.write_all(b"ping").await.unwrap();
    timeout(SOON, client.read_u8()).await.unwrap_err();
    proxy.set(Mode::Reset);
    timeout(SECOND, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(proxy.bytes(), (4, 4));
}

#[tokio::test]
async fn a_blackhole_gives_back_what_it_held() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::Blackhole);
    client.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    timeout(SOON, client.peek(&mut answer)).await.unwrap_err();
    proxy.set(Mode::Pass);
    timeout(SECOND, client.read_exact(&mut answer)).await.unwrap().unwrap();
}

#[tokio::test]
async fn delays_both_ways() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::Delay(SOON));
    let start = std::time::Instant::now();
    ask(&mut client).await.unwrap();
    assert!(start.elapsed() >= 2 * SOON);
}

#[tokio::test]
async fn cuts_after_so_many_bytes() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::CutAfter { up_bytes: None, down_bytes: Some(6) });
    client.write_all(b"ping").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(proxy.bytes(), (8, 6));
}

#[tokio::test]
async fn drops_replies_but_not_requests() {
    let (proxy, mut client) = connect().await;
    proxy.set(Mode::DropReply);
    timeout(SOON, ask(&mut client)).await.unwrap_err();
    assert_eq!(proxy.bytes(), (8, 4));
    proxy.set(Mode::Pass);
    timeout(SECOND, ask(&mut client)).await.unwrap().unwrap();
}
