//! What clients see of the limits: headers, problems, usage.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::queue::index::keys;
use tests::{
    eventually::eventually,
    system::TestSystem,
    test_app::{Answer, TestApp},
};

use super::{COUNTED, key, limited_app, set_tier, tenant};

/// A change of the tier has effect within this time.
const EFFECT: Duration = Duration::from_secs(5);

/// An item of `RateLimit` or `RateLimit-Policy`: the name and its two parameters.
#[derive(Debug, PartialEq, Eq)]
struct Item(String, u64, u64);

/// Parses a header strictly: `"name";first=1;second=2, …`.
fn items(answer: &Answer, header: &str, first: &str, second: &str) -> Result<Vec<Item>> {
    let text = answer.header(header);
    let item = |item: &str| {
        let (name, parameters) = item.strip_prefix('"')?.split_once("\";")?;
        let (one, other) = parameters.split_once(';')?;
        let number = |text: &str, name: &str| text.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        Some(Item(name.to_owned(), number(one, first)?, number(other, second)?))
    };
    text.split(", ").map(item).collect::<Option<_>>().with_context(|| format!("{header}: {text}"))
}

fn state(answer: &Answer) -> Result<Vec<Item>> {
    items(answer, "ratelimit", "r", "t")
}

fn policies(answer: &Answer) -> Result<Vec<Item>> {
    items(answer, "ratelimit-policy", "q", "w")
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_count_down_and_usage_says_the_same() -> Result<()> {
    let app = limited_app().await?;
    let api = app.client(&key(&app, tenant(&app, "professional").await?).await?);
    for number in 1..=5 {
        let answer = api.get(COUNTED).await?;
        answer.ok(200);
        let expected = [("burst", 50, 9), ("hourly", 1_000, 3_600), ("daily", 100_000, 86_400)];
        assert_eq!(policies(&answer)?, expected.map(|(name, q, w)| Item(name.into(), q, w)));
        let state = state(&answer)?;
        assert_eq!((state[1].1, state[2].1), (1_000 - number, 100_000 - number), "{state:?}");
        assert!((1..=3_660).contains(&state[1].2) && (1..=86_400).contains(&state[2].2), "{state:?}");
    }
    // Refusals of the handler are counted too.
    let missing = api.get(&format!("/api/v1/jobs/{}", uuid::Uuid::max())).await?;
    missing.problem(404, "not_found");
    assert_eq!(state(&missing)?[1].1, 994);
    let usage = api.get("/api/v1/usage").await?;
    let requests = usage.ok(200)["requests"].as_array().context("requests")?;
    for (limit, Item(name, remaining, reset)) in requests.iter().zip(state(&usage)?) {
        assert_eq!(
            (&limit["policy"], &limit["remaining"], &limit["reset_seconds"]),
            (&json!(name), &json!(remaining), &json!(reset))
        );
        assert_eq!(limit["limit"].as_u64(), limit["used"].as_u64().map(|used| used + remaining));
    }
    assert_eq!(
        (requests.len(), &requests[1]["used"], &requests[1]["algorithm"]),
        (3, &json!(7), &json!("sliding_window"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_policy_and_the_wait() -> Result<()> {
    let app = limited_app().await?;
    let free = tenant(&app, "free").await?;
    let (first, second) = (app.client(&key(&app, free).await?), app.client(&key(&app, free).await?));
    let mut refused = None;
    for _ in 0..60 {
        refused = Some(first.get(COUNTED).await?).filter(|answer| answer.status == 429);
    }
    let refused = refused.context("the burst is not limited")?;
    assert_eq!(refused.problem(429, "rate_limited")["violated-policies"], json!(["burst"]));
    let (wait, retry) = (state(&refused)?[0].2, refused.header("retry-after").parse::<u64>()?);
    assert!(retry >= wait && retry <= wait + wait / 10 + 1, "{retry} for {wait}");
    // Another credential of the tenant has its own burst and the same hour.
    let answer = second.get(COUNTED).await?;
    answer.ok(200);
    let state = state(&answer)?;
    assert_eq!(state[0].1, 49);
    assert!(state[1].1 < 50, "{state:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_a_day_is_a_problem_of_its_own() -> Result<()> {
    let app = limited_app().await?;
    let free = tenant(&app, "free").await?;
    let api = app.client(&key(&app, free).await?);
    api.get(COUNTED).await?.ok(200);
    let mut redis = tests::redis_server::connect(&app.system.redis_url).await?;
    let daily = keys::rate_limit(&app.system.prefix, &free.to_string(), "daily");
    let (): () = redis::cmd("HSET").arg(&daily).arg("used").arg(9_999).query_async(&mut redis).await?;
    api.get(COUNTED).await?.ok(200);
    let refused = api.get(COUNTED).await?;
    assert_eq!(refused.problem(429, "quota_exceeded")["violated-policies"], json!(["daily"]));
    let (wait, retry) = (state(&refused)?[2].2, refused.header("retry-after").parse::<u64>()?);
    assert!(retry >= wait && retry <= wait + wait / 10 + 1, "{retry} for {wait}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_tier_has_effect_within_five_seconds() -> Result<()> {
    let app = limited_app().await?;
    let acme = tenant(&app, "professional").await?;
    let api = app.client(&key(&app, acme).await?);
    assert_eq!(policies(&api.get(COUNTED).await?)?[1].1, 1_000);
    set_tier(&app, acme, "enterprise").await?;
    let answer = eventually(EFFECT, "the hour is that of the tier", async || {
        let answer = api.get(COUNTED).await.ok()?;
        (policies(&answer).ok()?[1].1 == 10_000).then_some(answer)
    })
    .await;
    assert_eq!(policies(&answer)?.len(), 2, "the day is not limited");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_limits_nothing_is_counted() -> Result<()> {
    let app = TestApp::on(TestSystem::start().await?).await?;
    let api = app.client(&key(&app, tenant(&app, "free").await?).await?);
    for _ in 0..120 {
        let answer = api.get("/api/v1/usage").await?;
        assert_eq!(answer.ok(200)["requests"], json!([]));
        assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), ("", ""));
    }
    let mut redis = tests::redis_server::connect(&app.system.redis_url).await?;
    let counted: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:rate:*", app.system.prefix)).query_async(&mut redis).await?;
    assert_eq!(counted, Vec::<String>::new());
    Ok(())
}
