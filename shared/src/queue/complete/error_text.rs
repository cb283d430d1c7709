//! The text of an error as stored in the ledger.
//!
//! Invariant: its size in bytes is bounded where it is created, before it is queued, copied or
//! logged: tenants control the length of an error, and all tenants share the code that writes it.

use std::fmt::{self, Display, Write};

/// Maximum size of a stored error in bytes.
pub const MAX_ERROR_BYTES: usize = 2_000;

/// The first [`MAX_ERROR_BYTES`] of what `error` displays, without NUL, which PostgreSQL's `text`
/// cannot store. The rest is not even formatted.
pub fn bounded_text(error: impl Display) -> String {
    let mut text = Bounded(String::new());
    // Ends early when the bound is reached.
    let _ = write!(text, "{error:#}");
    text.0
}

struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars().filter(|&character| character != '\0') {
            if self.0.len() + character.len_utf8() > MAX_ERROR_BYTES {
                return Err(fmt::Error);
            }
            self.0.push(character);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_truncated_to_its_limit_in_bytes() {
        let whole = "x".repeat(MAX_ERROR_BYTES);
        assert_eq!(bounded_text(&whole), whole);
        assert_eq!(bounded_text(format!("{whole}y")), whole);
        assert_eq!(bounded_text("ü".repeat(MAX_ERROR_BYTES)).len(), MAX_ERROR_BYTES);
        assert_eq!(bounded_text("€".repeat(MAX_ERROR_BYTES)).len(), MAX_ERROR_BYTES / 3 * 3);
        assert_eq!(bounded_text("a\0b"), "ab");
    }

    /// An error that would display a gigabyte is formatted only up to the bound.
    #[test]
    fn formatting_stops_at_the_limit() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    formatter.write_str("more and ")?;
                }
            }
        }
        assert_eq!(bounded_text(Endless).len(), MAX_ERROR_BYTES);
    }
}
