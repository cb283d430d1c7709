//! The transport of an SMTP session: TCP without Nagle's algorithm, with TLS if the target requires
//! it.
//!
//! Invariant: a stream is either plain for its whole life or encrypted from the handshake on;
//! [`super::session`] decides what is sent before the handshake.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::{error::MailError, stage::MailStage};

/// The TLS settings for one relay.
#[derive(Clone)]
pub(super) struct TlsDoor {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

/// An open connection to a relay.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub async fn connect(address: (&str, u16)) -> Result<Self, MailError> {
        let failed = |error: io::Error| MailError::transient(MailStage::Connect, error);
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        // With Nagle's algorithm the final dot waits for the delayed ACK of the body: 22 mails a
        // second instead of 1,400.
        tcp.set_nodelay(true).map_err(failed)?;
        Ok(Self::Plain(tcp))
    }

    /// Performs the TLS handshake.
    pub async fn encrypt(self, door: &TlsDoor) -> Result<Self, MailError> {
        let Self::Plain(tcp) = self else { return Ok(self) };
        let tls = door.connector.connect(door.name.clone(), tcp).await;
        tls.map(|tls| Self::Tls(Box::new(tls))).map_err(|error| MailError::transient(MailStage::Tls, error))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}
