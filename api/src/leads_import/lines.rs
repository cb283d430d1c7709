//! Physical lines of a byte stream, numbered as in an editor.
//!
//! Lines end in LF, CR LF, CR CR LF (a file converted twice) or CR alone, also mixed. A byte order
//! mark at the start of any line is dropped, as concatenated files have some inside; a Ctrl-Z or
//! NULs at the end of the file are padding of old systems and dropped.
//!
//! Invariant: no line in memory is longer than the limit; of a longer line the start is kept, the
//! rest is read and dropped. Lines can be put back, which is how [`super::records`] recovers from a
//! quote that is never closed.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

const BUFFER_BYTES: usize = 64 * 1024;
const CTRL_Z: u8 = 0x1a;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line; its line ending is replaced by `\n`.
#[derive(Debug)]
pub(super) struct Line {
    pub number: u64,
    pub bytes: Vec<u8>,
    /// The line exceeded the limit, and `bytes` is only its start.
    pub too_long: bool,
}

impl Line {
    pub fn is_blank(&self) -> bool {
        self.bytes.iter().all(|&byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | 0 | CTRL_Z))
    }
}

pub(super) struct Lines<R> {
    source: BufReader<R>,
    pending: VecDeque<Line>,
    number: u64,
    max_bytes: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(source: R, max_bytes: usize) -> Self {
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { source, pending: VecDeque::new(), number: 0, max_bytes }
    }

    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.pending.pop_front() {
            return Ok(Some(line));
        }
        let mut line = Line { number: self.number + 1, bytes: Vec::new(), too_long: false };
        match read_line(&mut self.source, &mut line, self.max_bytes).await? {
            End::Nothing => return Ok(None),
            End::OfFile => {
                let padding = line.bytes.iter().rev().take_while(|&&byte| matches!(byte, CTRL_Z | 0)).count();
                line.bytes.truncate(line.bytes.len() - padding);
                self.number += 1;
            }
            End::OfLines(count) => self.number += count,
        }
        if line.bytes.starts_with(BYTE_ORDER_MARK) {
            line.bytes.drain(..BYTE_ORDER_MARK.len());
        }
        line.bytes.push(b'\n');
        Ok(Some(line))
    }

    /// Puts lines back, oldest first, before the lines not yet read.
    pub fn put_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        for line in lines.rev() {
            self.pending.push_front(line);
        }
    }
}

/// How a line ended.
enum End {
    /// The file had ended before.
    Nothing,
    OfFile,
    /// Number of lines: each CR of a run without a following LF ends one, and all but the first are
    /// blank.
    OfLines(u64),
}

/// Appends a line without its line ending.
async fn read_line<B: AsyncBufRead + Unpin>(source: &mut B, line: &mut Line, max_bytes: usize) -> io::Result<End> {
    let mut any = false;
    loop {
        let buffer = source.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(if any { End::OfFile } else { End::Nothing });
        }
        any = true;
        let end = buffer.iter().position(|&byte| matches!(byte, b'\n' | b'\r'));
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = max_bytes - line.bytes.len();
        line.too_long |= part.len() > room;
        line.bytes.extend_from_slice(&part[..part.len().min(room)]);
        let found = end.map(|end| buffer[end]);
        let consumed = part.len() + usize::from(found.is_some());
        source.consume(consumed);
        match found {
            Some(b'\r') => return carriage_returns(source).await,
            Some(_) => return Ok(End::OfLines(1)),
            None => {}
        }
    }
}

/// Reads on after a CR: a run of CRs followed by an LF is one line ending.
async fn carriage_returns<B: AsyncBufRead + Unpin>(source: &mut B) -> io::Result<End> {
    let mut run = 1;
    loop {
        match source.fill_buf().await?.first() {
            Some(b'\r') => run += 1,
            Some(b'\n') => {
                source.consume(1);
                return Ok(End::OfLines(1));
            }
            _ => return Ok(End::OfLines(run)),
        }
        source.consume(1);
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
    async fn lines_are_numbered_and_their_ends_normalized() {
        let lines = read(b"\xef\xbb\xbfa\r\n\nb\nlast", 10).await;
        let want = [(1, "a\n"), (2, "\n"), (3, "b\n"), (4, "last\n")];
        assert_eq!(lines, want.map(|(number, text)| (number, text.to_owned(), false)));
        assert!(read(b"", 10).await.is_empty());
    }

    #[tokio::test]
    async fn all_line_ends_and_trailing_padding_are_recognized() {
        for (bytes, want) in [
            (&b"a\r\r\nb\r\r\n"[..], vec![(1, "a\n"), (2, "b\n")]),
            (b"a\rb\r\rc", vec![(1, "a\n"), (2, "b\n"), (4, "c\n")]),
            (b"a\nb\r\nc\rd", vec![(1, "a\n"), (2, "b\n"), (3, "c\n"), (4, "d\n")]),
            (b"a\n\xef\xbb\xbfb\n", vec![(1, "a\n"), (2, "b\n")]),
            (b"a\nb\x1a", vec![(1, "a\n"), (2, "b\n")]),
            (b"a\n\x1a\0\0", vec![(1, "a\n"), (2, "\n")]),
        ] {
            let lines = read(bytes, 10).await;
            let want: Vec<_> = want.into_iter().map(|(number, text)| (number, text.to_owned(), false)).collect();
            assert_eq!(lines, want, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_truncated_and_reading_continues() {
        let lines = read(b"12345\n123456\nok\n", 5).await;
        let want = [(1, "12345\n", false), (2, "12345\n", true), (3, "ok\n", false)];
        assert_eq!(lines, want.map(|(number, text, long)| (number, text.to_owned(), long)));
    }
}
