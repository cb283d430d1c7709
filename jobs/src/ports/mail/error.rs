//! What can go wrong with a mail, in the three classes that a job has to tell apart.
//!
//! Invariant: no text made here carries a password or the recipient's address, and none is longer than
//! [`MAX_REPLY_CHARS`] of foreign text; [`MailError::summary`] has no foreign text at all and is what logs carry.
//! Which reply falls into which class is decided in [`super::verdict`].

use std::{fmt, time::Duration};

use lettre::Address;
use shared::foreign_text;

use super::{
    reply::{NoReply, Reply},
    text::one_line,
    verdict::{EnhancedCode, Verdict, judge},
};

/// Foreign text (a relay's reply) kept in an error, in characters.
pub const MAX_REPLY_CHARS: usize = 300;
/// What stands in the place of an address.
const RECIPIENT: &str = "<recipient>";
/// A shorter local part may be any word.
const MIN_LOCAL_BYTES: usize = 3;

/// Where in the life of one mail a failure happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailStage {
    /// Waiting for a connection that others use.
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

/// Whose matter a failure is that a retry may mend. Only [`Blame::Recipient`] and [`Blame::Sender`] count against a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The relay takes nothing from anyone: unreachable, no TLS, no greeting, credentials refused.
    Relay,
    /// The relay is reachable, but its connections are in use, or the recipient's domain does not answer just now.
    Busy,
    /// The relay refuses this sender: policy, relaying, blocks, the sequence of commands.
    Sender,
    /// The recipient's side asks for a later try, or the dialogue broke off.
    Recipient,
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
        enhanced: Option<EnhancedCode>,
        message: String,
        /// The reply says that there is no such mailbox, for no mail; otherwise it speaks of this mail.
        mailbox_dead: bool,
    },
    /// Worth a retry.
    #[error("not sent, may be retried, at {stage}: {reason}")]
    Transient {
        stage: MailStage,
        /// The SMTP reply code if the relay gave one.
        code: Option<u16>,
        enhanced: Option<EnhancedCode>,
        reason: String,
        /// The whole message had gone out and no reply to it was read: the relay may have taken it, so a
        /// repeat (with the same Message-ID) may double. False whenever a double is impossible.
        after_data: bool,
        blame: Blame,
        /// When a connection may be free, or the relay is looked for again.
        retry_in: Option<Duration>,
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

    /// True if octets of the message itself have left, so that a repeat must be the same mail.
    pub fn message_was_seen(&self) -> bool {
        self.stage().is_some_and(|stage| matches!(stage, MailStage::Body | MailStage::Reply))
    }

    /// True if a repeat cannot succeed, so that the recipient is to be given up.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Transient { .. })
    }

    /// Whose matter it is; `None` if it is final.
    pub fn blame(&self) -> Option<Blame> {
        match self {
            Self::Transient { blame, .. } => Some(*blame),
            Self::Rejected { .. } | Self::Invalid { .. } => None,
        }
    }

    pub(super) fn set_blame(&mut self, other: Blame) {
        if let Self::Transient { blame, .. } = self {
            *blame = other;
        }
    }

    pub fn stage(&self) -> Option<MailStage> {
        match self {
            Self::Rejected { stage, .. } | Self::Transient { stage, .. } => Some(*stage),
            Self::Invalid { .. } => None,
        }
    }

    /// Class, stage and codes, without a word of the relay's: for logs, and to see which refusals are alike.
    pub fn summary(&self) -> String {
        let (class, stage, code, enhanced) = match self {
            Self::Rejected { stage, code, enhanced, .. } => ("rejected", stage, Some(*code), enhanced),
            Self::Transient { stage, code, enhanced, .. } => ("not sent", stage, *code, enhanced),
            Self::Invalid { .. } => return "the mail cannot be built".to_owned(),
        };
        let code = code.map(|code| format!(" with {code}")).unwrap_or_default();
        let enhanced = enhanced.map(|enhanced| format!(" {enhanced}")).unwrap_or_default();
        format!("{class} at {stage}{code}{enhanced}")
    }

    /// The reply's codes, such as `550 5.1.1`.
    pub fn codes(&self) -> Option<String> {
        let (code, enhanced) = match self {
            Self::Rejected { code, enhanced, .. } => (*code, enhanced),
            Self::Transient { code, enhanced, .. } => ((*code)?, enhanced),
            Self::Invalid { .. } => return None,
        };
        Some(enhanced.map_or_else(|| code.to_string(), |enhanced| format!("{code} {enhanced}")))
    }

    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    /// A failure without a reply, before the whole message was out.
    pub(super) fn transient(stage: MailStage, reason: impl fmt::Display) -> Self {
        let blame = match stage {
            MailStage::Wait => Blame::Busy,
            MailStage::Connect | MailStage::Tls | MailStage::Hello | MailStage::Authenticate => Blame::Relay,
            _ => Blame::Recipient,
        };
        let reason = excerpt(&reason.to_string());
        Self::Transient { stage, code: None, enhanced: None, reason, after_data: false, blame, retry_in: None }
    }

    /// As [`Self::transient`], with the time to the next try.
    pub(super) fn not_now(stage: MailStage, why: &str, retry_in: Duration) -> Self {
        let mut error = Self::transient(stage, format!("{why}; again in {} ms", retry_in.as_millis()));
        if let Self::Transient { retry_in: hint, .. } = &mut error {
            *hint = Some(retry_in);
        }
        error
    }

    /// When a connection may be free, or the relay is looked for again, if that is known.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_in, .. } => *retry_in,
            Self::Rejected { .. } | Self::Invalid { .. } => None,
        }
    }

    pub(super) fn unanswered(stage: MailStage, why: &NoReply) -> Self {
        Self::transient(stage, why)
    }

    /// A reply that refuses, or one that does not belong here. `recipient` is kept out of its text.
    pub(super) fn refused(stage: MailStage, reply: &Reply, recipient: Option<&Address>) -> Self {
        let text = reply.text();
        let enhanced = EnhancedCode::find(&text);
        let message = redacted(&text, recipient);
        let code = reply.code;
        let (blame, whom) = match judge(stage, reply, enhanced) {
            verdict @ (Verdict::MailboxDead | Verdict::MailRefused) => {
                let mailbox_dead = verdict == Verdict::MailboxDead;
                return Self::Rejected { stage, code, enhanced, message, mailbox_dead };
            }
            Verdict::TryLater => (Blame::Recipient, "the relay asks for a later try"),
            Verdict::SenderRefused => (Blame::Sender, "the relay refuses us"),
            Verdict::RelayRefuses => (Blame::Relay, "the relay refuses us"),
        };
        let reason = format!("{whom} with {code}: {message}");
        Self::Transient { stage, code: Some(code), enhanced, reason, after_data: false, blame, retry_in: None }
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
    foreign_text::cleaned(&one_line(text, MAX_REPLY_CHARS), RECIPIENT, MAX_REPLY_CHARS)
}

