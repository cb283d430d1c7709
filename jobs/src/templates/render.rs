//! Renders a [`CompiledTemplate`] for one recipient.
//!
//! Invariant: the result contains all values, or there is an error that names the missing one; no
//! value is silently replaced by an empty text.

use std::io;

use minijinja::{Error, ErrorKind, Value, value::Serde};
use shared::suggestion;

use super::{
    CompiledTemplate, MAX_OUTPUT_BYTES, RenderedMail, budget,
    compile::guarded,
    error::{MAX_REASON_CHARS, TemplateError, TemplatePart, shown, shown_name},
};
use crate::ports::mail::text;

/// Maximum number of known names in an error.
const MAX_KNOWN: usize = 1_000;

impl CompiledTemplate {
    /// Renders all parts with `values`, an object whose members are the variables.
    ///
    /// Takes at most some ten milliseconds of processor time.
    pub fn render(&self, values: &serde_json::Value) -> Result<RenderedMail, TemplateError> {
        budget::within(|| guarded(TemplatePart::Text, || self.render_parts(values)))
    }

    fn render_parts(&self, values: &serde_json::Value) -> Result<RenderedMail, TemplateError> {
        let context = Value::from(Serde(values));
        let part = |part| self.render_part(part, &context).map_err(|error| explain(part, &error, values));
        Ok(RenderedMail {
            subject: text::subject(&part(TemplatePart::Subject)?),
            text: part(TemplatePart::Text)?,
            html: self.has_html.then(|| part(TemplatePart::Html)).transpose()?,
        })
    }

    fn render_part(&self, part: TemplatePart, context: &Value) -> Result<String, Error> {
        let mut output = Bounded(Vec::new());
        self.environment.get_template(part.name())?.render_captured_to(context.clone(), &mut output)?;
        Ok(String::from_utf8_lossy(&output.0).into_owned())
    }
}

/// Output that fails when it would exceed [`MAX_OUTPUT_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.0.len() + octets.len() > MAX_OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(part: TemplatePart, error: &Error, values: &serde_json::Value) -> TemplateError {
    let line = error.line().unwrap_or(1);
    if let Some(name) = undefined_name(error) {
        return unknown_variable(part, line, name, values);
    }
    match error.kind() {
        ErrorKind::WriteFailure => TemplateError::OutputTooLarge { part },
        ErrorKind::OutOfFuel => TemplateError::TooManySteps { part, line },
        kind => {
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            TemplateError::Render { part, line, reason: shown(&format!("{kind}{detail}"), MAX_REASON_CHARS) }
        }
    }
}

/// minijinja names the undefined expression, but only in words: "… `lead.name` is undefined …".
fn undefined_name(error: &Error) -> Option<&str> {
    let detail = error.detail()?;
    let end = detail.find("` is undefined")?;
    let start = detail[..end].rfind('`')? + 1;
    Some(&detail[start..end])
}

fn unknown_variable(part: TemplatePart, line: usize, name: &str, values: &serde_json::Value) -> TemplateError {
    let known = siblings(name, values);
    let suggestion = suggestion::nearest(name, known.iter().map(String::as_str)).map(shown_name);
    let known = known.iter().map(|name| shown_name(name)).collect();
    TemplateError::UnknownVariable { part, line, name: shown_name(name), suggestion, known }
}

/// The names that are valid in place of `name`: the members of the deepest existing object on its
/// path.
fn siblings(name: &str, values: &serde_json::Value) -> Vec<String> {
    let mut object = values;
    let mut prefix = String::new();
    for step in name.split('.') {
        match object.get(step) {
            Some(inner) if inner.is_object() => {
                object = inner;
                prefix.push_str(step);
                prefix.push('.');
            }
            _ => break,
        }
    }
    let members = object.as_object().into_iter().flat_map(serde_json::Map::keys).take(MAX_KNOWN);
    let mut known: Vec<_> = members.map(|member| format!("{prefix}{member}")).collect();
    known.sort();
    known
}
