//! A cheap client, so that the server is what is measured: one keep-alive connection, requests
//! built in advance.

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One connection to the API.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request as sent over the wire.
pub fn post(path: &str, api_key: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {api_key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Client {
    /// Connects.
    pub async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Sends a request and reads the whole response, which must be a 202.
    pub async fn accepted(&mut self, request: &[u8]) -> Result<()> {
        self.answered(request, "202").await.map(drop)
    }

    /// Sends a request, reads the whole response, which must have this status, and returns its
    /// body.
    pub async fn answered(&mut self, request: &[u8], status: &str) -> Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some((head, length)) = answer_length(&self.buffer)?
                && self.buffer.len() >= length
            {
                break head;
            }
        };
        if !self.buffer.starts_with(format!("HTTP/1.1 {status}").as_bytes()) {
            bail!("{}", String::from_utf8_lossy(&self.buffer));
        }
        Ok(&self.buffer[head..])
    }
}

/// The length of the head, and of head and body, of the response, once the head is complete.
fn answer_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")).context("the response has a length")?;
    Ok(Some((end + 4, end + 4 + length.trim().parse::<usize>()?)))
}
