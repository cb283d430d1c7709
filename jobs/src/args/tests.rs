//! JSON that a schema and a decoder interpret differently, tested with every kind.

use proptest::prelude::*;
use serde_json::value::RawValue;
use shared::config::TestKinds;

use crate::{kind::Kind, registry::Registry};

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("valid JSON")
}

fn registry() -> Registry {
    Registry::new(TestKinds::One)
}

fn places(kind: &str, args: &str) -> Vec<String> {
    let registry = registry();
    let violations = registry.get(kind).expect("the kind exists").check(&raw(args));
    violations.into_iter().map(|violation| violation.pointer).collect()
}

#[test]
fn args_valid_only_by_the_schema_are_refused_with_their_pointer() {
    for number in ["1.0", "1e1", "-0", "-0.0", "18446744073709551616", "1e400", "1E+2"] {
        assert_eq!(places("sleep", &format!(r#"{{"ms":{number}}}"#)), ["/args/ms"], "{number}");
    }
    assert_eq!(places("sleep", r#"{"ms":18446744073709551615}"#), [""; 0]);
    assert_eq!(places("sleep", r#"{"ms":1,"ms":2}"#).len(), 1, "a member that comes twice");
    assert_eq!(places("sleep", r#"{"ms":1,"m\u0073":1}"#).len(), 1, "the same member, written differently");
    assert_eq!(places("sleep", r#"{"ms":1,"stamp":{"port":65536,"token":1}}"#), ["/args/stamp"]);
    assert_eq!(places("sleep", r#"{"ms":1,"stamp":{"port":1,"token":1.0}}"#), ["/args/stamp/token"]);
    assert_eq!(places("fail", r#"{"times":32768}"#), ["/args/times"]);
}

#[test]
fn a_number_out_of_range_is_refused_with_the_range() {
    let reason = |error: Option<serde_json::Error>| super::reason(&error.expect("out of range"));
    assert_eq!(
        reason(serde_json::from_str::<i16>("32768").err()),
        "invalid value: integer `32768`, expected a whole number from -32768 to 32767"
    );
    assert_eq!(
        reason(serde_json::from_str::<u32>("-1").err()),
        "invalid value: integer `-1`, expected a whole number from 0 to 4294967295"
    );
}

#[test]
fn lone_surrogates_are_refused_with_their_pointer() {
    for text in [r"\ud800", r"\udc00", r"\ud800\ud800"] {
        assert_eq!(places("noop", &format!(r#"{{"pad":"{text}"}}"#)), ["/args/pad"], "{text}");
        assert_eq!(places("noop", &format!(r#"{{"{text}":1}}"#)).len(), 1, "{text} in a name");
    }
    assert_eq!(places("noop", r#"{"pad":"\u0000\ud83d\ude00"}"#), [""; 0], "a NUL and a pair are characters");
}

#[test]
fn args_of_another_type_and_deep_values_are_refused() {
    for args in ["null", "[]", "[1]", "1", "\"x\"", "true"] {
        assert_eq!(places("sleep", args), ["/args"], "{args}");
    }
    assert_eq!(places("noop", r#"{"PAD":"x"}"#), ["/args"], "names are told apart by case");
    let deep = format!(r#"{{"pad":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(places("noop", &deep).len(), 1);
}

/// JSON texts close to what a kind accepts: its own members and others, each with any scalar or a
/// nested value.
fn near(kind: &Kind) -> BoxedStrategy<String> {
    let members = kind.schema["properties"].as_object().cloned().unwrap_or_default();
    let mut names: Vec<String> = members.keys().map(|name| format!("{name:?}")).collect();
    names.push(r#""other""#.to_owned());
    names.push(r#""""#.to_owned());
    let member = (proptest::sample::select(names), value()).prop_map(|(name, value)| format!("{name}:{value}"));
    let object = proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")));
    prop_oneof![8 => object, 1 => value()].boxed()
}

fn value() -> BoxedStrategy<String> {
    static SPECIAL: [&str; 30] = [
        "0",
        "-0",
        "1.0",
        "1e0",
        "1e400",
        "-1",
        "255",
        "256",
        "65535",
        "65536",
        "32767",
        "32768",
        "-32769",
        "2147483648",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "null",
        "true",
        "\"\"",
        "\"1\"",
        "\"x\"",
        "\"http://a.example\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"019aa0c8-0000-7000-8000-000000000000\"",
        "\"{019aa0c8-0000-7000-8000-000000000000}\"",
        "\"019AA0C8000070008000000000000000\"",
        "[]",
        "{}",
    ];
    let scalar = prop_oneof![
        6 => proptest::sample::select(SPECIAL.as_slice()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => (0.0_f64..1e30).prop_map(|number| format!("{number:e}")),
    ];
    let stamp =
        (scalar.clone(), scalar.clone()).prop_map(|(port, token)| format!(r#"{{"port":{port},"token":{token}}}"#));
    prop_oneof![6 => scalar, 1 => stamp].boxed()
}

/// A case is a kind and a text close to its arguments.
fn cases() -> impl Strategy<Value = (&'static str, String)> {
    let registry = registry();
    let case = |kind: &Kind| {
        let name = kind.name;
        near(kind).prop_map(move |args| (name, args)).boxed()
    };
    let cases: Vec<_> = registry.iter().map(case).collect();
    proptest::strategy::Union::new(cases)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Uses the worker's own decoder, for every kind.
    #[test]
    fn accepted_args_can_be_decoded((name, args) in cases()) {
        let registry = registry();
        let kind = registry.get(name).expect("the kind exists");
        let args = raw(&args);
        if kind.check(&args).is_empty() {
            prop_assert!(kind.can_decode(&args), "{name}: {args}");
        }
    }
}

#[test]
fn every_kind_refuses_args_that_its_decoder_rejects() {
    let registry = registry();
    for kind in registry.iter() {
        // A duplicate member: the schema sees the last one, the decoder refuses it.
        let Some(name) = kind.schema["properties"].as_object().and_then(|members| members.keys().next().cloned())
        else {
            continue;
        };
        let twice = raw(&format!(r#"{{"{name}":null,"{name}":null}}"#));
        assert!(!kind.check(&twice).is_empty(), "{}", kind.name);
        assert!(!kind.can_decode(&twice), "{}", kind.name);
    }
}
