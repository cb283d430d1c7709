//! Texts of bodies that go to PostgreSQL, whose text holds no NUL.
//!
//! Invariant: a member read with these never makes a statement fail; it is refused with its place, as any other that does not fit.
//! Queries need no such mark: [`super::Query`] refuses a NUL wherever it stands.

use serde::{Deserialize, Deserializer, de::Error};

/// For `deserialize_with` on a `String`.
pub fn storable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains('\0') {
        return Err(D::Error::custom("a text must not hold a NUL character"));
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
