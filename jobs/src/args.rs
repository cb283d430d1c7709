//! Decodes a kind's arguments, with the same decoder for the check at submission and for the run.
//!
//! Invariant: arguments that pass [`check`] can be decoded by [`decode`], because decoding is the
//! last step of the check. The schema is checked first, because it reports all violations at once.
//! It cannot replace the decoder: JSON Schema accepts `1.0` and 2^64 as integers, and sees only one
//! of two members with the same name.

use std::fmt;

use jsonschema::{ValidationError, Validator};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use serde_path_to_error::{Path, Segment};

/// Maximum bytes of a violation's detail.
const MAX_DETAIL_BYTES: usize = 500;
/// Maximum number of violations reported by one check.
const REPORTED: usize = 20;

/// A place where arguments do not match the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgsViolation {
    /// JSON pointer from the root of the submission, starting with `/args`.
    pub pointer: String,
    /// What was expected.
    pub detail: String,
}

/// Decodes the arguments into the kind's own type.
pub fn decode<T: DeserializeOwned>(args: &RawValue) -> Result<T, ArgsViolation> {
    // Finding the place takes a second parse, which only happens on refusal.
    serde_json::from_str(args.get()).map_err(|error| misfit::<T>(args, &error))
}

/// The violations in the arguments; empty if they match the schema and a worker can decode them.
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

/// The text of an error in JSON terms, without line and column: the pointer is more precise.
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

/// The JSON name of a Rust type, where it differs. `found` distinguishes a number that is out of
/// range from a value of another type.
fn json_type<'a>(expected: &'a str, found: &str) -> &'a str {
    let is_number = found.starts_with("invalid value");
    match expected {
        "u8" if is_number => "a whole number from 0 to 255",
        "u16" if is_number => "a whole number from 0 to 65535",
        "u32" if is_number => "a whole number from 0 to 4294967295",
        "u64" | "usize" if is_number => "a whole number from 0 to 18446744073709551615",
        "i8" if is_number => "a whole number from -128 to 127",
        "i16" if is_number => "a whole number from -32768 to 32767",
        "i32" if is_number => "a whole number from -2147483648 to 2147483647",
        "i64" if is_number => "a whole number from -9223372036854775808 to 9223372036854775807",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "an array",
        other if other.starts_with("struct ") => "an object",
        other if other.starts_with("enum ") => "one of the documented values",
        other => other,
    }
}

/// The beginning of a text. Error texts contain the offending value, whose length clients choose.
fn beginning(text: &impl fmt::Display) -> String {
    struct Cut(String);
    impl fmt::Write for Cut {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = MAX_DETAIL_BYTES.saturating_sub(self.0.len());
            self.0.push_str(&part[..part.floor_char_boundary(room)]);
            // An error makes the formatter stop.
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
            // The variant of an enum is not part of the JSON path.
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&token);
    }
    pointer
}

#[cfg(test)]
mod tests;
