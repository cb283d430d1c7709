//! The steps of sending a mail.

use std::fmt;

/// The step of sending a mail at which a failure happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailStage {
    /// Waiting for a connection that is in use.
    Wait,
    /// Opening a connection.
    Connect,
    /// The TLS handshake, or the STARTTLS before it.
    Tls,
    /// The relay's greeting and EHLO.
    Hello,
    /// AUTH.
    Authenticate,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, before the relay's 354.
    Data,
    /// Sending the message itself.
    Body,
    /// The reply to the whole message.
    Reply,
    /// Writing the `.eml` file of a folder mailer.
    File,
}

impl fmt::Display for MailStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Hello => "greeting",
            Self::Authenticate => "authentication",
            Self::Sender => "MAIL FROM",
            Self::Recipient => "RCPT TO",
            Self::Data => "DATA",
            Self::Body => "message body",
            Self::Reply => "final reply",
            Self::File => "file",
        })
    }
}
