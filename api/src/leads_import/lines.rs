//! Physical lines of a byte stream, numbered as an editor numbers them.
//!
//! Invariant: no line held is longer than the limit; of a longer one the start is kept, the rest is read and dropped.
//! Lines can be given back, which is how [`super::records`] recovers from a quote that is never closed.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

const BUFFER_BYTES: usize = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line, its end (`\n` or `\r\n`) replaced by one `\n`.
#[derive(Debug)]
pub(super) struct Line {
    pub number: u64,
    pub bytes: Vec<u8>,
    /// The line was longer than the limit, and `bytes` is only its start.
    pub too_long: bool,
}

impl Line {
    pub fn is_blank(&self) -> bool {
        self.bytes.iter().all(|&byte| byte == b' ' || byte == b'\n')
    }
}

pub(super) struct Lines<R> {
    source: BufReader<R>,
    given_back: VecDeque<Line>,
    number: u64,
    max_bytes: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(source: R, max_bytes: usize) -> Self {
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { source, given_back: VecDeque::new(), number: 0, max_bytes }
    }

    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.given_back.pop_front() {
            return Ok(Some(line));
        }
        let mut line = Line { number: self.number + 1, bytes: Vec::new(), too_long: false };
        if !read_line(&mut self.source, &mut line, self.max_bytes).await? {
            return Ok(None);
        }
        self.number = line.number;
        if line.number == 1 && line.bytes.starts_with(BYTE_ORDER_MARK) {
            line.bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if line.bytes.ends_with(b"\r") {
            line.bytes.pop();
        }
        line.bytes.push(b'\n');
        Ok(Some(line))
    }

    /// Puts lines, oldest first, before those not yet read.
    pub fn give_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        for line in lines.rev() {
            self.given_back.push_front(line);
        }
    }
}

/// Appends a line without its `\n`; false at the end of the stream.
async fn read_line<B: AsyncBufRead + Unpin>(source: &mut B, line: &mut Line, max_bytes: usize) -> io::Result<bool> {
    let mut any = false;
    loop {
        let buffer = source.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..newline.unwrap_or(buffer.len())];
        let room = max_bytes - line.bytes.len();
        line.too_long |= part.len() > room;
        line.bytes.extend_from_slice(&part[..part.len().min(room)]);
        let consumed = part.len() + usize::from(newline.is_some());
        source.consume(consumed);
        if newline.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], max: usize) -> Vec<(u64, String, bool)> {
        let mut lines = Lines::new(bytes, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push((line.number, String::from_utf8(line.bytes).unwrap(), line.too_long));
        }
        all
    }

    #[tokio::test]
    async fn numbers_lines_and_evens_their_ends() {
        let lines = read(b"\xef\xbb\xbfa\r\n\nb\nlast", 10).await;
        let want = [(1, "a\n"), (2, "\n"), (3, "b\n"), (4, "last\n")];
        assert_eq!(lines, want.map(|(number, text)| (number, text.to_owned(), false)));
        assert!(read(b"", 10).await.is_empty());
    }

    #[tokio::test]
    async fn cuts_a_line_over_the_limit_and_goes_on() {
        let lines = read(b"12345\n123456\nok\n", 5).await;
        let want = [(1, "12345\n", false), (2, "12345\n", true), (3, "ok\n", false)];
        assert_eq!(lines, want.map(|(number, text, long)| (number, text.to_owned(), long)));
    }
}
