//! Mail addresses in the form that SMTP uses.
//!
//! Invariant: an accepted address has an ASCII domain and no character that could end a command or
//! a header. The rules are deliberately narrower than RFC 5321: quoted local parts and address
//! literals (`a@[10.0.0.1]`) are refused, since real recipient lists do not contain them and
//! attackers use them.

use lettre::Address;
use url::Host;

use super::error::InvalidAddress;

/// Maximum octets of an address and of its local part (RFC 5321 §4.5.3.1, erratum 1690).
const MAX_ADDRESS_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;

/// The address in the form that is stored and compared: trimmed, with the domain in lower case and
/// in A-labels (`xn--…`). The local part is kept as written, because only its own mail server may
/// interpret it.
pub fn normalize_address(raw: &str) -> Result<String, InvalidAddress> {
    let (local, domain) = raw.trim().rsplit_once('@').ok_or(InvalidAddress("it has no @"))?;
    check_local(local)?;
    let domain = ascii_domain(domain)?;
    let address = format!("{local}@{domain}");
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(InvalidAddress("it is longer than 254 bytes"));
    }
    Ok(address)
}

/// Like [`normalize_address`], but returns the type used in SMTP commands.
pub(super) fn parse(raw: &str) -> Result<Address, InvalidAddress> {
    normalize_address(raw)?.parse().map_err(|_| InvalidAddress("it contains characters not allowed in an address"))
}

fn check_local(local: &str) -> Result<(), InvalidAddress> {
    if local.is_empty() || local.len() > MAX_LOCAL_BYTES {
        return Err(InvalidAddress("the part before the @ must have 1 to 64 bytes"));
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err(InvalidAddress("a dot may not begin or end the part before the @, nor follow another dot"));
    }
    if local.chars().any(|c| c.is_control() || c.is_whitespace() || "\"(),:;<>@[\\]".contains(c)) {
        return Err(InvalidAddress("the part before the @ contains white space or a character that must be quoted"));
    }
    Ok(())
}

fn ascii_domain(domain: &str) -> Result<String, InvalidAddress> {
    const MALFORMED: InvalidAddress = InvalidAddress("the part after the @ is not a domain");
    // The host parser of URLs decodes percent signs and drops tabs; addresses must not contain
    // either.
    if domain.contains('%') || domain.chars().any(char::is_control) {
        return Err(MALFORMED);
    }
    let Ok(Host::Domain(ascii)) = Host::parse(domain) else {
        return Err(MALFORMED);
    };
    let well_formed = ascii.len() <= 253 && ascii.split('.').all(is_label);
    if well_formed { Ok(ascii) } else { Err(MALFORMED) }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_and_international_addresses_are_accepted() {
        for (raw, normal) in [
            ("anna@example.com", "anna@example.com"),
            (" O'Brien+news@Mail.Example.COM ", "O'Brien+news@mail.example.com"),
            ("jörg@müller.de", "jörg@xn--mller-kva.de"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(normalize_address(raw).as_deref(), Ok(normal));
            assert!(parse(raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}.com", ["b".repeat(60).as_str(); 5].join("."));
        for raw in [
            "",
            "anna",
            "@example.com",
            "anna@",
            "an na@example.com",
            "anna@exa mple.com",
            "anna@example..com",
            ".anna@example.com",
            "anna.@example.com",
            "an..na@example.com",
            "anna@-example.com",
            "anna@[10.0.0.1]",
            "anna@10.0.0.1",
            "\"anna\"@example.com",
            "anna@example.com>\r\nRCPT TO:<eve@example.com",
            "anna\r\nBcc: eve@example.com",
            "anna\0@example.com",
            "anna@exam%70le.com",
            "anna@exam\tple.com",
            "anna@example.com\r\nDATA",
            "a@b@c.com",
            "<anna@example.com>",
            "anna@example.com,eve@example.com",
            &long_local,
            &long,
        ] {
            assert!(normalize_address(raw).is_err(), "{raw:?}");
        }
    }
}
