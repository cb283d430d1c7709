//! What is wrong with a template, said to the person who wrote it: which part, which line, which word.

use std::fmt;

use strsim::jaro_winkler;

/// Below this similarity (0 to 1) a suggestion would confuse more than help.
const NEAR: f64 = 0.8;
/// Known names listed in a message at most.
const MAX_LISTED: usize = 20;

/// A part of a mail template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TemplatePart {
    Subject,
    Text,
    Html,
}

impl TemplatePart {
    /// The name of the part in the API and in minijinja's environment.
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

/// Why a template does not compile or render. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{part}, line {line}: unknown variable `{name}`{}; known are: {}", did_you_mean(.suggestion.as_deref()), list(.known))]
    UnknownVariable {
        part: TemplatePart,
        line: usize,
        name: String,
        /// The known name nearest to it.
        suggestion: Option<String>,
        known: Vec<String>,
    },
    #[error("{part}, line {line}: {reason}")]
    Syntax { part: TemplatePart, line: usize, reason: String },
    /// Valid in minijinja, but not offered here.
    #[error("{part}, line {line}: {what}{}", did_you_mean(.suggestion.as_deref()))]
    NotOffered { part: TemplatePart, line: usize, what: String, suggestion: Option<String> },
    #[error("{part}, line {line}: {reason}")]
    Render { part: TemplatePart, line: usize, reason: String },
    #[error("{part}: the template is longer than {} KiB", super::MAX_SOURCE_BYTES / 1024)]
    SourceTooLarge { part: TemplatePart },
    #[error("{part}: the result is longer than {} KiB", super::MAX_OUTPUT_BYTES / 1024)]
    OutputTooLarge { part: TemplatePart },
    #[error("{part}, line {line}: the template takes too many steps")]
    TooManySteps { part: TemplatePart, line: usize },
}

impl TemplateError {
    /// The part of the template that the error is in.
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

/// The candidate that `name` most likely stands for.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let folded = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (jaro_winkler(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
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
