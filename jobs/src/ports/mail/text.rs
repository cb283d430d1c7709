//! Cleans text from tenants and leads before it enters a mail.
//!
//! Invariant: the result of [`one_line`] can neither start a new header nor hide characters: it
//! contains no control character, no line or paragraph separator, and no bidirectional override.

/// Maximum characters of a subject; well below the 998 octets of a header line, since text without
/// spaces cannot be folded.
const MAX_SUBJECT_CHARS: usize = 240;

/// The subject that the recipient sees, for both preview and mail.
pub(crate) fn subject(raw: &str) -> String {
    one_line(raw, MAX_SUBJECT_CHARS)
}

/// Reduces `raw` to one line of at most `max_chars` characters: every run of white space and
/// control characters becomes one space, the ends are trimmed, and characters that reorder the
/// surrounding text are dropped.
pub(crate) fn one_line(raw: &str, max_chars: usize) -> String {
    let mut line = String::with_capacity(raw.len().min(max_chars.saturating_mul(4)));
    let mut chars = 0;
    let mut gap = false;
    for c in raw.chars().filter(|c| !reorders(*c)) {
        if c.is_control() || c.is_whitespace() {
            gap = chars > 0;
            continue;
        }
        let width = usize::from(gap) + 1;
        if chars + width > max_chars {
            break;
        }
        if gap {
            line.push(' ');
        }
        line.push(c);
        chars += width;
        gap = false;
    }
    line
}

/// A body with CRLF line ends and no other control characters. A lone CR or LF in a body allows
/// smuggling mails past relays that disagree about line ends. lettre would convert line ends too,
/// but in quadratic time.
pub(super) fn body(raw: &str) -> String {
    let mut clean = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                clean.push_str("\r\n");
            }
            '\n' => clean.push_str("\r\n"),
            '\t' => clean.push('\t'),
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}

fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_control_characters_are_folded() {
        assert_eq!(one_line("  a\r\nBcc: x\u{2028}b\0c\u{85}d ", 100), "a Bcc: x b c d");
        assert_eq!(one_line("\u{202e}abc", 100), "abc");
        assert_eq!(one_line("\r\n\0", 100), "");
    }

    #[test]
    fn texts_are_truncated_between_characters() {
        assert_eq!(one_line("äöü ß", 3), "äöü");
        assert_eq!(one_line("äöü ß", 4), "äöü", "no blank is left at the cut");
        assert_eq!(one_line("äöü ß", 5), "äöü ß");
    }

    #[test]
    fn line_ends_of_bodies_are_normalized() {
        assert_eq!(body("a\r\nb\rc\nd\0\u{1b}e\t"), "a\r\nb\r\nc\r\nde\t");
    }
}
