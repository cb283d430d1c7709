//! The wire under an SMTP connection: TCP without Nagle's delay, and TLS around it when the target asks for it.
//!
//! Invariant: with TLS asked for, nothing but EHLO and STARTTLS leaves in clear, and nothing that arrived in clear is
//! read after the handshake. STARTTLS is spoken here rather than by lettre, whose reader keeps what a man in the
//! middle appended to the relay's `220` and would take it for the relay's encrypted words.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use lettre::transport::smtp::{client::AsyncTokioStream, extension::ClientId};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::{
    error::{MailError, MailStage},
    target::Encryption,
};

/// lettre opens every connection by reading a greeting; after STARTTLS there is none, so it reads this one.
const GREETING_AFTER_STARTTLS: &[u8] = b"220 TLS started\r\n";
const MAX_LINE_BYTES: u64 = 1_000;
const MAX_REPLY_LINES: usize = 100;

/// How TLS is to be spoken to one relay.
#[derive(Clone)]
pub(super) struct TlsDoor {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

/// An open wire to a relay.
#[derive(Debug)]
pub(super) struct Wire {
    /// Octets to be read before those of the stream.
    prelude: &'static [u8],
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Connects to the relay and encrypts as asked.
    pub async fn open(
        address: (&str, u16),
        tls: Option<(&TlsDoor, Encryption)>,
        hello: &ClientId,
    ) -> Result<Self, MailError> {
        let tcp = connect(address).await.map_err(|error| MailError::transient(MailStage::Connect, error))?;
        match tls {
            None | Some((_, Encryption::None)) => Ok(Self { prelude: b"", stream: Stream::Plain(tcp) }),
            Some((door, Encryption::Implicit)) => encrypt(tcp, door, b"").await,
            Some((door, Encryption::StartTls)) => {
                encrypt(start_tls(tcp, hello).await?, door, GREETING_AFTER_STARTTLS).await
            }
        }
    }
}

async fn connect(address: (&str, u16)) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    // With Nagle the final dot waits for the delayed ACK of the body: 22 mails a second instead of 1,400.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn encrypt(tcp: TcpStream, door: &TlsDoor, prelude: &'static [u8]) -> Result<Wire, MailError> {
    let tls = door
        .connector
        .connect(door.name.clone(), tcp)
        .await
        .map_err(|error| MailError::transient(MailStage::Tls, error))?;
    Ok(Wire { prelude, stream: Stream::Tls(Box::new(tls)) })
}

/// Greeting, EHLO and STARTTLS in clear; returns the stream right before the handshake.
async fn start_tls(tcp: TcpStream, hello: &ClientId) -> Result<TcpStream, MailError> {
    let mut reader = BufReader::new(tcp);
    expect(&mut reader, MailStage::Hello, 220).await?;
    let offers = command(&mut reader, &format!("EHLO {hello}\r\n"), MailStage::Hello, 250).await?;
    if !offers.iter().skip(1).any(|line| line.trim().eq_ignore_ascii_case("STARTTLS")) {
        let reason = "the relay does not offer STARTTLS and TLS is required, so no mail was sent to it";
        return Err(MailError::transient(MailStage::Tls, reason));
    }
    command(&mut reader, "STARTTLS\r\n", MailStage::Tls, 220).await?;
    if !reader.buffer().is_empty() {
        return Err(MailError::transient(MailStage::Tls, "octets were injected between STARTTLS and the handshake"));
    }
    Ok(reader.into_inner())
}

async fn command(
    reader: &mut BufReader<TcpStream>,
    line: &str,
    stage: MailStage,
    expected: u16,
) -> Result<Vec<String>, MailError> {
    reader.write_all(line.as_bytes()).await.map_err(|error| MailError::transient(stage, error))?;
    expect(reader, stage, expected).await
}

/// Reads one reply, which may have several lines, and requires its code.
async fn expect(reader: &mut BufReader<TcpStream>, stage: MailStage, expected: u16) -> Result<Vec<String>, MailError> {
    let mut texts = Vec::new();
    loop {
        let line = read_line(reader).await.map_err(|error| MailError::transient(stage, error))?;
        let (code, last, text) =
            parse_line(&line).ok_or_else(|| MailError::transient(stage, "the relay does not speak SMTP"))?;
        texts.push(text.to_owned());
        if !last && texts.len() < MAX_REPLY_LINES {
            continue;
        }
        return if code == expected {
            Ok(texts)
        } else {
            let reason = format!("the relay refuses us with {code}: {}", texts.join(" "));
            Err(MailError::refused(stage, Some(code), reason))
        };
    }
}

async fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the relay closed the connection"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// `250-text` is one of several lines, `250 text` the last.
fn parse_line(line: &str) -> Option<(u16, bool, &str)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = code.bytes().all(|b| b.is_ascii_digit()).then(|| code.parse().ok())??;
    match rest.strip_prefix('-') {
        Some(text) => Some((code, false, text)),
        None => Some((code, true, rest.strip_prefix(' ').unwrap_or(rest))),
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.stream {
            Stream::Plain(tcp) => tcp.peer_addr(),
            Stream::Tls(tls) => tls.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prelude.is_empty() {
            let (now, later) = this.prelude.split_at(this.prelude.len().min(buf.remaining()));
            buf.put_slice(now);
            this.prelude = later;
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_lines() {
        assert_eq!(parse_line("250-SIZE 1"), Some((250, false, "SIZE 1")));
        assert_eq!(parse_line("220 ready"), Some((220, true, "ready")));
        assert_eq!(parse_line("220"), Some((220, true, "")));
        for broken in ["", "22", "hello", "+20 x", "äöü"] {
            assert_eq!(parse_line(broken), None, "{broken}");
        }
    }
}
