//! Interprets replies: can a repeat of the mail succeed, and does the mailbox exist?
//!
//! Invariant: a mailbox counts as dead only after a reply that concerns the mailbox. Replies that
//! concern the sender (policy, relaying, blocks, authentication, the sequence of commands), the
//! mail (its size or form) or a full mailbox leave the address usable. If a reply is ambiguous, the
//! reading that does not suppress the address applies. The mails of a campaign are alike, so a
//! refusal of the mail is one of the sender: it may affect all recipients.

use std::fmt;

use super::{reply::Reply, stage::MailStage};

/// The consequence of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No mail to this address can succeed: the mailbox does not exist.
    MailboxDead,
    /// No repeat of this mail to this mailbox can succeed; another mail may be accepted.
    MailRefused,
    /// A repeat may succeed: the recipient's side requests a later retry.
    TryLater,
    /// A repeat may succeed once something on the sender's side has changed.
    SenderRefused,
    /// The relay accepts nothing from this client.
    RelayRefuses,
}

/// An enhanced status code (RFC 3463), such as 5.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    pub class: u16,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedCode {
    /// The first code in a text: `5.1.1 …`, `#5.1.1`, `(5.1.1)`; an IP address does not count.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(Self::parse)
    }

    fn parse(token: &str) -> Option<Self> {
        let mut numbers =
            token.trim_end_matches('.').split('.').map(|part| (part.len() <= 3).then(|| part.parse().ok())?);
        let code = Self { class: numbers.next()??, subject: numbers.next()??, detail: numbers.next()?? };
        (numbers.next().is_none() && matches!(code.class, 2 | 4 | 5)).then_some(code)
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The verdict on a reply that refuses a command at this stage.
pub(super) fn classify(stage: MailStage, reply: &Reply, enhanced: Option<EnhancedCode>) -> Verdict {
    use MailStage::{
        Authenticate, Body, Connect, Data, File, Hello, Recipient, Reply as FinalReply, Sender, Tls, Wait,
    };
    match stage {
        Wait | Connect | Tls | Hello | Authenticate => Verdict::RelayRefuses,
        Sender if reply.class() == 5 => Verdict::SenderRefused,
        Sender | File => Verdict::TryLater,
        Recipient | Data | Body | FinalReply => match reply.class() {
            // A refusal that contradicts itself is not final.
            5 if reply.is_consistent => permanent(stage, reply, enhanced),
            _ => Verdict::TryLater,
        },
    }
}

fn permanent(stage: MailStage, reply: &Reply, enhanced: Option<EnhancedCode>) -> Verdict {
    match (reply.code, enhanced) {
        // These concern commands and credentials, whatever text follows (RFC 5321 §4.2.2, RFC 4954
        // §6).
        (500 | 502..=504 | 521 | 530..=538 | 555, _) => Verdict::SenderRefused,
        (_, Some(code)) if code.class == 5 && code.subject > 0 => by_enhanced_code(code),
        // A permanent reply code with a transient enhanced one.
        (_, Some(EnhancedCode { class: 4, .. })) => Verdict::TryLater,
        (code, _) => by_code(stage, code, &reply.text()),
    }
}

/// RFC 3463, RFC 7504 (5.1.10), RFC 7372 (5.7.x).
fn by_enhanced_code(code: EnhancedCode) -> Verdict {
    match (code.subject, code.detail) {
        (1, 1 | 2 | 3 | 6 | 10) | (2, 1) => Verdict::MailboxDead,
        // The sender's address; a mail too large, or of a form that cannot be delivered.
        (1, 7 | 8) | (2, 3) | (3, 4) | (5 | 7, _) | (6, 0..=6) => Verdict::SenderRefused,
        // Other statuses of the address, a full mailbox, a mailbox without SMTPUTF8.
        (1 | 2 | 6, _) => Verdict::MailRefused,
        // Systems and routes on the way, which can be repaired.
        _ => Verdict::TryLater,
    }
}

fn by_code(stage: MailStage, code: u16, text: &str) -> Verdict {
    let text = text.to_lowercase();
    match (stage, code) {
        (MailStage::Recipient, 501) => Verdict::MailRefused,
        // The space of a mailbox (RFC 5321 §4.2.2); otherwise the size of the mail (RFC 1870 §6).
        (_, 552) if contains_any(&text, &OF_THE_SPACE) => Verdict::MailRefused,
        (MailStage::Recipient, 550 | 551 | 553) => by_words(&text),
        _ => Verdict::SenderRefused,
    }
}

/// Words for a full mailbox.
const OF_THE_SPACE: [&str; 6] = ["full", "quota", "storage", "over limit", "mailbox size", "mailbox exceeds"];

fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Many relays refuse for any reason with a bare 550 and give the reason in words.
fn by_words(text: &str) -> Verdict {
    const OF_US: [&str; 35] = [
        "relay",
        "denied",
        "block",
        "black",
        "spam",
        "dmarc",
        "spf",
        "dkim",
        "policy",
        "polic",
        "reputation",
        "prohibited",
        "permitted",
        "authenticat",
        "authoriz",
        "authoris",
        "rbl",
        "dnsbl",
        "listed",
        "reverse",
        "ptr ",
        "helo",
        "ehlo",
        "too many",
        "rate limit",
        "limit exceeded",
        "sequence",
        "sender",
        "virus",
        "content",
        "your ip",
        "too large",
        "too big",
        "size",
        "exceeds",
    ];
    const OF_THE_MAILBOX: [&str; 8] = [
        "user unknown",
        "unknown user",
        "no such user",
        "does not exist",
        "doesn't exist",
        "no such recipient",
        "no such mailbox",
        "no mailbox",
    ];
    if contains_any(text, &OF_THE_MAILBOX) {
        Verdict::MailboxDead
    } else if contains_any(text, &OF_THE_SPACE) {
        Verdict::MailRefused
    } else if contains_any(text, &OF_US) {
        Verdict::SenderRefused
    } else {
        Verdict::MailboxDead
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
