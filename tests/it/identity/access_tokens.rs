//! Access tokens that are not valid, whatever is wrong with them, get one answer. What is wrong
//! with each token is in the unit tests of `shared/src/identity/access_token`; here the whole API
//! refuses them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use shared::{authz::Role, identity::TokenKeys};
use tests::test_app::{ApiClient, TestApp, access_tokens};

use super::becomes;

/// The parts of a token, decoded.
fn parts(token: &str) -> Result<(Value, Value)> {
    let mut parts = token.split('.').map(|part| BASE64URL_NOPAD.decode(part.as_bytes()));
    let header = serde_json::from_slice(&parts.next().context("no header")??)?;
    Ok((header, serde_json::from_slice(&parts.next().context("no claims")??)?))
}

/// Joins a header, claims and the signature of another token.
fn joined(header: &Value, claims: &Value, signature: &str) -> String {
    let encoded = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
    format!("{}.{}.{signature}", encoded(header), encoded(claims))
}

fn bad_tokens(good: &str) -> Result<Vec<String>> {
    let (header, claims) = parts(good)?;
    let signature = good.rsplit('.').next().context("no signature")?;
    let mut bad =
        vec![String::new(), ".".into(), "..".into(), "a.b.c".into(), "Bearer".into(), "null".into(), "x".repeat(4_097)];
    for alg in ["none", "None", "NONE", "HS384", "HS512", "RS256", "RS384", "ES256", "PS256", "EdDSA", ""] {
        let mut changed = header.clone();
        changed["alg"] = alg.into();
        bad.extend([joined(&changed, &claims, signature), joined(&changed, &claims, "")]);
    }
    for kid in [Value::Null, "".into(), "../key".into(), "0000000000000000".into(), json!(1)] {
        let mut changed = header.clone();
        changed["kid"] = kid;
        bad.push(joined(&changed, &claims, signature));
    }
    for (name, value) in [
        ("exp", json!(9_999_999_999_u64)),
        ("exp", json!("9999999999")),
        ("iat", json!(0)),
        ("sub", json!("00000000-0000-7000-8000-000000000000")),
        ("tenant", json!("00000000-0000-7000-8000-000000000000")),
        ("sid", json!("00000000-0000-7000-8000-000000000000")),
        ("typ", json!("refresh")),
        ("iss", json!("https://elsewhere.test")),
        ("aud", json!(["rota", "elsewhere"])),
        ("admin", json!(true)),
    ] {
        let mut changed = claims.clone();
        changed[name] = value;
        bad.push(joined(&header, &changed, signature));
    }
    for end in [1, 10, good.len() / 2, good.len() - 1] {
        bad.extend([good[..end].to_owned(), good[end..].to_owned()]);
    }
    bad.push(good.to_uppercase());
    bad.push(good.to_lowercase());
    bad.push(
        good.chars()
            .map(|one| if one.is_lowercase() { one.to_ascii_uppercase() } else { one.to_ascii_lowercase() })
            .collect(),
    );
    bad.extend([
        format!("{good}A"),
        format!("{good}="),
        format!("{good}."),
        format!("A{good}"),
        good.replace('.', " "),
    ]);
    Ok(bad)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_token_gets_one_answer_everywhere() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Admin, "ada@example.com").await?;
    let good = ada.tokens["access_token"].as_str().context("no token")?;
    let bad = bad_tokens(good)?;
    assert!(bad.len() >= 60, "{}", bad.len());
    let paths = ["/api/v1/permissions/me", "/api/v1/jobs", "/api/v1/users", "/api/v1/api-keys", "/api/v1/campaigns"];
    let mut answers = BTreeSet::new();
    for token in &bad {
        let api = app.anonymous().with_token(token);
        for path in paths {
            answers.insert(refused(&api, path).await?);
        }
        let verified = app.anonymous().post("/api/v1/auth/token/verify", &json!({ "token": token })).await?;
        assert_eq!(verified.ok(200), &json!({ "active": false }), "{token}");
    }
    let malformed = answers.iter().filter(|answer| answer.contains("Bearer TOKEN")).count();
    assert_eq!(answers.len() - malformed, 1, "{answers:?}");
    becomes(&ada.api, 200).await;
    Ok(())
}

/// The problem of a refused request, without what is its own.
async fn refused(api: &ApiClient, path: &str) -> Result<String> {
    let answer = api.get(path).await?;
    assert!(answer.header("www-authenticate").contains("Bearer"), "{}", answer.header("www-authenticate"));
    let mut problem = answer.problem(401, "unauthenticated").clone();
    for own in ["request_id", "instance"] {
        problem[own].take();
    }
    Ok(problem.to_string())
}

/// A credential that is accepted in its header is not known under the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_counts_in_its_own_header_only() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let ada = app.signed_in(tenant.id, Role::Admin, "ada@example.com").await?;
    let token = ada.tokens["access_token"].as_str().context("no token")?;
    let key = app.key(tenant.id, &["jobs:read"], None).await?.1;
    becomes(&ada.api, 200).await;
    becomes(&app.client(&key), 200).await;
    app.client(token).get("/api/v1/jobs").await?.problem(401, "unauthenticated");
    app.anonymous().with_token(&key).get("/api/v1/jobs").await?.problem(401, "unauthenticated");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_and_names_its_user() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let token = json!({ "token": ada.tokens["access_token"] });
    let answer = app.anonymous().post("/api/v1/auth/token/verify", &token).await?;
    let told = answer.ok(200);
    assert_eq!((&told["active"], &told["actor"]), (&json!(true), &json!({ "kind": "user", "id": ada.id })));
    assert_eq!(told["company_id"], json!(tenant));
    let expires_at: chrono::DateTime<chrono::Utc> = told["expires_at"].as_str().context("no time")?.parse()?;
    let left = expires_at - app.system.clock.now();
    assert!((1700..=1800).contains(&left.num_seconds()), "{left}");
    Ok(())
}

/// A secret is not published; what is published verifies tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_not_published() -> Result<()> {
    let app = TestApp::start().await?;
    assert_eq!(app.anonymous().get("/.well-known/jwks.json").await?.ok(200), &json!({ "keys": [] }));
    assert_eq!(access_tokens().keys().published().keys.len(), 0);
    let pair = TokenKeys::of_private_key(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDhWemh6SEdjON456kddzX5WyJNY5FrUxeqC8p8VjycZ\n-----END PRIVATE KEY-----\n",
    )?;
    let published = serde_json::to_value(pair.published())?;
    assert_eq!((&published["keys"][0]["kty"], &published["keys"][0]["alg"]), (&json!("OKP"), &json!("EdDSA")));
    assert_eq!(published["keys"][0].get("d"), None, "the private half is not published");
    Ok(())
}
