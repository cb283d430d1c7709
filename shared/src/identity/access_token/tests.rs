//! Tokens that must be refused, whatever the signature, and the exchange of keys.

use data_encoding::BASE64URL_NOPAD;
use hmac::Mac as _;
use serde_json::{Value, json};

use super::*;
use crate::{identity::TokenKeyError, mac::hmac_sha256};

const SECRET: &[u8] = b"a secret of the tests, 32 characters";
const OTHER: &[u8] = b"another secret of 32 characters, too";
/// Made for these tests with `openssl genpkey -algorithm ed25519`.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIDhWemh6SEdjON456kddzX5WyJNY5FrUxeqC8p8VjycZ
-----END PRIVATE KEY-----
";

fn tokens(keys: TokenKeys) -> AccessTokens {
    AccessTokens::new(keys, "https://rota.test", "rota")
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn token() -> AccessToken {
    let (tenant, subject) = (TenantId::new(Uuid::from_u128(1)), Subject::User(Uuid::from_u128(2)));
    AccessToken { tenant, subject, session: Uuid::from_u128(3), issued_at: now(), number: 4 }
}

fn claims() -> Value {
    json!({
        "iss": "https://rota.test", "aud": "rota", "sub": Uuid::from_u128(2), "tenant": Uuid::from_u128(1),
        "sid": Uuid::from_u128(3), "typ": "access", "jti": format!("{}-4", Uuid::from_u128(3).simple()),
        "iat": now().timestamp(), "exp": now().timestamp() + 60 * LIFETIME_MINUTES,
    })
}

/// Signs a header and a payload of any text with HMAC, as an attacker who knows `secret` would.
fn signed(header: &Value, payload: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
        BASE64URL_NOPAD.encode(payload.as_bytes())
    );
    let mac = hmac_sha256(secret).chain_update(message.as_bytes()).finalize().into_bytes();
    format!("{message}.{}", BASE64URL_NOPAD.encode(&mac))
}

fn header() -> Value {
    json!({ "alg": "HS256", "typ": "JWT", "kid": TokenKeys::of_secret(SECRET).signer.kid })
}

#[test]
fn a_token_names_whom_it_was_issued_for() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let text = tokens.issue(&token(), &[]);
    assert_eq!(text, tokens.issue(&token(), &[]), "the same token each time");
    assert_eq!(tokens.verify(&text, now()), Some(token()));
    assert_eq!(tokens.verify(&signed(&header(), &claims().to_string(), SECRET), now()), Some(token()));
}

#[test]
fn a_token_of_a_client_is_not_one_of_a_user() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let client = AccessToken { subject: Subject::ApiClient(Uuid::from_u128(2)), ..token() };
    let text = tokens.issue(&client, &["jobs:read".to_owned(), "jobs:create".to_owned()]);
    assert_eq!(tokens.verify(&text, now()), Some(client));
    let claims = BASE64URL_NOPAD.decode(text.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["typ"], &claims["scope"]), (&json!("client_access"), &json!("jobs:read jobs:create")));
}

#[test]
fn both_sides_of_the_lifetime() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let text = tokens.issue(&token(), &[]);
    let at = |seconds| tokens.verify(&text, now() + TimeDelta::seconds(seconds)).is_some();
    assert!(at(60 * LIFETIME_MINUTES - 1) && !at(60 * LIFETIME_MINUTES));
    assert!(at(-CLOCK_DIFFERENCE_S) && !at(-CLOCK_DIFFERENCE_S - 1));
}

#[test]
fn a_claim_with_another_value_or_none_is_refused() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let verified = |claims: &Value| tokens.verify(&signed(&header(), &claims.to_string(), SECRET), now()).is_some();
    assert!(verified(&claims()));
    let required = ["iss", "aud", "sub", "tenant", "sid", "typ", "jti", "iat", "exp"];
    for name in required {
        for value in [
            Value::Null,
            json!(""),
            json!(0),
            json!([]),
            json!({}),
            json!(-1),
            json!(1e300),
            json!("x"),
            json!(["rota"]),
            json!(["https://rota.test"]),
        ] {
            let mut changed = claims();
            changed[name] = value.clone();
            assert!(!verified(&changed), "{name}: {value}");
        }
        let mut missing = claims();
        missing.as_object_mut().unwrap().remove(name);
        assert!(!verified(&missing), "without {name}");
        // The second value of a repeated member must not win, nor the first.
        let text = claims().to_string();
        let repeated = format!("{},\"{name}\":{}}}", &text[..text.len() - 1], claims()[name]);
        assert_eq!(tokens.verify(&signed(&header(), &repeated, SECRET), now()), None, "{name} twice");
    }
    for (name, value) in [
        ("typ", json!("refresh")),
        ("typ", json!("Access")),
        ("iss", json!("https://rota.test/")),
        ("aud", json!("ROTA")),
        ("exp", json!(now().timestamp() + 10_000_000)),
        ("exp", json!((now().timestamp() + 60 * LIFETIME_MINUTES).to_string())),
        ("iat", json!(now().timestamp() + 3_600)),
        ("jti", json!(format!("{}-4", Uuid::from_u128(9).simple()))),
    ] {
        let mut changed = claims();
        changed[name] = value.clone();
        assert!(!verified(&changed), "{name}: {value}");
    }
}

