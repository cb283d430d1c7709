//! Within a shard, fairness is as in an unsplit queue; a flooded shard takes no more than its share
//! from the others.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{
        Settlement,
        limits::{QueueScope, ledger::LimitRow},
    },
    tenancy::TenantId,
};
use tests::{http_sink::HttpSink, system::TestSystem};

use super::{SPLIT, Scene, tenants_of_each};
use crate::queue::support::{LEASE, PATIENCE, callback, indexed, queue};

async fn enqueue(system: &TestSystem, tenant: TenantId, jobs: usize) -> Result<()> {
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    Ok(())
}

/// Leases and settles manually, so that the measurement does not depend on the machine. Of the two
/// tenants of one shard, one has jobs of 5 ms and the other of 20 ms; a tenant of another shard has
/// ten times their work, and more is fetched from its shard.
async fn served_beside_a_flood(weights: [i32; 2]) -> Result<[u64; 2]> {
    let scene = Scene::new(2).await?;
    let (here, flooder) = (&scene.tenants[0], scene.tenants[1][0]);
    for (tenant, weight) in here.iter().zip(weights) {
        let row = LimitRow { weight: Some(weight), ..LimitRow::default() };
        scene.limiter.limit_tenant(*tenant, &QueueScope::One(queue()), &row, true, &[queue()]).await?;
        enqueue(&scene.system, *tenant, 250).await?;
    }
    enqueue(&scene.system, flooder, 2_000).await?;
    indexed(&scene.system, 2_500).await;
    let length_ms = |tenant| if tenant == here[0] { 5 } else { 20 };
    let mut served_ms: HashMap<TenantId, u64> = HashMap::new();
    for _ in 0..100 {
        for (shard, wanted) in [(0, 2), (1, 10)] {
            let leases = scene.fetch(shard, wanted).await?;
            let ended = leases.iter().map(|lease| {
                *served_ms.entry(lease.tenant).or_default() += length_ms(lease.tenant);
                let ran = Some(Duration::from_millis(length_ms(lease.tenant)));
                Settlement { ran, again: None, ..lease.release() }
            });
            scene.system.index.settle(&scene.shards[shard], &ended.collect::<Vec<_>>()).await?;
        }
    }
    assert_eq!(served_ms[&flooder], 20_000, "the flood was served the whole time");
    Ok([served_ms[&here[0]], served_ms[&here[1]]])
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a short simulation")]
fn assert_ratio([first, second]: [u64; 2], wanted: f64) {
    let ratio = second as f64 / first as f64;
    assert!((wanted * 0.85..wanted * 1.15).contains(&ratio), "{first} and {second} ms: {ratio}, not {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_one_shard_get_equal_shares_while_another_is_flooded() -> Result<()> {
    assert_ratio(served_beside_a_flood([1, 1]).await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_hold_inside_a_shard_while_another_is_flooded() -> Result<()> {
    assert_ratio(served_beside_a_flood([1, 3]).await?, 3.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_a_quiet_shard_beside_a_flooded_one() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let sink = HttpSink::start().await?;
    let tenants = tenants_of_each(&system, 1).await?.concat();
    let _scheduler = system.scheduler();
    let flood = 800;
    let job = |_| system.job(tenants[0], "sleep", &json!({ "ms": 10 }));
    system.enqueue((0..flood).map(job).collect()).await?;
    indexed(&system, flood).await;
    let worker = system.worker(4, LEASE);
    for (at, tenant) in tenants.iter().enumerate().skip(1) {
        let quiet = (0..10).map(|job| callback(&system, *tenant, &sink, &format!("{at} {job}")));
        system.enqueue(quiet.collect()).await?;
    }
    sink.wait_total(30, PATIENCE).await;
    let left = system.index.depth(&queue()).await?.available;
    assert!(left > flood / 2, "only {left} of the flood's {flood} were left when the quiet tenants had been served");
    worker.stop().await
}
