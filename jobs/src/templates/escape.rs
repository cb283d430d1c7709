//! Converts values to text: unchanged, or escaped for HTML.
//!
//! Invariant: no value can add markup to the HTML part, and only the five characters that HTML
//! requires to be escaped are changed, so that links stay readable (minijinja's own escaping also
//! replaces every `/`). Each output is charged for its length.

use std::fmt::{self, Write};

use minijinja::{AutoEscape, Error, Output, State, Value};

use super::budget;

/// The formatter that minijinja calls for every `{{ … }}`.
pub(super) fn output(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    budget::look()?;
    budget::spend(budget::weight(value))?;
    if matches!(state.auto_escape(), AutoEscape::None) || value.is_safe() {
        write!(out, "{value}")?;
    } else if let Some(text) = value.as_str() {
        write_html(out, text)?;
    } else {
        write_html(out, &value.to_string())?;
    }
    Ok(())
}

/// `value|escape`
pub(super) fn escape(value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let mut escaped = String::new();
    match value.as_str() {
        Some(text) => write_html(&mut escaped, text)?,
        None => write_html(&mut escaped, &value.to_string())?,
    }
    Ok(Value::from_safe_string(escaped))
}

fn write_html(out: &mut impl Write, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        out.write_str(&rest[..at])?;
        out.write_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => "&#39;",
        })?;
        rest = &rest[at + 1..];
    }
    out.write_str(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_html_special_characters_are_escaped() {
        let escape = |text: &str| {
            let mut escaped = String::new();
            write_html(&mut escaped, text).expect("a String takes all");
            escaped
        };
        assert_eq!(escape("https://x.example/a/b?c=1&d='2'"), "https://x.example/a/b?c=1&amp;d=&#39;2&#39;");
        assert_eq!(escape("<b>\"ä\"</b>"), "&lt;b&gt;&quot;ä&quot;&lt;/b&gt;");
        assert_eq!(escape(""), "");
    }
}
