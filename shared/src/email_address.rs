//! An email address that mail can be sent to, parsed once at the edge and carried as a type from
//! there on.
//!
//! Invariant: a value of [`EmailAddress`] is a dot-atom local part (RFC 5321 §4.1.2) of at most 64
//! bytes, one `@`, and a lower-case ASCII domain, at most 254 bytes in all. It contains no space,
//! quote, bracket or control character, so it cannot break out of a mail header or an SMTP command.
//! Leads are parsed in `api::leads_import`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// RFC 5321 §4.5.3.1.1, in bytes.
const MAX_LOCAL: usize = 64;
/// RFC 5321 §4.5.3.1.3: a path of 256 bytes without its two angle brackets.
const MAX_TOTAL: usize = 254;
/// RFC 1035 §2.3.4, in bytes.
const MAX_LABEL: usize = 63;

/// A valid address. The local part keeps its spelling, since only its own server may interpret
/// case; the domain is in lower case and in A-labels (`xn--…`). `==` compares the spelling; to
/// compare mailboxes, use [`EmailAddress::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress {
    text: String,
    at: usize,
}

/// Why a text is not an address that Rota sends to. The messages are written for the author of the
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailAddressError {
    #[error("the address is empty")]
    Empty,
    #[error("the address contains a control character")]
    ControlCharacter,
    #[error("the address has no @")]
    NoAt,
    #[error("there is nothing before the @")]
    NoLocalPart,
    #[error("there is no domain after the @")]
    NoDomain,
    #[error("the part before the @ is longer than {MAX_LOCAL} bytes")]
    LocalPartTooLong,
    #[error("the address is longer than {MAX_TOTAL} bytes")]
    TooLong,
    #[error("addresses with a quoted part before the @ are not supported")]
    QuotedLocalPart,
    #[error("the part before the @ contains {0:?}, which is not allowed there")]
    LocalPartCharacter(char),
    #[error("a dot may not begin or end the part before the @, nor follow another dot")]
    MisplacedDot,
    #[error("an IP address may not stand in place of the domain")]
    IpLiteral,
    #[error("the domain has no dot, so it is not a public domain")]
    OneLabelDomain,
    #[error("the domain is not a valid host name")]
    InvalidDomain,
}

impl EmailAddress {
    /// Parses an address; surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Self, EmailAddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EmailAddressError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(EmailAddressError::ControlCharacter);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(EmailAddressError::NoAt)?;
        check_local_part(local)?;
        let domain = ascii_domain(domain)?;
        if local.len() + 1 + domain.len() > MAX_TOTAL {
            return Err(EmailAddressError::TooLong);
        }
        Ok(Self { text: format!("{local}@{domain}"), at: local.len() })
    }

    /// The whole address, as it appears in a message.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the `@`, in its original spelling.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after the `@`: lower case, A-labels.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Equal for all spellings of one mailbox. RFC 5321 lets a server distinguish `Ann@` from
    /// `ann@`, but no server in use does; treating them as two people would send the same mail
    /// twice to one person.
    pub fn key(&self) -> String {
        self.text.to_ascii_lowercase()
    }
}

fn check_local_part(local: &str) -> Result<(), EmailAddressError> {
    if local.is_empty() {
        return Err(EmailAddressError::NoLocalPart);
    }
    if local.starts_with('"') {
        return Err(EmailAddressError::QuotedLocalPart);
    }
    if let Some(refused) = local.chars().find(|&c| c != '.' && !is_atom_character(c)) {
        return Err(EmailAddressError::LocalPartCharacter(refused));
    }
    if local.len() > MAX_LOCAL {
        return Err(EmailAddressError::LocalPartTooLong);
    }
    if local.split('.').any(str::is_empty) {
        return Err(EmailAddressError::MisplacedDot);
    }
    Ok(())
}

/// `atext` of RFC 5322 §3.2.3. Non-ASCII local parts (RFC 6531) need SMTPUTF8 on every hop, which
/// Rota cannot guarantee.
fn is_atom_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

fn ascii_domain(domain: &str) -> Result<String, EmailAddressError> {
    if domain.is_empty() {
        return Err(EmailAddressError::NoDomain);
    }
    if domain.starts_with('[') {
        return Err(EmailAddressError::IpLiteral);
    }
    // The cost of the mapping grows with the input; no longer input can map to a domain that fits.
    if domain.len() > MAX_TOTAL * 4 {
        return Err(EmailAddressError::TooLong);
    }
    let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::STD3)
        .map_err(|_| EmailAddressError::InvalidDomain)?
        .into_owned();
    check_labels(&ascii)?;
    Ok(ascii)
}

