//! Strings of bodies that PostgreSQL stores; its text cannot contain NUL.
//!
//! Invariant: a member read with these functions never makes a statement fail; a NUL is rejected
//! with its JSON pointer, like any other mismatch. Query parameters need no attribute:
//! [`super::Query`] rejects NUL everywhere.

use serde::{Deserialize, Deserializer, de::Error};

/// For `deserialize_with` on a `String`.
pub fn storable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains('\0') {
        return Err(D::Error::custom("a string must not contain a NUL character"));
    }
    Ok(text)
}

/// For `deserialize_with` on an `Option<String>`, together with `default`.
pub fn optional_storable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text(#[serde(deserialize_with = "storable")] String);

    Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(text)| text))
}
