//! Builds the octets of an [`OutgoingMail`].
//!
//! Invariant: the same `OutgoingMail` produces the same octets, so that a repeat after a crash is
//! recognisable as the same mail; and no field of it can add a header or a recipient.
//! [`super::text`] cleans free text before lettre receives it, because lettre panics on a line
//! break in a display name.

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

/// Maximum characters of a display name; well below the 998 octets of a header line, since text
/// without spaces cannot be folded.
const MAX_NAME_CHARS: usize = 120;
const MAX_MESSAGE_ID_BYTES: usize = 200;
const MAX_URL_BYTES: usize = 900;

/// An address and its display name. The address is validated when the mail is built.
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
    /// `left@right`, without angle brackets. It must be the same on every repeat, because
    /// duplicates are recognised by it.
    pub message_id: String,
    pub from: Mailbox,
    pub to: Mailbox,
    /// Reduced to one line of at most 240 characters.
    pub subject: String,
    pub text: String,
    /// If set, the mail is `multipart/alternative`.
    pub html: Option<String>,
    /// Sets `List-Unsubscribe`, and for an http(s) URL also the one-click header of RFC 8058.
    pub list_unsubscribe: Option<Url>,
    /// Sets `Date`: the date of the first attempt that may have been seen, so that repeats are
    /// identical.
    pub date: DateTime<Utc>,
    /// Sets `X-Rota-Campaign`.
    pub campaign: Option<Uuid>,
}

/// A mail ready to be sent: envelope and octets.
#[derive(Debug)]
pub(super) struct BuiltMail {
    pub message_id: String,
    pub from: Address,
    pub to: Address,
    pub octets: Vec<u8>,
    /// Whether an address has non-ASCII characters, so that the relay must support SMTPUTF8 (RFC
    /// 6531).
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

/// A header whose value the caller has validated: printable ASCII, short enough for one line.
/// lettre would fold or encode a long URL or Message-ID, which some receivers do not undo.
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
    if usable { Ok(text) } else { Err(MailError::invalid("the unsubscribe link is not valid in a header")) }
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
