//! Reading a kind's arguments: one decoder for the check at submission and for the run.
//!
//! Invariant: arguments that passed [`check`] can be decoded by [`decode`], because decoding is the last step of the check. The
//! schema is checked first, as it reports every place at once. It cannot replace the decoder: JSON Schema takes `1.0` and
//! 2^64 for integers and sees one of two members of the same name.

use std::fmt;

use jsonschema::{ValidationError, Validator};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use serde_path_to_error::{Path, Segment};

/// Bytes of what is told of a misfit.
const MAX_DETAIL_BYTES: usize = 500;
/// Violations that one check reports at most.
const REPORTED: usize = 20;

/// One place where arguments do not fit a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgsViolation {
    /// JSON pointer from the submission, beginning with `/args`.
    pub pointer: String,
    /// What was expected.
    pub detail: String,
}

/// The arguments in the kind's own type.
pub fn decode<T: DeserializeOwned>(args: &RawValue) -> Result<T, ArgsViolation> {
    // The place costs a second reading, which only a refusal pays for.
    serde_json::from_str(args.get()).map_err(|error| misfit::<T>(args, &error))
}

/// What is wrong with the arguments; empty if a worker can decode them and they fit the schema.
pub(crate) fn check<T: DeserializeOwned>(validator: &Validator, args: &RawValue) -> Vec<ArgsViolation> {
    let value: Value = match decode(args) {
        Ok(value) => value,
        Err(violation) => return vec![violation],
    };
    let violation = |error: ValidationError<'_>| ArgsViolation {
        pointer: format!("/args{}", error.instance_path()),
        detail: beginning(&error),
    };
    let violations: Vec<ArgsViolation> = validator.iter_errors(&value).take(REPORTED).map(violation).collect();
    if violations.is_empty() { decode::<T>(args).err().into_iter().collect() } else { violations }
}

fn misfit<T: DeserializeOwned>(args: &RawValue, error: &serde_json::Error) -> ArgsViolation {
    let mut reader = serde_json::Deserializer::from_str(args.get());
    let place = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
    let pointer = place.map_or_else(String::new, |error| pointer(error.path()));
    ArgsViolation { pointer: format!("/args{pointer}"), detail: reason(error) }
}

/// The text of an error in the words of JSON, without the line and column: the pointer says more.
pub fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let Some((found, expected)) = reason.rsplit_once(", expected ") else { return beginning(&reason) };
    let found = match found {
        "invalid type: sequence" => "invalid type: array",
        "invalid type: map" => "invalid type: object",
        other => other,
    };
    beginning(&format_args!("{found}, expected {}", json_type(expected, found)))
}

/// What a type of Rust is in JSON, as far as there is another word for it; a number that was `found` is beyond its bounds.
fn json_type<'a>(expected: &'a str, found: &str) -> &'a str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => match found {
            number if number.starts_with("invalid value") => "a whole number within its bounds",
            _ => "a whole number",
        },
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "an array",
        other if other.starts_with("struct ") => "an object",
        other if other.starts_with("enum ") => "one of the texts that are documented",
        other => other,
    }
}

/// The beginning of a text: what does not fit stands in it as a whole, and clients choose how long that is.
fn beginning(text: &impl fmt::Display) -> String {
    struct Cut(String);
    impl fmt::Write for Cut {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = MAX_DETAIL_BYTES.saturating_sub(self.0.len());
            self.0.push_str(&part[..part.floor_char_boundary(room)]);
            // Whoever writes stops at an error.
            if part.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new());
    if fmt::Write::write_fmt(&mut cut, format_args!("{text}")).is_err() {
        cut.0.push('…');
    }
    cut.0
}

/// A path as a JSON pointer (RFC 6901).
pub fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let token = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            // The variant of an enum is no place in the text.
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&token);
    }
    pointer
}

#[cfg(test)]
mod tests;
