//! Deserializes structs from JSON objects only.
//!
//! `serde_json` also reads a struct from an array of its fields (serde-rs/serde#1587). A client
//! could send such an array instead of the documented object, and would break when a field is
//! added. `serde_json` reads maps from objects only, so structs are read as maps here, at every
//! depth. Likewise `serde_json` reads a unit variant, which is documented as a string, from
//! `{"text": null}`, and reports a value of another type as a syntax error; here a unit variant is
//! read from a string only.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

/// Wraps a deserializer, visitor, seed or access of serde, and wraps its nested values too.
pub(super) struct Objects<T>(pub(super) T);

/// Methods for values without a nested struct.
macro_rules! as_they_are {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    as_they_are! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Objects(visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Objects(visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_seq(Objects(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Objects(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Objects(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Objects(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Objects(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Choice(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// Only the methods that `serde_json` calls for the methods above.
impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(within))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(within))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(within))
    }

    fn visit_map<A: MapAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(within))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, within: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(within))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// Reads an enum: a unit variant from a string, another variant from an object with one member.
struct Choice<T>(T);

impl<'de, V: Visitor<'de>> Visitor<'de> for Choice<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<V::Value, E> {
        self.0.visit_enum(name.into_deserializer())
    }

    fn visit_map<A: MapAccess<'de>>(self, within: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Choice(within))
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Choice<A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, Self), A::Error> {
        let name = self.0.next_key_seed(seed)?;
        let name = name.ok_or_else(|| A::Error::invalid_value(Unexpected::Map, &"an object with one member"))?;
        Ok((name, self))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Choice<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        Err(A::Error::invalid_type(Unexpected::Map, &"a string"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.newtype_variant_seed(AsTuple(length, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.newtype_variant_seed(AsMap(visitor))
    }
}

/// Reads the fields of a tuple variant.
struct AsTuple<V>(usize, V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for AsTuple<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        within.deserialize_tuple(self.0, self.1)
    }
}

/// Reads the fields of a struct variant.
struct AsMap<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for AsMap<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, within: D) -> Result<V::Value, D::Error> {
        within.deserialize_map(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Outer {
        one: Inner,
        #[serde(default)]
        more: Vec<Inner>,
        #[serde(default)]
        perhaps: Option<Wrapped>,
        #[serde(default)]
        named: BTreeMap<String, Inner>,
        #[serde(default)]
        choice: Option<OneOf>,
        #[serde(default)]
        pair: Option<(u8, Inner)>,
        #[serde(default)]
        raw: Option<Box<RawValue>>,
        #[serde(default)]
        any: serde_json::Value,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Inner {
        count: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Wrapped(Inner);

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its reading is tested")]
    enum OneOf {
        Unit,
        Newtype(Inner),
        Fields { inner: Inner },
        Pair(u8, Inner),
    }

    fn read(text: &str) -> Result<Outer, serde_json::Error> {
        Outer::deserialize(Objects(&mut serde_json::Deserializer::from_str(text)))
    }

    #[test]
    fn values_other_than_structs_deserialize_unchanged() {
        for rest in [
            r#""more": [{"count": 1}, {}]"#,
            r#""perhaps": {"count": null}, "named": {"a": {"count": 2}}"#,
            r#""choice": "unit", "pair": [1, {}], "raw": [1, {"a": []}], "any": [[], {}]"#,
            r#""choice": {"newtype": {"count": 1}}, "perhaps": null"#,
            r#""choice": {"fields": {"inner": {}}}"#,
            r#""choice": {"pair": [1, {}]}"#,
        ] {
            let text = format!(r#"{{"one": {{"count": 1}}, {rest}}}"#);
            read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn a_struct_is_never_read_from_an_array() {
        for text in [
            "[[1]]",
            r#"{"one": [1]}"#,
            r#"{"one": {}, "more": [[1]]}"#,
            r#"{"one": {}, "perhaps": [1]}"#,
            r#"{"one": {}, "named": {"a": [1]}}"#,
            r#"{"one": {}, "choice": {"newtype": [1]}}"#,
            r#"{"one": {}, "choice": {"fields": [{}]}}"#,
            r#"{"one": {}, "choice": {"fields": {"inner": [1]}}}"#,
            r#"{"one": {}, "pair": [1, [1]]}"#,
            r#"{"one": {}, "choice": {"pair": [1, [1]]}}"#,
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.starts_with("invalid type: sequence, expected struct"), "{text}: {error}");
        }
    }
    #[test]
    fn a_unit_variant_is_a_string() {
        for (choice, reason) in [
            (r#"{"unit": null}"#, "invalid type: map, expected a string"),
            ("3600", "invalid type: integer `3600`, expected enum OneOf"),
            (r#"["unit"]"#, "invalid type: sequence, expected enum OneOf"),
            ("{}", "invalid value: map, expected an object with one member"),
            (r#"{"newtype": {}, "unit": null}"#, "trailing comma"),
            (r#""other""#, "unknown variant `other`, expected one of"),
        ] {
            let error = read(&format!(r#"{{"one": {{}}, "choice": {choice}}}"#)).expect_err(choice);
            assert!(error.to_string().starts_with(reason), "{choice}: {error}");
        }
    }
}
