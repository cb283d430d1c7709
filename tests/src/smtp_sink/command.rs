//! Parses the arguments of MAIL and RCPT.
//!
//! Invariant: anything but an address in angle brackets is refused, since a lenient sink would hide
//! a bug of the client.

/// Splits `FROM:<a@b> SIZE=9` into the address and the parameters.
pub(super) fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (found, rest) = rest.split_at_checked(keyword.len())?;
    let (address, parameters) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    found.eq_ignore_ascii_case(keyword).then_some((address, parameters))
}

/// The `SIZE` of the parameters (RFC 1870), 0 if there is none.
pub(super) fn declared_size(parameters: &str) -> usize {
    let size = parameters.split_ascii_whitespace().find_map(|parameter| parameter.strip_prefix("SIZE="));
    size.and_then(|size| size.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_need_their_brackets() {
        assert_eq!(path("from:<a@b> SIZE=9", "FROM:"), Some(("a@b", " SIZE=9")));
        assert_eq!(path("FROM: <>", "FROM:"), Some(("", "")));
        assert_eq!(path("FROM:a@b", "FROM:"), None);
        assert_eq!(path("TO:<a@b>", "FROM:"), None);
        assert_eq!((declared_size(" BODY=8BITMIME SIZE=9"), declared_size("")), (9, 0));
    }
}
