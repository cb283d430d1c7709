//! Text from another system, cleaned before it is stored: addresses, control characters and the
//! secrets of URLs are removed.
//!
//! Invariant: the result of [`cleaned`] has at most the given number of characters, no control
//! character, and nothing that looks like a mail address or like the user, password or query of a
//! URL. The cost is linear in the input. Log lines never contain such text, only codes; see
//! [`crate::db::sql_state`].

/// Replaces the removed query of a URL.
const CUT: char = '…';

/// One line of at most `max_chars` characters, with `marker` in place of every mail address.
pub fn cleaned(text: &str, marker: &str, max_chars: usize) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect();
    without_addresses(&without_url_secrets(&plain), marker).chars().take(max_chars).collect()
}

/// Replaces everything that looks like a mail address, including angle brackets, with `marker`.
pub fn without_addresses(text: &str, marker: &str) -> String {
    let text = text.replace("%40", "@");
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('@') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let local = before.len() - before.trim_end_matches(is_local).len();
        let domain = after.len() - after.trim_start_matches(is_domain).len();
        if domain == 0 {
            clean.push_str(&rest[..=at]);
            rest = after;
            continue;
        }
        let before = &before[..before.len() - local];
        clean.push_str(before.strip_suffix('<').unwrap_or(before));
        clean.push_str(marker);
        let after = &after[domain..];
        rest = after.strip_prefix('>').unwrap_or(after);
    }
    clean.push_str(rest);
    clean
}

/// Removes the credentials, query and fragment of each `scheme://…`.
fn without_url_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let start = found + "://".len();
        clean.push_str(&rest[..start]);
        let url_length = rest[start..].find(|c: char| c.is_whitespace() || "\"'<>()".contains(c));
        let (url, after) = rest[start..].split_at(url_length.unwrap_or(rest.len() - start));
        let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
        let host = url[..authority].rfind('@').map_or(0, |at| at + 1);
        let end = url.find(['?', '#']).unwrap_or(url.len());
        clean.push_str(&url[host..end]);
        if end < url.len() {
            clean.push(CUT);
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

fn is_local(c: char) -> bool {
    c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.\"".contains(c)
}

fn is_domain(c: char) -> bool {
    c.is_alphanumeric() || "-.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_control_characters_and_url_secrets_are_removed() {
        for (text, clean) in [
            ("550 <Anna.B@Example.org>: gone", "550 <recipient>: gone"),
            ("no anna@example.org here, nor b@c.de.", "no <recipient> here, nor <recipient>"),
            ("anna%40example.org", "<recipient>"),
            ("bounce+anna=example.org@relay.test", "<recipient>"),
            ("J\u{f6}rg@m\u{fc}ller.de is unknown", "<recipient> is unknown"),
            ("Key (email)=(anna@example.org) already exists", "Key (email)=(<recipient>) already exists"),
            ("at @ once", "at @ once"),
            ("a\r\nb\u{1b}[2J\u{2028}c", "a  b [2J c"),
            ("error for url (https://u:p@host/x?token=secret#f)", "error for url (https://host/x…)"),
            ("smtp://me:hunter2@relay.test:25 away", "smtp://relay.test:25 away"),
            ("postgres://u:p%40ss@db/x", "postgres://db/x"),
            ("http://host/plain", "http://host/plain"),
        ] {
            assert_eq!(cleaned(text, "<recipient>", 200), clean, "{text}");
        }
        assert_eq!(cleaned(&"ä".repeat(20), "x", 10).chars().count(), 10);
    }

    #[test]
    fn cleaning_takes_linear_time() {
        let text = "@".repeat(200_000) + &"a".repeat(200_000) + &"://".repeat(100_000);
        assert!(cleaned(&text, "x", 50).chars().count() <= 50);
    }
}
