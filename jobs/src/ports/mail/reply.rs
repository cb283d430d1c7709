//! Reads one reply of a relay, as leniently as possible.
//!
//! Invariant: the first three digits decide; the rest, in any octets and of any length, is only
//! text. Memory is bounded ([`MAX_LINE_BYTES`], [`MAX_LINES`]), and once a code was read the wait
//! for the end of the reply is short: a relay that has replied `250` must not be sent the same mail
//! again because the rest of its line is malformed.
//!
//! RFC 5321 §4.2.1 requires the same code on all lines of a reply. If they differ, the first line
//! counts; [`super::verdict`] decides from [`Reply::accepts`] and [`Reply::is_consistent`] what
//! that means after the final dot and for a refusal.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _},
    time::timeout,
};

/// Maximum octets of a line that are kept; the rest of the line is read and dropped.
const MAX_LINE_BYTES: usize = 512;
/// Maximum lines of a reply that are kept.
const MAX_LINES: usize = 100;
/// A reply ends at this length at the latest.
const MAX_REPLY_BYTES: usize = 256 * 1024;
/// Wait for the rest of a reply after its code was read.
const REST_PATIENCE: Duration = Duration::from_secs(5);
/// Wait for a code after lines without one.
const NOISE_PATIENCE: Duration = Duration::from_secs(1);

/// A reply with a code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The first three digits.
    pub code: u16,
    /// The text of each line, without the code; at most [`MAX_LINES`] lines.
    pub lines: Vec<String>,
    /// Whether any line has a 2xx code.
    pub accepts: bool,
    /// Whether all codes belong to the same class (2xx, 4xx, …).
    pub is_consistent: bool,
    /// Whether the reply was complete. After an incomplete one, the connection's further input
    /// cannot be interpreted.
    pub is_whole: bool,
}

impl Reply {
    /// The first digit of the code: 2 for 250.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// All lines, joined.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoReply {
    #[error("the relay closed the connection")]
    Closed,
    #[error("the relay does not speak SMTP")]
    NotSmtp,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one reply. `received_code` is set as soon as the code is known, for a caller whose
/// deadline interrupts the read.
pub(super) async fn read_reply<R: AsyncBufRead + Unpin>(
    source: &mut R,
    received_code: &mut Option<u16>,
) -> Result<Reply, NoReply> {
    let mut draft = Draft::default();
    loop {
        let octets = match draft.patience() {
            None => source.fill_buf().await,
            Some(patience) => match timeout(patience, source.fill_buf()).await {
                Ok(octets) => octets,
                Err(_) => return draft.cut_short(NoReply::NotSmtp),
            },
        };
        let octets = match octets {
            Ok(octets) if !octets.is_empty() => octets,
            Ok(_) => return draft.cut_short(NoReply::Closed),
            Err(error) => return draft.cut_short(error.into()),
        };
        let (used, is_whole) = draft.take(octets);
        source.consume(used);
        *received_code = draft.code();
        if is_whole {
            return draft.reply(true).ok_or(NoReply::NotSmtp);
        }
        if draft.read_bytes > MAX_REPLY_BYTES {
            return draft.cut_short(NoReply::NotSmtp);
        }
    }
}

/// A reply being read.
#[derive(Default)]
struct Draft {
    /// The current line, up to the kept length.
    line: Vec<u8>,
    codes: Vec<u16>,
    lines: Vec<String>,
    /// Whether a line without a code was seen before any line with one.
    noise: bool,
    read_bytes: usize,
}

impl Draft {
    /// The code, also from a first line that has not ended yet.
    fn code(&self) -> Option<u16> {
        self.codes.first().copied().or_else(|| CodedLine::parse(&self.line).map(|line| line.code))
    }

    fn patience(&self) -> Option<Duration> {
        match self.code() {
            Some(_) => Some(REST_PATIENCE),
            None => self.noise.then_some(NOISE_PATIENCE),
        }
    }

    /// Consumes octets up to the end of the reply; returns their number and whether the reply is
    /// complete.
    fn take(&mut self, octets: &[u8]) -> (usize, bool) {
        let mut used = 0;
        for part in octets.split_inclusive(|&octet| octet == b'\n') {
            used += part.len();
            self.read_bytes += part.len();
            let room = MAX_LINE_BYTES - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") && self.end_line() {
                return (used, true);
            }
        }
        (used, false)
    }

