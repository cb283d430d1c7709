//! Compiles template sources into a [`CompiledTemplate`].
//!
//! Invariant: every source passes [`scan::scan`] before it is parsed, and its tree
//! [`policy::check`] before minijinja compiles it. Next: `render`.

use std::{
    collections::BTreeSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, machinery};

use super::{
    MailTemplate,
    error::{TemplateError, TemplatePart, syntax_error},
    escape, filters, policy, requirements, scan,
};

/// Maximum number of instructions of one part; a part with 100 variables takes about 500.
const FUEL: u64 = 100_000;

/// A template that can be rendered by many tasks concurrently; share it in an `Arc`.
pub struct CompiledTemplate {
    pub(super) environment: Environment<'static>,
    pub(super) has_html: bool,
    variables: BTreeSet<String>,
    required: BTreeSet<String>,
}

impl CompiledTemplate {
    /// Compiles all parts; returns the first error.
    pub fn compile(template: &MailTemplate) -> Result<Self, TemplateError> {
        guarded(TemplatePart::Text, || Self::compile_parts(template))
    }

    fn compile_parts(template: &MailTemplate) -> Result<Self, TemplateError> {
        let mut compiled = Self {
            environment: environment(),
            has_html: template.html.is_some(),
            variables: BTreeSet::new(),
            required: BTreeSet::new(),
        };
        compiled.add(TemplatePart::Subject, &template.subject)?;
        compiled.add(TemplatePart::Text, &template.text)?;
        if let Some(html) = &template.html {
            compiled.add(TemplatePart::Html, html)?;
        }
        Ok(compiled)
    }

    /// The top-level variables named by any part, in alphabetical order, including those used only
    /// with `is defined` or `default`.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    /// The top-level variables that every mail requires, because they are read whatever the values
    /// are. Variables in a branch or a loop's body, or with `is defined` or `default`, are not
    /// included.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.required.iter().map(String::as_str)
    }

    fn add(&mut self, part: TemplatePart, source: &str) -> Result<(), TemplateError> {
        if source.len() > part.max_bytes() {
            return Err(TemplateError::SourceTooLarge { part });
        }
        let source = scan::scan(part, source)?;
        let syntax = |error: minijinja::Error| syntax_error(part, &error);
        let tree = machinery::parse(&source, part.name(), self.environment.syntax().clone()).map_err(syntax)?;
        policy::check(part, &tree)?;
        requirements::collect(&tree, &mut self.required);
        drop(tree);
        self.environment.add_template_owned(part.name(), source).map_err(syntax)?;
        let template = self.environment.get_template(part.name()).map_err(syntax)?;
        self.variables.extend(template.undeclared_variables(false));
        Ok(())
    }
}

impl fmt::Debug for CompiledTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledTemplate")
            .field("has_html", &self.has_html)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

/// Turns a panic of the template engine, such as an overflow of a column number, into an error of
/// this template only.
pub(super) fn guarded<T>(
    part: TemplatePart,
    work: impl FnOnce() -> Result<T, TemplateError>,
) -> Result<T, TemplateError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(TemplateError::Syntax { part, line: 1, reason: "the template cannot be processed".to_owned() })
    })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| match name {
        "html" => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(escape::output);
    // Errors then name the undefined variable; costs nothing as long as there is no error.
    environment.set_debug(true);
    filters::install(&mut environment);
    environment
}
