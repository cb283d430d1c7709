//! From an [`OutgoingMail`] to the octets that go over the wire.
//!
//! Invariant: the same `OutgoingMail` gives the same octets, so that a repeat after a crash is recognisably the same
//! mail; and no field of it can add a header or a recipient. Free text is cleaned by [`super::text`] before lettre
//! sees it, because lettre panics on a line break in a display name.

use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{
        Mailbox as LettreMailbox, MultiPart, MultiPartKind, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use super::{address, error::MailError, text};

/// Characters of a display name that are kept; far below the 998 octets of a header line, which a text without blanks could not be
/// folded to.
const MAX_NAME_CHARS: usize = 120;
const MAX_MESSAGE_ID_BYTES: usize = 200;
const MAX_URL_BYTES: usize = 900;

/// An address and the name shown for it. The address is checked when the mail is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    pub address: String,
    pub name: Option<String>,
}

impl Mailbox {
    /// An address without a display name.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), name: None }
    }

    /// An address with a display name.
    pub fn named(address: impl Into<String>, name: impl Into<String>) -> Self {
        Self { address: address.into(), name: Some(name.into()) }
    }
}

/// One mail to one recipient, before it is built.
#[derive(Debug, Clone)]
pub struct OutgoingMail {
    /// `left@right`, without angle brackets. Must be the same on every repeat: it is how a double is recognised.
    pub message_id: String,
    pub from: Mailbox,
    pub to: Mailbox,
    /// Folded to one line of at most 240 characters.
    pub subject: String,
    pub text: String,
    /// With it the mail is `multipart/alternative`.
    pub html: Option<String>,
    /// Becomes `List-Unsubscribe`, and for an http(s) URL the one-click header of RFC 8058 beside it.
    pub list_unsubscribe: Option<Url>,
    /// Becomes `Date`: of the first attempt that may have been seen, to keep repeats identical.
    pub date: DateTime<Utc>,
    /// Becomes `X-Rota-Campaign`.
    pub campaign: Option<Uuid>,
}

/// A mail ready to be sent: envelope and octets.
#[derive(Debug)]
pub(super) struct BuiltMail {
    pub message_id: String,
    pub from: Address,
    pub to: Address,
    pub octets: Vec<u8>,
    /// An address has characters beyond ASCII, so that the relay must know SMTPUTF8 (RFC 6531).
    pub needs_utf8: bool,
}

impl OutgoingMail {
    pub(super) fn build(&self) -> Result<BuiltMail, MailError> {
        let message_id = checked_message_id(&self.message_id)?;
        let from = lettre_mailbox(&self.from, "sender")?;
        let to = lettre_mailbox(&self.to, "recipient")?;
        let mut builder = Message::builder()
            .from(from.clone())
            .to(to.clone())
            .subject(text::subject(&self.subject))
            .date(checked_date(self.date)?)
            .raw_header(header("Message-ID", format!("<{message_id}>")));
        for extra in self.extra_headers()? {
            builder = builder.raw_header(extra);
        }
        let built = match &self.html {
            Some(html) => builder.multipart(alternative(message_id, &self.text, html)),
            None => builder.singlepart(SinglePart::plain(text::body(&self.text))),
        };
        let message = built.map_err(|error| MailError::invalid(error.to_string()))?;
        Ok(BuiltMail {
            message_id: message_id.to_owned(),
            needs_utf8: !is_ascii(&from.email) || !is_ascii(&to.email),
            from: from.email,
            to: to.email,
            octets: message.formatted(),
        })
    }

    fn extra_headers(&self) -> Result<Vec<HeaderValue>, MailError> {
        let mut extra = Vec::new();
        if let Some(url) = &self.list_unsubscribe {
            extra.push(header("List-Unsubscribe", format!("<{}>", checked_url(url)?)));
            if matches!(url.scheme(), "https" | "http") {
                extra.push(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
            }
        }
        if let Some(campaign) = self.campaign {
            extra.push(header("X-Rota-Campaign", campaign.to_string()));
        }
        Ok(extra)
    }
}

/// A header whose value the caller has checked: printable ASCII, short enough for one line. lettre would fold or
/// encode a long URL or Message-ID, which some receivers do not undo.
fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

fn is_ascii(address: &Address) -> bool {
    AsRef::<str>::as_ref(address).is_ascii()
}

fn lettre_mailbox(mailbox: &Mailbox, role: &str) -> Result<LettreMailbox, MailError> {
    let address = address::parse(&mailbox.address)
        .map_err(|error| MailError::invalid(format!("the {role}'s address is {error}")))?;
    let name = mailbox.name.as_deref().map(|name| text::one_line(name, MAX_NAME_CHARS));
    Ok(LettreMailbox::new(name.filter(|name| !name.is_empty()), address))
}

fn checked_message_id(id: &str) -> Result<&str, MailError> {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"<>@\"(),:;\\".contains(&b));
    match id.split_once('@') {
        Some((left, right)) if plain(left) && plain(right) && id.len() <= MAX_MESSAGE_ID_BYTES => Ok(id),
        _ => Err(MailError::invalid("the Message-ID is not of the form left@right")),
    }
}

fn checked_date(date: DateTime<Utc>) -> Result<std::time::SystemTime, MailError> {
    // lettre panics on a date before 1970 or after 9999.
    const YEAR_10000: i64 = 253_402_300_800;
    if (0..YEAR_10000).contains(&date.timestamp()) {
        Ok(date.into())
    } else {
        Err(MailError::invalid("the date is before 1970 or after 9999"))
    }
}

fn checked_url(url: &Url) -> Result<&str, MailError> {
    let text = url.as_str();
    let usable = matches!(url.scheme(), "https" | "http" | "mailto")
        && text.len() <= MAX_URL_BYTES
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
    if usable { Ok(text) } else { Err(MailError::invalid("the unsubscribe link cannot stand in a header")) }
}

fn alternative(message_id: &str, text: &str, html: &str) -> MultiPart {
    let digest = Sha256::digest(message_id.as_bytes());
    let boundary = format!("=_{}", data_encoding::HEXLOWER.encode(&digest[..20]));
    MultiPart::builder()
        .kind(MultiPartKind::Alternative)
        .boundary(boundary)
        .singlepart(SinglePart::plain(text::body(text)))
        .singlepart(SinglePart::html(text::body(html)))
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
