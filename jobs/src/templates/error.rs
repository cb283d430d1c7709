//! Template errors, written for the template's author: which part, which line, which word.

use std::fmt;

use super::{MAX_SOURCE_BYTES, MAX_SUBJECT_SOURCE_BYTES};

/// Maximum characters of a name, and of a reason, in a message, since authors choose their length.
const MAX_NAME_CHARS: usize = 80;
pub(super) const MAX_REASON_CHARS: usize = 300;
/// Maximum number of known names listed in a message.
const MAX_LISTED: usize = 20;

/// A part of a mail template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TemplatePart {
    Subject,
    Text,
    Html,
}

impl TemplatePart {
    /// Maximum bytes of this part's source.
    pub(super) const fn max_bytes(self) -> usize {
        match self {
            Self::Subject => MAX_SUBJECT_SOURCE_BYTES,
            Self::Text | Self::Html => MAX_SOURCE_BYTES,
        }
    }

    /// The name of the part, in the API and in minijinja's environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Text => "text",
            Self::Html => "html",
        }
    }
}

impl fmt::Display for TemplatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a template does not compile or render. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{part}, line {line}: unknown variable `{name}`{}; known are: {}", did_you_mean(.suggestion.as_deref()), list(.known))]
    UnknownVariable {
        part: TemplatePart,
        line: usize,
        name: String,
        /// The most similar known name.
        suggestion: Option<String>,
        known: Vec<String>,
    },
    #[error("{part}, line {line}: {reason}")]
    Syntax { part: TemplatePart, line: usize, reason: String },
    /// Valid in minijinja, but not supported here.
    #[error("{part}, line {line}: {what}{}", did_you_mean(.suggestion.as_deref()))]
    NotOffered { part: TemplatePart, line: usize, what: String, suggestion: Option<String> },
    #[error("{part}, line {line}: {reason}")]
    Render { part: TemplatePart, line: usize, reason: String },
    #[error("{part}: the template is longer than {} KiB", part.max_bytes() / 1024)]
    SourceTooLarge { part: TemplatePart },
    #[error("{part}: the result is longer than {} KiB", super::MAX_OUTPUT_BYTES / 1024)]
    OutputTooLarge { part: TemplatePart },
    #[error("{part}, line {line}: the template takes too many steps")]
    TooManySteps { part: TemplatePart, line: usize },
}

impl TemplateError {
    /// The part of the template with the error.
    pub fn part(&self) -> TemplatePart {
        match self {
            Self::UnknownVariable { part, .. }
            | Self::Syntax { part, .. }
            | Self::NotOffered { part, .. }
            | Self::Render { part, .. }
            | Self::SourceTooLarge { part }
            | Self::OutputTooLarge { part }
            | Self::TooManySteps { part, .. } => *part,
        }
    }
}

/// The beginning of a text from the author.
pub(super) fn shown(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn shown_name(name: &str) -> String {
    shown(name, MAX_NAME_CHARS)
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn list(known: &[String]) -> String {
    let shown = known.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match known.len() {
        0 => "none".to_owned(),
        n if n > MAX_LISTED => format!("{shown} and {} more", n - MAX_LISTED),
        _ => shown,
    }
}

pub(super) fn syntax_error(part: TemplatePart, error: &minijinja::Error) -> TemplateError {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), |detail| shown(detail, MAX_REASON_CHARS));
    TemplateError::Syntax { part, line: error.line().unwrap_or(1), reason }
}
