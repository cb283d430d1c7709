//! The shared counters are exact: concurrent requests, edges of windows, several policies.

use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::TimeDelta;
use futures::future::{join_all, try_join_all};
use shared::{
    clock::ManualClock,
    rate_limit::{
        Subject,
        policy::{Algorithm, Policy},
    },
};
use tests::{
    system::TestSystem,
    test_app::{Answer, ApiClient},
};

use super::{COUNTED, key, limited_app, limiter, tenant};

const REQUESTS: usize = 2_000;

fn policy(name: &'static str, algorithm: Algorithm, limit: u32, window: Duration) -> Policy {
    Policy { name, algorithm, limit, window }
}

/// The hour of the tier `free` is 100 requests. Each of the four keys may send 50 of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_2000_concurrent_requests_over_two_apis_100_pass() -> Result<()> {
    let app = limited_app().await?;
    let (other, _stop) = app.another_api().await?;
    let free = tenant(&app, "free").await?;
    let keys = try_join_all((0..4).map(|_| key(&app, free))).await?;
    let clients: Vec<_> = keys.iter().flat_map(|key| [app.client(key), other.with_key(key)]).collect();
    let requests = clients.iter().cycle().take(REQUESTS).map(async |client| counted(client).await);
    let mut passed = 0;
    for answer in join_all(requests).await {
        let answer = answer?;
        if answer.status == 200 {
            passed += 1;
        } else {
            answer.problem(429, "rate_limited");
        }
    }
    assert_eq!(passed, 100);
    Ok(())
}

/// The response to a request that was counted. With so many requests on a small machine, some wait
/// for too long until their credential is looked up, and are refused before they are counted.
async fn counted(client: &ApiClient) -> Result<Answer> {
    loop {
        let answer = client.get(COUNTED).await?;
        if answer.status != 503 {
            return Ok(answer);
        }
    }
}

/// Requests that were admitted, each with the time before it was sent and after its response.
async fn admitted_within(system: &TestSystem, policy: Policy, span: Duration) -> Result<Vec<(Instant, Instant)>> {
    let (limiter, _stop) = limiter(system)?;
    let subject = Subject::with(policy.name.to_owned(), &[policy]);
    let (begun, mut admitted) = (Instant::now(), Vec::new());
    while begun.elapsed() < span {
        let before = Instant::now();
        if limiter.admit(&subject).await.violated().next().is_none() {
            admitted.push((before, Instant::now()));
        }
    }
    Ok(admitted)
}

/// The most admissions that certainly happened within a span of this length.
fn most_within(admitted: &[(Instant, Instant)], window: Duration) -> usize {
    let certain = |from: usize| {
        let until = admitted[from].0 + window;
        admitted[from..].iter().take_while(|(_, after)| *after <= until).count()
    };
    (0..admitted.len()).map(certain).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sliding_window_contains_more_than_the_limit() -> Result<()> {
    let system = TestSystem::start().await?;
    let window = Duration::from_millis(900);
    let policy = policy("sliding", Algorithm::SlidingWindow, 20, window);
    let admitted = admitted_within(&system, policy, window * 5).await?;
    assert_eq!(most_within(&admitted, window), 20);
    assert!(admitted.len() >= 60, "{} in five windows", admitted.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_admits_its_size_and_what_flows_in() -> Result<()> {
    let system = TestSystem::start().await?;
    let window = Duration::from_millis(900);
    let policy = policy("bucket", Algorithm::TokenBucket, 20, window);
    let admitted = admitted_within(&system, policy, window * 3).await?;
    assert!(most_within(&admitted, window) <= 40, "{}", most_within(&admitted, window));
    assert!(most_within(&admitted, window / 20) <= 22, "the size at once");
    assert!((60..=81).contains(&admitted.len()), "{} in three windows", admitted.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_window_is_renewed_at_its_edge() -> Result<()> {
    let system = TestSystem::start().await?;
    let window = Duration::from_secs(1);
    let policy = policy("fixed", Algorithm::FixedWindow, 20, window);
    let admitted = admitted_within(&system, policy, window * 3).await?;
    assert!((60..=80).contains(&admitted.len()), "{} in three to four windows", admitted.len());
    assert!(most_within(&admitted, window) <= 40);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_consumes_nothing_of_other_policies() -> Result<()> {
    let system = TestSystem::start().await?;
    let (limiter, _stop) = limiter(&system)?;
    let hour = Duration::from_hours(1);
    for (number, algorithm) in
        [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket].into_iter().enumerate()
    {
        let wide = policy("wide", algorithm, 100, hour);
        let narrow = policy("narrow", algorithm, 5, hour);
        let tag = format!("tag-{number}");
        let both = Subject::with(tag.clone(), &[wide, narrow]);
        let mut admitted = 0;
        for _ in 0..20 {
            let decision = limiter.admit(&both).await;
            let refusing: Vec<_> = decision.violated().map(|state| state.policy.name).collect();
            admitted += usize::from(refusing.is_empty());
            assert!(refusing.is_empty() || refusing == ["narrow"], "{refusing:?}");
        }
        assert_eq!(admitted, 5, "{algorithm:?}");
        let decision = limiter.admit(&Subject::with(tag, &[wide])).await;
        assert_eq!(decision.policies()[0].remaining, 100 - 5 - 1, "{algorithm:?}");
    }
    Ok(())
}

/// The time is that of Redis.
#[tokio::test(flavor = "multi_thread")]
async fn apis_whose_clocks_differ_decide_alike() -> Result<()> {
    let mut app = limited_app().await?;
    app.system.clock = ManualClock::new(app.system.clock.now() + TimeDelta::days(1)).clock();
    let (other, _stop) = app.another_api().await?;
    let key = key(&app, tenant(&app, "free").await?).await?;
    let (here, there) = (app.client(&key), other.with_key(&key));
    for _ in 0..25 {
        here.get(COUNTED).await?.ok(200);
        there.get(COUNTED).await?.ok(200);
    }
    let mut waits = Vec::new();
    for client in [&here, &there] {
        let answer = client.get(COUNTED).await?;
        if answer.status == 429 {
            assert_eq!(answer.problem(429, "rate_limited")["violated-policies"], serde_json::json!(["burst"]));
        }
        let daily = answer.header("ratelimit").rsplit("t=").next().unwrap_or_default().parse::<i64>()?;
        waits.push(daily);
    }
    assert!(waits[0].abs_diff(waits[1]) <= 2, "seconds until the end of the day: {waits:?}");
    Ok(())
}
