//! Mail templates: what a tenant writes, compiled once and rendered for each recipient.
//!
//! Invariant: a template costs its author's mails, never the worker. Its size, its depth, its output, its steps, its memory and its
//! time are bounded whatever it says (what could grow is refused), it reads nothing but the values it is given,
//! and an unknown variable is an error, not an empty space in a thousand mails.
//!
//! Compiling is in `compile`, rendering in `render`. What is refused is in `scan` (by tokens, before parsing) and `policy` (by the
//! syntax tree), what rendering may cost in `budget`. Both belong on a [`shared::compute::ComputePool`]: see
//! [`crate::campaign_mail`].

mod budget;
mod compile;
mod error;
mod escape;
mod filters;
mod policy;
mod render;
mod requirements;
mod scan;

pub use self::{
    compile::CompiledTemplate,
    error::{TemplateError, TemplatePart},
};

/// Bytes in the source of one part at most.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Bytes in the source of a subject at most.
pub const MAX_SUBJECT_SOURCE_BYTES: usize = 2 * 1024;
/// Bytes in one rendered part at most.
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
mod attacks;
#[cfg(test)]
mod tests;