    /// Whether the line was the last one of the reply.
    fn end_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        if line.trim_ascii().is_empty() {
            return false;
        }
        let continued = !self.codes.is_empty();
        let Some(coded) = CodedLine::parse(&line).filter(|coded| !continued || coded.is_separated) else {
            self.noise = true;
            if continued {
                self.keep(&line);
            }
            return false;
        };
        // One of each is enough to see whether they agree.
        if !self.codes.contains(&coded.code) && self.codes.len() < MAX_LINES {
            self.codes.push(coded.code);
        }
        self.keep(coded.text);
        !coded.is_continued
    }

    fn keep(&mut self, text: &[u8]) {
        if self.lines.len() < MAX_LINES {
            self.lines.push(String::from_utf8_lossy(text).trim().to_owned());
        }
    }

    /// Ends the reply early: if it has a code, it counts, because nothing more will arrive.
    fn cut_short(mut self, otherwise: NoReply) -> Result<Reply, NoReply> {
        self.end_line();
        self.reply(false).ok_or(otherwise)
    }

    fn reply(self, is_whole: bool) -> Option<Reply> {
        let code = *self.codes.first()?;
        Some(Reply {
            code,
            accepts: self.codes.iter().any(|code| code / 100 == 2),
            is_consistent: self.codes.iter().all(|other| other / 100 == code / 100),
            lines: self.lines,
            is_whole,
        })
    }
}

/// `250-text` is one of several lines; anything else after the digits (`250 text`, `250`,
/// `250\ttext`, `250text`) marks the last one.
struct CodedLine<'a> {
    code: u16,
    is_continued: bool,
    /// Whether the digits are followed by a separator or nothing; otherwise a later line, such as
    /// one that begins with an IP address, is only text.
    is_separated: bool,
    text: &'a [u8],
}

impl<'a> CodedLine<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line).trim_ascii();
        let (digits, rest) = line.split_at_checked(3)?;
        if !digits.iter().all(u8::is_ascii_digit) || rest.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        Some(Self {
            code: digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')),
            is_continued: rest.first() == Some(&b'-'),
            is_separated: rest.first().is_none_or(|next| b"- \t".contains(next)),
            text: rest.strip_prefix(b"-").unwrap_or(rest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(octets: &[u8]) -> Result<Reply, String> {
        read_reply(&mut &octets[..], &mut None).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_first_three_digits_are_the_code() {
        let long = format!("250 {}\r\n", "x".repeat(3_000));
        let endless = "250-x\r\n".repeat(100_000);
        for (octets, code, whole) in [
            (&b"250 2.0.0 \xfcbernommen\r\n"[..], 250, true),
            (b"250\r\n", 250, true),
            (b"250\tok\r\n", 250, true),
            (b"250ok\n", 250, true),
            (b"250 ok\n", 250, true),
            (b"\r\n\r\n250 ok\r\n", 250, true),
            (b"  250 ok\r\n", 250, true),
            (b"\xef\xbb\xbf220 hi\r\n", 220, true),
            (b"hello\r\n250 ok\r\n", 250, true),
            (b"250-a\r\n\r\n192.168.0.1 b\r\n250 c\r\n", 250, true),
            (b"250-a\r\n451 c\r\n", 250, true),
            (b"451-a\r\n250 c\r\n", 451, true),
            (b"250\0ok\r\n", 250, true),
            (b"699 what\r\n", 699, true),
            (b"000\r\n", 0, true),
            (b"250 ok", 250, false),
            (b"250 ok\r", 250, false),
            (b"250-a\r\n", 250, false),
            (long.as_bytes(), 250, true),
            (endless.as_bytes(), 250, false),
        ] {
            let reply = read(octets).await.unwrap_or_else(|error| panic!("{octets:?}: {error}"));
            assert_eq!((reply.code, reply.is_whole), (code, whole), "{:?}", String::from_utf8_lossy(octets));
            assert!(reply.lines.len() <= MAX_LINES && reply.lines.iter().all(|line| line.len() <= MAX_LINE_BYTES));
        }
        for octets in [&b""[..], b"25", b"\r\n", b"hello\r\n", b"2500 x\r\n", b"+25 x\r\n", b"\xff\xff\xff\n"] {
            assert!(read(octets).await.is_err(), "{octets:?}");
        }
    }

    #[tokio::test]
    async fn differing_codes_make_a_reply_inconsistent() {
        for (octets, accepts, consistent) in [
            ("250-a\r\n250 b\r\n", true, true),
            ("250-a\r\n251 b\r\n", true, true),
            ("250-a\r\n451 b\r\n", true, false),
            ("451-a\r\n250 b\r\n", true, false),
            ("550-a\r\n551 b\r\n", false, true),
        ] {
            let reply = read(octets.as_bytes()).await.unwrap();
            assert_eq!((reply.accepts, reply.is_consistent), (accepts, consistent), "{octets}");
        }
    }

    #[tokio::test]
    async fn replies_sent_together_are_read_one_by_one() {
        let mut source = &b"250 a\r\n354 b\r\n"[..];
        for code in [250, 354] {
            assert_eq!(read_reply(&mut source, &mut None).await.unwrap().code, code);
        }
    }

    #[tokio::test]
    async fn a_code_is_available_before_its_line_ends() {
        let (mut relay, client) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut relay, b"250 ok").await.unwrap();
        let mut received_code = None;
        let mut source = tokio::io::BufReader::new(client);
        let reading = read_reply(&mut source, &mut received_code);
        assert!(timeout(Duration::from_millis(50), reading).await.is_err(), "the line may still end");
        assert_eq!(received_code, Some(250));
    }
}
