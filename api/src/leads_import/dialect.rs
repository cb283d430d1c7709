//! The dialect of a file: its delimiter, and whether a record is quoted as RFC 4180 requires.
//!
//! Invariant: nothing here reads ahead; it examines lines that [`super::records`] holds.

use super::options::Delimiter;

/// The separator of a `sep=;` line, which Excel writes and reads before the header: in upper or
/// lower case, quoted or not, and with the empty cells that a program appends if it treated the
/// line as a row.
pub(super) fn announced(line: &[u8]) -> Option<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'"');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let (name, rest) = line[start..].split_at_checked(4)?;
    let separator = *rest.first()?;
    let only_empty_cells = rest.iter().all(|byte| *byte == separator || is_blank(byte) || b",;\t|".contains(byte));
    (name.eq_ignore_ascii_case(b"sep=") && only_empty_cells).then_some(separator)
}

/// The delimiter with this byte.
pub(super) fn delimiter(byte: u8) -> Option<Delimiter> {
    Delimiter::ALL.into_iter().find(|delimiter| delimiter.byte() == byte)
}

/// Whether a line contains only delimiters, quotes and blanks.
pub(super) fn has_no_value(line: &[u8]) -> bool {
    line.iter().all(|byte| b",;\t|\" \n".contains(byte))
}

/// The most frequent delimiter of the header, outside quotes.
pub(super) fn most_frequent(line: &[u8]) -> Delimiter {
    let mut counts = [0_usize; Delimiter::ALL.len()];
    let mut quoted = false;
    for &byte in line {
        quoted ^= byte == b'"';
        let delimiter = Delimiter::ALL.iter().position(|delimiter| delimiter.byte() == byte);
        if let Some(index) = delimiter.filter(|_| !quoted) {
            counts[index] += 1;
        }
    }
    let best = Delimiter::ALL.into_iter().zip(counts).rev().max_by_key(|&(_, count)| count);
    best.map_or(Delimiter::Comma, |(delimiter, _)| delimiter)
}

/// Whether each closing quote ends its field. The parser accepts `"a" b`, which is harmless within
/// a line; but an open quote is closed by the opening quote of a later row in the same way, and
/// accepting that would swallow the rows in between.
pub(super) fn is_strictly_quoted<'a>(lines: impl Iterator<Item = &'a [u8]>, delimiter: Delimiter) -> bool {
    let mut place = Place::FieldStart;
    for &byte in lines.flatten() {
        place = match (place, byte) {
            (Place::Quoted, b'"') => Place::AfterQuote,
            (Place::FieldStart | Place::AfterQuote, b'"') | (Place::Quoted, _) => Place::Quoted,
            (_, b'\n') => Place::FieldStart,
            (_, byte) if byte == delimiter.byte() => Place::FieldStart,
            (Place::AfterQuote, _) => return false,
            (Place::FieldStart | Place::Plain, _) => Place::Plain,
        };
    }
    place != Place::Quoted
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: another quote makes it a literal quote, anything else the
    /// end of the field.
    AfterQuote,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_is_detected_outside_quotes() {
        assert_eq!(most_frequent(b"email\n"), Delimiter::Comma);
        assert_eq!(most_frequent(b"\"a,b,c\";d\n"), Delimiter::Semicolon);
        assert_eq!(most_frequent(b"a\tb\tc,d\n"), Delimiter::Tab);
        assert_eq!(most_frequent(b"a,b;c\n"), Delimiter::Comma);
        for line in ["sep=;\n", "SEP=;\n", "Sep=;", "\"sep=;\"\n", "sep=;;;;\n", "sep=;,,\n", " sep=; \n"] {
            assert_eq!(announced(line.as_bytes()).and_then(delimiter), Some(Delimiter::Semicolon), "{line:?}");
        }
        assert_eq!(announced(b"sep=\t\n").and_then(delimiter), Some(Delimiter::Tab));
        assert_eq!(announced(b"sep=:\n"), Some(b':'));
        for line in ["sep=\n", "separator,x\n", "sep=;email\n", "", "se"] {
            assert_eq!(announced(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn strict_quoting_is_recognized() {
        let strict = |text: &str| is_strictly_quoted(text.split_inclusive('\n').map(str::as_bytes), Delimiter::Comma);
        for good in ["a,b\n", "\"a\nb\",c\n", "\"a \"\"b\"\"\n\",\"\"\n", "q\"q,\"x\n\"\n"] {
            assert!(strict(good), "{good:?}");
        }
        for bad in ["\"a\nb\"c\n", "a,\"b\nc,d\ne,\"f\"\n", "\"a\n", "\"a\" ,\"b\n\"\n"] {
            assert!(!strict(bad), "{bad:?}");
        }
    }
}