#[test]
fn the_key_decides_the_algorithm() {
    let of_secret = tokens(TokenKeys::of_secret(SECRET));
    let of_pair = tokens(TokenKeys::of_private_key(ED25519).unwrap());
    let payload = claims().to_string();
    let kid = header()["kid"].clone();
    for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA", "", "hs256"] {
        let forged = json!({ "alg": alg, "typ": "JWT", "kid": kid });
        assert_eq!(of_secret.verify(&signed(&forged, &payload, SECRET), now()), None, "{alg}");
    }
    let unsigned = json!({ "alg": "none", "kid": kid });
    let text = signed(&unsigned, &payload, SECRET);
    let without = &text[..=text.rfind('.').unwrap()];
    assert_eq!(of_secret.verify(without, now()), None);
    // The public key as an HMAC secret.
    let published = of_pair.keys().published();
    let public = serde_json::to_value(&published.keys[0]).unwrap();
    for secret in [public["x"].as_str().unwrap().as_bytes(), public.to_string().as_bytes()] {
        let forged = json!({ "alg": "HS256", "typ": "JWT", "kid": public["kid"] });
        assert_eq!(of_pair.verify(&signed(&forged, &payload, secret), now()), None);
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let payload = claims().to_string();
    assert_eq!(tokens.verify(&signed(&header(), &payload, OTHER), now()), None);
    let others = json!({ "alg": "HS256", "typ": "JWT", "kid": TokenKeys::of_secret(OTHER).signer.kid });
    assert_eq!(tokens.verify(&signed(&others, &payload, OTHER), now()), None);
    for kid in [Value::Null, json!(""), json!("../../dev/null"), json!(1)] {
        let odd = json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
        assert_eq!(tokens.verify(&signed(&odd, &payload, SECRET), now()), None, "{kid}");
    }
    let critical = json!({ "alg": "HS256", "typ": "JWT", "kid": header()["kid"], "crit": ["exp"] });
    assert_eq!(tokens.verify(&signed(&critical, &payload, SECRET), now()), None);
}

#[test]
fn a_damaged_token_is_refused() {
    let tokens = tokens(TokenKeys::of_secret(SECRET));
    let text = tokens.issue(&token(), &[]);
    for end in 0..text.len() {
        assert_eq!(tokens.verify(&text[..end], now()), None, "cut at {end}");
    }
    for place in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert_eq!(tokens.verify(&String::from_utf8(bytes).unwrap(), now()), None, "changed at {place}");
    }
    for odd in [
        format!("{text}."),
        format!(".{text}"),
        format!("{text}="),
        format!(" {text}"),
        format!("{text}\n"),
        "a.b.c".into(),
        "..".into(),
        text.repeat(20),
    ] {
        assert_eq!(tokens.verify(&odd, now()), None, "{odd}");
    }
}

#[test]
fn keys_are_exchanged_without_refusing_tokens() {
    let (old, new) = (TokenKeys::of_secret(SECRET), TokenKeys::of_private_key(ED25519).unwrap());
    let text = tokens(old).issue(&token(), &[]);
    assert_eq!(tokens(new.clone()).verify(&text, now()), None);
    let both = tokens(new.clone().and_secret(SECRET));
    assert_eq!(both.verify(&text, now()), Some(token()));
    assert_eq!(both.verify(&tokens(new).issue(&token(), &[]), now()), Some(token()));
    // A secret is never published.
    assert_eq!(both.keys().published().keys.len(), 1);
    assert!(tokens(TokenKeys::of_secret(SECRET)).keys().published().keys.is_empty());
}

#[test]
fn texts_that_are_no_keys_are_refused() {
    for text in ["", "key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert_eq!(TokenKeys::of_private_key(text).err(), Some(TokenKeyError::NotAPrivateKey), "{text}");
        let public = TokenKeys::of_secret(SECRET).and_public_key(text).err();
        assert_eq!(public, Some(TokenKeyError::NotAPublicKey), "{text}");
    }
    assert_eq!(TokenKeys::of_secret(SECRET).and_public_key(ED25519).err(), Some(TokenKeyError::NotAPublicKey));
}
