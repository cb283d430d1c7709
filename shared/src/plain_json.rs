//! JSON of plain data: structs, enums, texts and numbers of this program.
//!
//! Invariant: no type passed here has a `Serialize` that fails or a map whose keys are not texts,
//! so writing it cannot fail.

use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

const PLAIN: &str = "plain data can be written as JSON";

/// The data as JSON that is stored or embedded unchanged.
///
/// # Panics
/// If the data is not plain.
pub fn raw<T: Serialize + ?Sized>(data: &T) -> Box<RawValue> {
    to_raw_value(data).expect(PLAIN)
}

/// The data as a text.
///
/// # Panics
/// If the data is not plain.
pub fn text<T: Serialize + ?Sized>(data: &T) -> String {
    Box::<str>::from(raw(data)).into_string()
}

/// The data as a tree.
///
/// # Panics
/// If the data is not plain.
pub fn value<T: Serialize + ?Sized>(data: &T) -> Value {
    serde_json::to_value(data).expect(PLAIN)
}