fn check_labels(domain: &str) -> Result<(), EmailAddressError> {
    let labels: Vec<&str> = domain.split('.').collect();
    if !labels.iter().all(|label| is_host_label(label)) {
        return Err(EmailAddressError::InvalidDomain);
    }
    let last = labels.last().copied().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EmailAddressError::IpLiteral);
    }
    if labels.len() < 2 && domain != "localhost" {
        return Err(EmailAddressError::OneLabelDomain);
    }
    Ok(())
}

fn is_host_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for EmailAddress {
    type Err = EmailAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = EmailAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.text
    }
}

impl AsRef<str> for EmailAddress {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, EmailAddressError> {
        EmailAddress::parse(text).map(String::from)
    }

    #[test]
    fn valid_addresses_are_accepted_and_normalised() {
        for (given, want) in [
            ("ann@example.com", "ann@example.com"),
            ("  Ann.O'Hara+news@Mail.EXAMPLE.com\t", "Ann.O'Hara+news@mail.example.com"),
            ("root@localhost", "root@localhost"),
            ("jörg@example.com", ""),
            ("info@müller.example", "info@xn--mller-kva.example"),
            ("info@MÜLLER。example", "info@xn--mller-kva.example"),
            ("a@r3---sn.example.org", "a@r3---sn.example.org"),
            ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~@example.org"),
        ] {
            if want.is_empty() {
                assert_eq!(parse(given), Err(EmailAddressError::LocalPartCharacter('ö')));
            } else {
                assert_eq!(parse(given).as_deref(), Ok(want));
            }
        }
    }

    #[test]
    fn invalid_addresses_are_refused_with_the_reason() {
        use EmailAddressError as E;
        for (given, want) in [
            ("", E::Empty),
            (" \u{a0} ", E::Empty),
            ("ann", E::NoAt),
            ("@example.com", E::NoLocalPart),
            ("ann@", E::NoDomain),
            ("ann@@example.com", E::LocalPartCharacter('@')),
            ("ann b@example.com", E::LocalPartCharacter(' ')),
            ("Ann <ann@example.com>", E::LocalPartCharacter(' ')),
            ("<ann@example.com>", E::LocalPartCharacter('<')),
            ("\"ann b\"@example.com", E::QuotedLocalPart),
            (".ann@example.com", E::MisplacedDot),
            ("ann..b@example.com", E::MisplacedDot),
            ("ann.@example.com", E::MisplacedDot),
            ("ann@[127.0.0.1]", E::IpLiteral),
            ("ann@127.0.0.1", E::IpLiteral),
            ("ann@example", E::OneLabelDomain),
            ("ann@example..com", E::InvalidDomain),
            ("ann@example.com.", E::InvalidDomain),
            ("ann@-example.com", E::InvalidDomain),
            ("ann@exa_mple.com", E::InvalidDomain),
            ("ann@exa%6dple.com", E::InvalidDomain),
            ("ann@example.com>", E::InvalidDomain),
            ("ann@example.com\r\nBcc: x@example.org", E::ControlCharacter),
            ("ann@exam\0ple.com", E::ControlCharacter),
        ] {
            assert_eq!(parse(given), Err(want), "{given:?}");
        }
    }

    #[test]
    fn length_limits_are_exact() {
        let local = "a".repeat(64);
        assert!(parse(&format!("{local}@example.com")).is_ok());
        assert_eq!(parse(&format!("a{local}@example.com")), Err(EmailAddressError::LocalPartTooLong));

        let label = "b".repeat(63);
        let domain = format!("{label}.{label}.{}.com", "c".repeat(57));
        assert_eq!(parse(&format!("{local}@{domain}")).map(|address| address.len()), Ok(254));
        assert_eq!(parse(&format!("{local}@c{domain}")), Err(EmailAddressError::InvalidDomain));
        let longer = format!("{label}.{label}.{}.com", "c".repeat(58));
        assert_eq!(parse(&format!("{local}@{longer}")), Err(EmailAddressError::TooLong));
    }

    #[test]
    fn spellings_of_one_mailbox_have_one_key() {
        let one = EmailAddress::parse("Ann@Example.com").unwrap();
        let two = EmailAddress::parse("ann@example.COM").unwrap();
        assert_ne!(one, two);
        assert_eq!(one.key(), two.key());
        assert_eq!((one.local_part(), one.domain()), ("Ann", "example.com"));
    }

    #[test]
    fn deserialization_validates_and_normalises() {
        let address: EmailAddress = serde_json::from_str("\" ann@EXAMPLE.com \"").unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"ann@example.com\"");
        let refused = serde_json::from_str::<EmailAddress>("\"ann@example\"").unwrap_err();
        assert!(refused.to_string().contains("no dot"), "{refused}");
    }
}
