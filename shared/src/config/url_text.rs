//! Why a URL with a password is invalid, without showing the password.
//!
//! Invariant: no text from here contains any part of the URL.

/// Percent-encoding of characters inside a user name or password.
const ENCODED: [(char, &str); 3] = [('/', "%2F"), ('?', "%3F"), ('#', "%23")];

/// The part between the scheme and the path, and the rest.
pub(super) fn authority(text: &str) -> (&str, &str) {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// Advice for a URL whose user name or password contains a character that ends the authority: the
/// rest, including the `@`, then looks like a path or a query.
pub(super) fn unencoded(text: &str) -> Option<String> {
    let (before, after) = authority(text);
    if before.contains('@') || !after.contains('@') {
        return None;
    }
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let looks_like_a_host = before.rsplit_once(':').is_none_or(|(_, port)| is_port(port));
    let (character, encoded) = ENCODED.into_iter().find(|(character, _)| after.starts_with(*character))?;
    // A query may contain an `@` of its own: postgres://host:5432/db?application_name=a@b
    let path_has_it = after.split('?').next().is_some_and(|path| path.contains('@'));
    if looks_like_a_host && !(path_has_it && before.contains(':')) {
        return None;
    }
    Some(format!("the user name or password contains a `{character}`; write it as {encoded} (percent-encoded)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unencoded_character_is_named_and_the_password_is_not() {
        for (text, encoded) in [
            ("postgres://u:se/cret@host:5432/db", "%2F"),
            ("postgres://u:se?cret@host/db", "%3F"),
            ("postgres://u:se#cret@host/db", "%23"),
            ("postgres://u:12/34@host/db", "%2F"),
            ("redis://:se/cret@host", "%2F"),
            ("smtp://user:/cret@host", "%2F"),
        ] {
            let advice = unencoded(text).unwrap_or_else(|| panic!("{text}"));
            assert!(advice.contains(encoded) && !advice.contains("cret"), "{text}: {advice}");
        }
        for text in [
            "postgres://u:secret@host/db",
            "postgres://u:se%2Fcret@host/db",
            "postgres:///db?user=a@b",
            "postgres://host:5432/db?application_name=a@b",
            "postgres://[::1]:5432/db",
            "postgres://u:p@/db?host=/run",
            "nonsense",
        ] {
            assert_eq!(unencoded(text), None, "{text}");
        }
    }
}
