//! What can go wrong with a mail, in the three classes that a job has to tell apart.
//!
//! Invariant: no text made here carries a password, and none is longer than [`MAX_REPLY_CHARS`] of foreign text.
//! Which reply falls into which class is decided in [`super::dialogue`].

use std::fmt;

use super::text::one_line;

/// Foreign text (a relay's reply) kept in an error, in characters.
pub const MAX_REPLY_CHARS: usize = 300;

/// Where in the life of one mail a failure happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailStage {
    /// Waiting for a pooled connection or opening one.
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
    /// DATA, before the relay says 354.
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

/// Why a mail was not (known to be) taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Final for this recipient: the relay will answer the same to a repeat.
    #[error("rejected by the relay at {stage} with {code}: {message}")]
    Rejected {
        stage: MailStage,
        /// The SMTP reply code, 500 to 599.
        code: u16,
        message: String,
    },
    /// Worth a retry: trouble of the relay, the network or our credentials, not of the recipient.
    #[error("not sent, may be retried, at {stage}: {reason}")]
    Transient {
        stage: MailStage,
        /// The SMTP reply code if the relay gave one.
        code: Option<u16>,
        reason: String,
        /// The whole message had gone out and no reply to it was read: the relay may have taken it, so a
        /// repeat (with the same Message-ID) may double. False whenever a double is impossible.
        after_data: bool,
    },
    /// Final: no message can be made of this (a malformed address, a bad Message-ID). Nothing was sent.
    #[error("the mail cannot be built: {reason}")]
    Invalid { reason: String },
}

impl MailError {
    /// True if the relay may have taken the message although the send failed.
    pub fn after_data(&self) -> bool {
        matches!(self, Self::Transient { after_data: true, .. })
    }

    /// True if a repeat cannot succeed, so that the recipient is to be given up.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Transient { .. })
    }

    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(super) fn transient(stage: MailStage, reason: impl fmt::Display) -> Self {
        Self::refused(stage, None, reason)
    }

    pub(super) fn refused(stage: MailStage, code: Option<u16>, reason: impl fmt::Display) -> Self {
        Self::Transient { stage, code, reason: excerpt(&reason.to_string()), after_data: false }
    }
}

/// A mail address that cannot be used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mail address: {0}")]
pub struct InvalidAddress(pub(super) &'static str);

/// What is wrong with `SMTP_URL` or the settings beside it. Never repeats the URL: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum MailConfigError {
    #[error("SMTP_URL must be file:DIRECTORY, smtp://HOST or smtps://HOST: {0}")]
    Malformed(String),
    #[error("SMTP_URL asks for tls={0}: TLS is either required or none, it is never downgraded on the way")]
    Tls(String),
    #[error("SMTP_URL: unknown setting `{0}`; known are tls and ca")]
    UnknownSetting(String),
    #[error("SMTP_URL: the CA file {path} cannot be used: {reason}")]
    CaFile { path: String, reason: String },
    #[error("mail settings: {0}")]
    Settings(&'static str),
}

/// Foreign text on one line and of bounded length.
pub(super) fn excerpt(text: &str) -> String {
    one_line(text, MAX_REPLY_CHARS)
}
