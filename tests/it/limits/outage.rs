//! Without Redis each API admits its share, and no request waits for Redis.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use shared::{rate_limit::RateLimitSettings, tenancy::TenantId};
use tests::{
    eventually::eventually,
    system::TestSystem,
    tcp_proxy::{Mode, TcpProxy},
    test_app::{ApiClient, AppLimits, TestApp},
};
use tokio_util::sync::DropGuard;

use super::{ANONYMOUS, COUNTED, key, limits, tenant};

const PATIENCE: Duration = Duration::from_secs(30);
/// What a request may take longer because of Redis.
const DELAY: Duration = Duration::from_millis(200);

/// Two APIs that know of each other.
struct Scene {
    app: TestApp,
    other: ApiClient,
    proxy: TcpProxy,
    tenant: TenantId,
    _stop: DropGuard,
}

impl Scene {
    async fn new() -> Result<Self> {
        let mut system = TestSystem::start().await?;
        let direct = system.redis_url.clone();
        let (url, proxy) = TcpProxy::before(&direct).await?;
        system.redis_url = url;
        system.index = system.index_split("")?;
        let limits = AppLimits { rate_settings: RateLimitSettings::default(), ..limits() };
        let app = TestApp::with(system, limits).await?;
        let (other, stop) = app.another_api().await?;
        let tenant = tenant(&app, "free").await?;
        let mut redis = tests::redis_server::connect(&direct).await?;
        let apis = format!("{}:apis", app.system.prefix);
        eventually(PATIENCE, "both APIs are known", async || {
            let known: u32 = redis::cmd("ZCARD").arg(&apis).query_async(&mut redis).await.ok()?;
            (known == 2).then_some(())
        })
        .await;
        // Each API reads the number every two seconds.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        Ok(Self { app, other, proxy, tenant, _stop: stop })
    }
}

/// Sends requests one after the other; how many passed, and the longest time.
async fn passed(client: &ApiClient, requests: usize) -> Result<(usize, Duration)> {
    let (mut passed, mut longest) = (0, Duration::ZERO);
    for _ in 0..requests {
        let begun = Instant::now();
        let answer = client.get(COUNTED).await?;
        longest = longest.max(begun.elapsed());
        passed += usize::from(answer.status == 200);
    }
    Ok((passed, longest))
}

async fn each_api_admits_its_share(mode: Mode) -> Result<()> {
    let scene = Scene::new().await?;
    let keys = [key(&scene.app, scene.tenant).await?, key(&scene.app, scene.tenant).await?];
    let here = keys.each_ref().map(|key| scene.app.client(key));
    let there = scene.other.with_key(&keys[0]);
    let mut usual = Duration::ZERO;
    for client in here.iter().chain([&there]) {
        // The credential is read from the ledger.
        passed(client, 1).await?;
        usual = usual.max(passed(client, 5).await?.1);
    }
    scene.proxy.set(mode);
    let (first, second, other) = (passed(&here[0], 60).await?, passed(&here[1], 60).await?, passed(&there, 60).await?);
    for (_, longest) in [first, second, other] {
        assert!(longest < usual + DELAY, "{longest:?} instead of {usual:?}");
    }
    // Half of the hour of 100 is for each API, and half of that at once.
    for (what, passed) in [("both keys", first.0 + second.0), ("the other API", other.0)] {
        assert!((24..=27).contains(&passed), "{what} passed {passed} times");
    }
    let mut anonymous = 0;
    for _ in 0..40 {
        let answer = scene.app.anonymous().post(ANONYMOUS, &json!({ "token": "x" })).await?;
        anonymous += usize::from(answer.status == 200);
    }
    assert!((12..=14).contains(&anonymous), "anonymous clients passed {anonymous} times");
    scene.proxy.set(Mode::Pass);
    // The shared counters saw 18 requests of the hour.
    eventually(PATIENCE, "the shared counters decide", async || {
        (there.get(COUNTED).await.ok()?.status == 200).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_api_admits_its_share_while_redis_is_gone() -> Result<()> {
    each_api_admits_its_share(Mode::Reset).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_api_admits_its_share_while_redis_stalls() -> Result<()> {
    each_api_admits_its_share(Mode::Blackhole).await
}
