//! Mail templates: written by tenants, compiled once and rendered for each recipient.
//!
//! Invariant: a bad template fails its author's mails, never the worker. Its size, depth, output,
//! steps, memory and time are bounded whatever it contains (constructs that could grow are
//! refused), it reads only the values that it is given, and an unknown variable is an error, not an
//! empty space in a thousand mails.
//!
//! `compile` compiles and `render` renders. `scan` (on tokens, before parsing) and `policy` (on the
//! syntax tree) refuse constructs, and `budget` bounds the cost of rendering. Compile and render on
//! a [`shared::compute::ComputePool`]: see [`crate::campaign_mail`].

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

/// Maximum bytes of one part's source.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// Maximum bytes of a subject's source.
pub const MAX_SUBJECT_SOURCE_BYTES: usize = 2 * 1024;
/// Maximum bytes of one rendered part.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// The sources of a mail, in minijinja's template language.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailTemplate {
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
}

/// A mail's content for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedMail {
    /// A single line.
    pub subject: String,
    pub text: String,
    /// All values in it are escaped.
    pub html: Option<String>,
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