/// The relay's words without the recipient: relays repeat the address, or the part before its @ alone.
pub(super) fn redacted(text: &str, recipient: Option<&Address>) -> String {
    let text = excerpt(text);
    let Some(local) = recipient.map(Address::user).filter(|local| local.len() >= MIN_LOCAL_BYTES) else { return text };
    let mut clean = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "<>()[]\"',;:".contains(c)) {
        let bare = word.trim_end_matches(|c: char| c.is_whitespace() || "<>()[]\"',;:.".contains(c));
        if bare.eq_ignore_ascii_case(local) {
            clean.push_str(RECIPIENT);
            clean.push_str(&word[bare.len()..]);
        } else {
            clean.push_str(word);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_kept_out_of_the_relays_words() {
        let anna: Address = "Anna.Lang@example.org".parse().expect("an address");
        for (text, clean) in [
            ("5.1.1 <anna.lang@example.org>: no such user", "5.1.1 <recipient>: no such user"),
            ("user anna.lang unknown (anna%2elang)", "user <recipient> unknown (anna%2elang)"),
            ("no 'ANNA.LANG', sorry", "no '<recipient>', sorry"),
            ("\u{1b}[31mgone\r\nBcc: x", "[31mgone Bcc: x"),
        ] {
            assert_eq!(redacted(text, Some(&anna)), clean);
        }
        let short: Address = "no@example.org".parse().expect("an address");
        assert_eq!(redacted("no no@example.org", Some(&short)), "no <recipient>");
    }
}
