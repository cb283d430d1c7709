//! A list in a body with a bounded number of items.
//!
//! Invariant: reading stops at the second item beyond the bound, so a long list of tiny items does
//! not grow to many times its size in memory. One item beyond the bound is accepted, because the
//! handler checks the exact limit and words the error.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// For `deserialize_with` on a `Vec`; fails at the second item beyond `MAX`.
pub fn few<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Few::<MAX, T>(PhantomData))
}

/// For `deserialize_with` on an `Option<Vec>`, together with `default`.
pub fn optional_few<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct Items<const MAX: usize, T>(Vec<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for Items<MAX, T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            few::<MAX, T, D>(deserializer).map(Self)
        }
    }

    Ok(Option::<Items<MAX, T>>::deserialize(deserializer)?.map(|Items(items)| items))
}

struct Few<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Few<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an array of at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            if items.len() > MAX {
                return Err(A::Error::custom(format!("expected an array of at most {MAX} items")));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(deserialize_with = "few::<1, _, _>")]
        some: Vec<u8>,
        #[serde(default, deserialize_with = "optional_few::<1, _, _>")]
        more: Option<Vec<u8>>,
    }

    #[test]
    fn a_list_over_its_limit_is_refused() {
        let body = |text: &str| serde_json::from_str::<Body>(text);
        let read = body(r#"{"some":[1,2],"more":[3,4]}"#).unwrap();
        assert_eq!((read.some, read.more), (vec![1, 2], Some(vec![3, 4])));
        assert_eq!(body(r#"{"some":[],"more":null}"#).unwrap().more, None);
        assert_eq!(body(r#"{"some":[]}"#).unwrap().more, None);
        for text in [r#"{"some":[1,2,3]}"#, r#"{"some":[],"more":[1,2,3]}"#] {
            assert!(body(text).unwrap_err().to_string().contains("at most 1 items"), "{text}");
        }
    }
}
