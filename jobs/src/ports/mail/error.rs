//! Mail errors, in the three classes that a job has to distinguish.
//!
//! Invariant: no text created here contains a password or the recipient's address, and none
//! contains more than [`MAX_REPLY_CHARS`] of foreign text; [`MailError::summary`] contains no
//! foreign text and is used in logs. [`super::verdict`] assigns replies to classes.

use std::{fmt, time::Duration};

use lettre::Address;
use rand::Rng as _;
use shared::foreign_text;

use super::{
    reply::{NoReply, Reply},
    stage::MailStage,
    text::one_line,
    verdict::{EnhancedCode, Verdict, classify},
};

/// Maximum characters of foreign text (a relay's reply) in an error.
pub const MAX_REPLY_CHARS: usize = 300;
/// Replaces an address.
const RECIPIENT: &str = "<recipient>";
/// A shorter local part may be an ordinary word.
const MIN_LOCAL_BYTES: usize = 3;

/// The side responsible for a failure that a retry may resolve. Only [`Blame::Recipient`] and
/// [`Blame::Sender`] count against a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The relay accepts no mail at all: unreachable, no TLS, no greeting, credentials refused.
    Relay,
    /// The relay is reachable, but its connections are in use, or the recipient's domain does not
    /// respond at the moment.
    Busy,
    /// The relay refuses this sender (policy, relaying, blocks, the sequence of commands) or the
    /// mail (its size or form), or does not reply to the whole message.
    Sender,
    /// The recipient's side requests a later retry, or the dialogue was interrupted.
    Recipient,
}

/// Why a mail was not accepted, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Final for this recipient: the relay will give the same reply to a repeat.
    #[error("rejected by the relay at {stage} with {code}: {message}")]
    Rejected {
        stage: MailStage,
        /// The SMTP reply code, 500 to 599.
        code: u16,
        enhanced: Option<EnhancedCode>,
        message: String,
        /// Whether the reply reports that the mailbox does not exist; otherwise it concerns this
        /// mail only.
        mailbox_dead: bool,
    },
    /// A retry may succeed.
    #[error("not sent, may be retried, at {stage}: {reason}")]
    Transient {
        stage: MailStage,
        /// The SMTP reply code, if the relay sent one.
        code: Option<u16>,
        enhanced: Option<EnhancedCode>,
        reason: String,
        /// The whole message was sent and no reply to it was read. The relay may have accepted it,
        /// so a repeat (with the same Message-ID) may cause a duplicate. False whenever a duplicate
        /// is impossible.
        after_data: bool,
        blame: Blame,
        /// When a connection may be free, or the next check of the relay is due.
        retry_in: Option<Duration>,
    },
    /// Final: no message can be built (a malformed address, an invalid Message-ID). Nothing was
    /// sent.
    #[error("the mail cannot be built: {reason}")]
    Invalid { reason: String },
}

impl MailError {
    /// Whether the relay may have accepted the message although sending failed, so that a repeat
    /// must be identical.
    pub fn after_data(&self) -> bool {
        matches!(self, Self::Transient { after_data: true, .. })
    }

    /// Whether a repeat cannot succeed, so that the recipient must be given up.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Transient { .. })
    }

    /// The responsible side; `None` if the error is final.
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

    /// Class, stage and codes, without the relay's text: for logs, and to compare refusals.
    pub fn summary(&self) -> String {
        let (class, stage, code, enhanced) = match self {
            Self::Rejected { stage, code, enhanced, .. } => ("rejected", stage, Some(*code), enhanced),
            Self::Transient { stage, code, enhanced, after_data, .. } => {
                (if *after_data { "unanswered" } else { "not sent" }, stage, *code, enhanced)
            }
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

    /// A failure without a reply, before the whole message was sent.
    pub(super) fn transient(stage: MailStage, reason: impl fmt::Display) -> Self {
        let blame = match stage {
            MailStage::Wait => Blame::Busy,
            MailStage::Connect | MailStage::Tls | MailStage::Hello | MailStage::Authenticate => Blame::Relay,
            _ => Blame::Recipient,
        };
        let reason = excerpt(&reason.to_string());
        Self::Transient { stage, code: None, enhanced: None, reason, after_data: false, blame, retry_in: None }
    }

    /// Like [`Self::transient`], with the time until the next attempt.
    pub(super) fn not_now(stage: MailStage, why: &str, retry_in: Duration) -> Self {
        let mut error = Self::transient(stage, format!("{why}; again in {} ms", retry_in.as_millis()));
        if let Self::Transient { retry_in: hint, .. } = &mut error {
            *hint = Some(retry_in);
        }
        error
    }

    /// When a connection may be free, or the next check of the relay is due, if known.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_in, .. } => *retry_in,
            Self::Rejected { .. } | Self::Invalid { .. } => None,
        }
    }

    /// Delay until a connection may be free or the relay may be back, with jitter.
    pub fn soon(&self) -> Duration {
        let hint = self.retry_in().unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(200));
        hint.mul_f64(rand::rng().random_range(1.0..=2.0))
    }

    pub(super) fn unanswered(stage: MailStage, why: &NoReply) -> Self {
        Self::transient(stage, why)
    }

    /// A reply that refuses, or an unexpected one. `recipient` is removed from its text.
    pub(super) fn refused(stage: MailStage, reply: &Reply, recipient: Option<&Address>) -> Self {
        let text = reply.text();
        let enhanced = EnhancedCode::find(&text);
        let message = redacted(&text, recipient);
        let code = reply.code;
        let (blame, whom) = match classify(stage, reply, enhanced) {
            verdict @ (Verdict::MailboxDead | Verdict::MailRefused) => {
                let mailbox_dead = verdict == Verdict::MailboxDead;
                return Self::Rejected { stage, code, enhanced, message, mailbox_dead };
            }
            Verdict::TryLater => (Blame::Recipient, "the relay requests a later retry"),
            Verdict::SenderRefused => (Blame::Sender, "the relay refuses the sender or the mail"),
            Verdict::RelayRefuses => (Blame::Relay, "the relay refuses the session"),
        };
        let reason = format!("{whom} with {code}: {message}");
        Self::Transient { stage, code: Some(code), enhanced, reason, after_data: false, blame, retry_in: None }
    }
}

/// The text is not a usable mail address, for this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mail address: {0}")]
pub struct InvalidAddress(pub(super) &'static str);

/// An error in `SMTP_URL` or the related settings. It never contains the URL, which may contain a
/// password.
#[derive(Debug, thiserror::Error)]
pub enum MailConfigError {
    #[error("SMTP_URL must be file:DIRECTORY, smtp://HOST or smtps://HOST: {0}")]
    Malformed(String),
    #[error("SMTP_URL sets tls={0}: TLS is either required or none, it is never downgraded")]
    Tls(String),
    #[error("SMTP_URL: unknown setting `{0}`; known are tls and ca")]
    UnknownSetting(String),
    #[error("SMTP_URL: the CA file {path} cannot be used: {reason}")]
    CaFile { path: String, reason: String },
    #[error("mail settings: {0}")]
    Settings(&'static str),
}

/// Foreign text, on one line and truncated.
pub(super) fn excerpt(text: &str) -> String {
    foreign_text::cleaned(&one_line(text, MAX_REPLY_CHARS), RECIPIENT, MAX_REPLY_CHARS)
}

/// The relay's text without the recipient: relays repeat the address, or only its local part.
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
    fn the_recipient_is_removed_from_the_relays_text() {
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
