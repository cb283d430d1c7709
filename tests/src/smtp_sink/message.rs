//! What the sink keeps of an accepted message.
//!
//! Invariant: `raw` is byte for byte the client's message, after dot-unstuffing and without the
//! final dot. Use `mail_parser` to read its MIME parts.

use std::time::SystemTime;

/// One accepted message, shared by all recipients of its transaction.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// Envelope sender, empty for bounces.
    pub from: String,
    /// Envelope recipients, as written by the client.
    pub to: Vec<String>,
    pub raw: Vec<u8>,
    /// Including the angle brackets.
    pub message_id: Option<String>,
    pub received_at: SystemTime,
    /// Whether the message was received over TLS.
    pub tls: bool,
}

impl ReceivedMessage {
    /// The first header with that name, unfolded; encoded words are not decoded.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.raw, name)
    }

    /// The whole message as text, for `contains` in tests.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }
}

/// A recipient with more than one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub recipient: String,
    pub count: usize,
    /// Whether all of them have the same Message-ID, as a repeat after a lost acknowledgement must.
    pub same_message_id: bool,
}

pub(super) fn header(raw: &[u8], name: &str) -> Option<String> {
    let mut lines = raw.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut value = lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| value_of(line, name))?;
    for line in lines.take_while(|line| line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))) {
        value.push(' ');
        value.push_str(String::from_utf8_lossy(line).trim());
    }
    Some(value)
}

fn value_of(line: &[u8], name: &str) -> Option<String> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (found, value) = (&line[..colon], &line[colon + 1..]);
    found.eq_ignore_ascii_case(name.as_bytes()).then(|| String::from_utf8_lossy(value).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::header;

    const RAW: &[u8] = b"Subject: one\r\n two\r\nmessage-id: <1@x>\r\n\r\nTo: not a header\r\n";

    #[test]
    fn headers_are_unfolded_and_end_at_the_blank_line() {
        assert_eq!(header(RAW, "subject").as_deref(), Some("one two"));
        assert_eq!(header(RAW, "Message-ID").as_deref(), Some("<1@x>"));
        assert_eq!(header(RAW, "To"), None);
    }
}
