//! Slow links: messages are late, nothing else fails, and every job runs once.
//!
//! `tests/examples/latency.rs` is the same at full size.

use std::time::Duration;

use anyhow::Result;
use tests::{
    installation::{Installation, InstallationOptions},
    latency::{SlowLinks, round},
    tcp_proxy::Mode,
};

const DELAYS_MS: [u64; 4] = [1, 5, 20, 50];
/// Jobs per round.
const JOBS: usize = 4;
const RUN: Duration = Duration::from_millis(30);

async fn installation() -> Result<Installation> {
    // The default: no lease expires because the machine is busy.
    let env = vec![("ROTA_LEASE_MS", "30000".to_owned())];
    Installation::start_with(InstallationOptions { workers: 2, env, ..InstallationOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_any_slow_link_every_effect_happens_once() -> Result<()> {
    let rota = installation().await?;
    let mut slow = SlowLinks::new(&rota).await?;
    for link in 0..rota.links.all().len() {
        for delay_ms in DELAYS_MS {
            let (name, proxy) = rota.links.all()[link];
            proxy.set(Mode::Delay(Duration::from_millis(delay_ms)));
            round(&mut slow, &format!("{name}-{delay_ms}"), JOBS, RUN).await?;
            proxy.set(Mode::Pass);
        }
    }
    slow.ensure_once().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_links_slow_or_one_very_slow_every_effect_happens_once() -> Result<()> {
    let rota = installation().await?;
    let mut slow = SlowLinks::new(&rota).await?;
    rota.links.set_all(Mode::Delay(Duration::from_millis(20)));
    round(&mut slow, "all-20", 2 * JOBS, RUN).await?;
    rota.links.set_all(Mode::Pass);
    rota.links.worker.redis.set(Mode::Delay(Duration::from_millis(400)));
    round(&mut slow, "worker-redis-400", 2 * JOBS, RUN).await?;
    rota.links.set_all(Mode::Pass);
    slow.ensure_once().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_stalls_every_effect_happens_once() -> Result<()> {
    let mut rota = installation().await?;
    let mut slow = SlowLinks::new(&rota).await?;
    let before = slow.enqueue("before", JOBS, RUN).await?;
    rota.redis.pause()?;
    let meanwhile = slow.enqueue("meanwhile", JOBS, RUN).await?;
    // The stall.
    tokio::time::sleep(Duration::from_secs(5)).await;
    rota.redis.resume()?;
    for token in before.iter().chain(&meanwhile) {
        slow.arrives(token).await;
    }
    slow.ensure_once().await
}
