//! Bytes of one SMTP connection: lines in, replies out, the dot-unstuffed body, the switch to TLS,
//! the reset.
//!
//! Invariants: replies are sent before the sink waits for more input, and no earlier, so pipelined
//! commands are answered together and in order; only CR LF dot CR LF ends a body; plaintext bytes
//! received before the TLS handshake are discarded.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// RFC 5321 requires 512 and 1,000; a longer line is an attack or a bug.
const MAX_LINE_BYTES: u64 = 64 * 1024;

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

pub(super) struct Wire<S> {
    stream: BufReader<S>,
    replies: Vec<u8>,
}

impl Wire<TcpStream> {
    /// Performs the TLS handshake as the server; input pipelined after STARTTLS is dropped unread.
    pub async fn upgrade(self, tls: Arc<ServerConfig>) -> io::Result<Wire<TlsStream<TcpStream>>> {
        let stream = TlsAcceptor::from(tls).accept(self.stream.into_inner()).await?;
        Ok(Wire::new(stream))
    }
}

impl<S: Socket> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(32 * 1024, stream), replies: Vec::new() }
    }

    pub fn reply(&mut self, code: u16, text: &str) {
        self.replies.extend_from_slice(format!("{code} {text}\r\n").as_bytes());
    }

    /// Writes octets unchanged.
    pub fn raw(&mut self, octets: &[u8]) {
        self.replies.extend_from_slice(octets);
    }

    pub fn reply_lines(&mut self, code: u16, lines: &[&str]) {
        let Some((last, rest)) = lines.split_last() else { return };
        for line in rest {
            self.replies.extend_from_slice(format!("{code}-{line}\r\n").as_bytes());
        }
        self.reply(code, last);
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.replies.is_empty() {
            self.stream.write_all(&self.replies).await?;
            self.replies.clear();
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// The next command without its line ending; `None` if the client has closed the connection.
    pub async fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.read_raw_line(&mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    /// Waits until the client has sent something, without consuming it.
    pub async fn wait_for_input(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.fill_buf().await.map(drop)
    }

    /// Reads the body up to the final dot. The rest of a body larger than `max_bytes` is read and
    /// dropped, and `None` returned.
    pub async fn read_body(&mut self, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        let mut line = Vec::new();
        let mut after_crlf = true;
        let mut size_bytes = 0;
        loop {
            line.clear();
            self.read_raw_line(&mut line).await?;
            match line.as_slice() {
                [] => return Err(ErrorKind::UnexpectedEof.into()),
                b".\r\n" if after_crlf => break,
                _ => {}
            }
            let content = if after_crlf { line.strip_prefix(b".").unwrap_or(&line) } else { &line };
            size_bytes += content.len();
            if size_bytes <= max_bytes {
                body.extend_from_slice(content);
            }
            after_crlf = line.ends_with(b"\r\n");
        }
        Ok((size_bytes <= max_bytes).then_some(body))
    }

    async fn read_raw_line(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        if !self.stream.buffer().contains(&b'\n') {
            self.flush().await?;
        }
        (&mut self.stream).take(MAX_LINE_BYTES).read_until(b'\n', line).await?;
        Ok(())
    }

    /// Ends the connection with RST, which discards all data in flight. Unflushed replies are lost.
    pub fn reset(self) {
        // If this fails, the connection merely closes normally.
        let _ = SockRef::from(self.stream.get_ref().tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Sends the last replies and closes the connection.
    pub async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }
}
