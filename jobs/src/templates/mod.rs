//! Mail templates: what a tenant writes, compiled once and rendered for each recipient.
//!
//! Invariant: a template costs its author's mails, never the worker. Its size, its output, its steps and its memory are
//! bounded whatever it says (what could grow is refused), it reads nothing but the values it is given,
//! and an unknown variable is an error, not an empty space in a thousand mails.
//!
//! Compiling is in `compile`, rendering in `render`, the refused part of the language in `policy`.

mod compile;
mod error;
mod filters;
mod policy;
mod render;

pub use self::{
    compile::CompiledTemplate,
    error::{TemplateError, TemplatePart},
};

/// Bytes in the source of one part at most.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Bytes in one rendered part at most, and in any text a filter makes.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// The sources of a mail, in the template language of minijinja.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailTemplate {
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
}

/// A mail's content for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedMail {
    /// On one line.
    pub subject: String,
    pub text: String,
    /// Every value in it is escaped.
    pub html: Option<String>,
}

#[cfg(test)]
mod tests;
