//! Connections: A sends HTTP/2 frames that cost it nothing, as fast as possible.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::installation::Installation;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::unharmed;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const LAST: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// `SETTINGS`, `PING`, `WINDOW_UPDATE`, `PRIORITY` and an unknown type.
const FLOODS: [(&str, &[u8]); 5] = [
    ("SETTINGS", b"\0\0\0\x04\0\0\0\0\0"),
    ("PING", b"\0\0\x08\x06\0\0\0\0\0AAAAAAAA"),
    ("WINDOW_UPDATE", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
    ("PRIORITY", b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10"),
    ("unknown", b"\0\0\0\x63\0\0\0\0\0"),
];

/// Floods one connection until it is closed, and returns the bytes received.
async fn flood(api: SocketAddr, frame: &[u8]) -> Result<Vec<u8>> {
    let (mut reader, mut writer) = TcpStream::connect(api).await?.into_split();
    writer.write_all(PREFACE).await?;
    let frames = frame.repeat(1_000);
    let writing = async { while writer.write_all(&frames).await.is_ok() {} };
    let mut said = Vec::new();
    let reading = async {
        // A reset after the GOAWAY ends the read as well.
        let _ = reader.read_to_end(&mut said).await;
    };
    timeout(PATIENCE, async { tokio::join!(writing, reading) }).await.context("the server did not end the flood")?;
    Ok(said)
}

/// The error code of the `GOAWAY` frame in the bytes received from a server.
fn goaway(mut said: &[u8]) -> Option<u32> {
    while let [high, middle, low, kind, rest @ ..] = said {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let payload = rest.get(5..5 + length)?;
        if *kind == 7 {
            return Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?));
        }
        said = &rest[5 + length..];
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames() -> Result<()> {
    let mut rota = Installation::start().await?;
    let api = rota.tenant.address()?;
    for (name, frame) in FLOODS {
        let said = flood(api, frame).await.context(name)?;
        ensure!(goaway(&said).is_none_or(|code| code == 0xb), "{name}: {:?}", goaway(&said));
    }
    // The server never replies to these frames, so nothing of its own is in flight and the GOAWAY
    // always arrives.
    let said = flood(api, FLOODS[2].1).await?;
    ensure!(goaway(&said) == Some(0xb), "ENHANCE_YOUR_CALM instead of {:?}", goaway(&said));
    unharmed(&mut rota, async || {
        let begun = Instant::now();
        let floods = (0..CONNECTIONS).map(|at| async move {
            while begun.elapsed() < LAST {
                // A refused or reset connection counts as ended, too.
                let _ = flood(api, FLOODS[at % FLOODS.len()].1).await;
            }
        });
        futures::future::join_all(floods).await;
        Ok(())
    })
    .await
}
