//! The invariants of the index: violations are found, counted and repaired, and no job is affected.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shared::{
    queue::{
        CancelledJob, Priority, WaitingJob, control,
        dispatch::Consumer,
        limits::{Limiter, QueueScope, ledger::LimitRow},
        repair::check::{Checker, Extent, Invariant, Violation},
    },
    tenancy::TenantId,
};
use tests::{
    eventually::eventually,
    free_port::free_port,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};
use uuid::Uuid;

use crate::queue::support::{
    LEASE, Ledger, PATIENCE,
    bare_engine::{commit, indexed_and_free, leased_count, rescue_all, scene},
    callback, index_holds, indexed, queue, redis, root, scheduler_spec, shard,
};

/// The lease given by a repair to a job that is held without one.
const REPAIR_LEASE: Duration = Duration::from_millis(600);

fn checker(system: &TestSystem, lease: Duration) -> Checker {
    Checker::new(system.system.clone(), system.index.clone(), lease)
}

async fn check(system: &TestSystem, repairs: bool) -> Result<Vec<Violation>> {
    Ok(checker(system, LEASE).check(&queue(), Extent::Sample, repairs).await?)
}

fn invariants(violations: &[Violation]) -> Vec<Invariant> {
    let mut found: Vec<Invariant> = violations.iter().map(|violation| violation.invariant).collect();
    found.sort_by_key(|invariant| invariant.name());
    found.dedup();
    found
}

async fn command(system: &TestSystem, command: &str, key: &str, arguments: &[&[u8]]) -> Result<()> {
    let mut sent = redis::cmd(command);
    sent.arg(format!("{}:{key}", root(system)));
    for argument in arguments {
        sent.arg(*argument);
    }
    Ok(sent.exec_async(&mut redis(system).await?).await?)
}

fn flow(tenant: TenantId) -> Vec<u8> {
    [b"flow:".as_slice(), tenant.as_uuid().as_bytes()].concat()
}

async fn delete(system: &TestSystem, key: &[u8]) -> Result<()> {
    let key = [root(system).as_bytes(), b":", key].concat();
    Ok(redis::cmd("DEL").arg(key).exec_async(&mut redis(system).await?).await?)
}

/// Bypasses the scripts, which would first check for a holder.
async fn put_in_flow(system: &TestSystem, tenant: TenantId, member: &[u8]) -> Result<()> {
    let key = [root(system).as_bytes(), b":", &flow(tenant)].concat();
    redis::cmd("ZADD").arg(key).arg("0").arg(member).exec_async(&mut redis(system).await?).await?;
    command(system, "ZADD", "active", &[b"0", tenant.as_uuid().as_bytes()]).await
}

/// With running, waiting, scheduled and throttled jobs: one round of the leader repairs what the
/// holders of leases cannot.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_any_key_is_repaired_without_a_crash() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    let (tenant, capped) = (system.tenant("acme").await?, system.tenant("capped").await?);
    let _scheduler = system.scheduler();
    let limiter = Limiter::new(system.system.clone(), system.index.clone());
    let cap = LimitRow { max_running: Some(1), ..LimitRow::default() };
    limiter.limit_tenant(capped, &QueueScope::All, &cap, false, &[queue()]).await?;
    indexed(&system, 0).await;
    let _worker = system.worker(3, LEASE);
    let keys: [(&str, Vec<u8>); 9] = [
        ("leases", b"leases".to_vec()),
        ("held", b"held".to_vec()),
        ("running", b"running".to_vec()),
        ("active", b"active".to_vec()),
        ("throttled", b"throttled".to_vec()),
        ("due", b"due".to_vec()),
        ("vtimes", b"vtimes".to_vec()),
        ("costs", b"costs".to_vec()),
        ("flow", flow(tenant)),
    ];
    let mut expected = 0;
    for (name, key) in keys {
        let held = [format!("{name}-a"), format!("{name}-b"), format!("{name}-c")];
        for (token, of) in held.iter().zip([tenant, tenant, capped]) {
            sink.set(token, Behaviour::Hang);
            system.enqueue(vec![callback(&system, of, &sink, token)]).await?;
            sink.wait_for(token, PATIENCE).await;
        }
        let waiting = [format!("{name}-1"), format!("{name}-2"), format!("{name}-3"), format!("{name}-4")];
        for (token, of) in waiting.iter().zip([tenant, tenant, capped, tenant]) {
            let mut job = callback(&system, of, &sink, token);
            job.run_at = token.ends_with('4').then(|| system.clock.now() + Duration::from_secs(2));
            system.enqueue(vec![job]).await?;
        }
        delete(&system, &key).await?;
        let found = check(&system, true).await?;
        // Other keys may have been repaired by a renewal or the crawl already.
        assert!(name != "running" || invariants(&found).contains(&Invariant::RunningCount), "{found:?}");
        // While all jobs run and wait: holders assert lost leases, and further jobs of their
        // tenants are counted in addition.
        index_holds(&system).await;
        for token in &held {
            sink.release(token);
        }
        for token in held.iter().chain(&waiting) {
            sink.wait_for(token, PATIENCE).await;
            assert_eq!(sink.count(token), 1, "{token} ran once");
        }
        expected += 7;
        assert_eq!(Ledger::open(&system).await?.completed(expected).await, expected, "{name}: no attempt is used");
    }
    index_holds(&system).await;
    Ok(())
}

/// Members that are neither job, tenant nor worker are skipped by the scripts and removed by the
/// leader.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_any_key_costs_no_attempt() -> Result<()> {
    let (system, tenant) = scene().await?;
    let ids = commit(&system, tenant, 20).await?;
    indexed_and_free(&system, 20).await;
    let (text, id): (&[u8], Uuid) = (b"garbage", shared::ids::new_id(&system.clock));
    let long = [7; 40];
    for member in [text, &long, b"", id.as_bytes()] {
        put_in_flow(&system, tenant, member).await?;
    }
    for key in ["active", "throttled", "due", "leases", "watched", "workers"] {
        command(&system, "ZADD", key, &[b"0", text]).await?;
        command(&system, "ZADD", key, &[b"inf", &long]).await?;
    }
    for (key, value) in [("held", text), ("running", text), ("vtimes", text), ("costs", text), ("buckets", text)] {
        command(&system, "HSET", key, &[text, value]).await?;
        command(&system, "HSET", key, &[id.as_bytes(), value]).await?;
    }
    command(&system, "HSET", "vtimes", &[tenant.as_uuid().as_bytes(), text]).await?;
    command(&system, "HSET", "running", &[tenant.as_uuid().as_bytes(), text]).await?;
    command(&system, "HSET", "costs", &[tenant.as_uuid().as_bytes(), text]).await?;
    command(&system, "HSET", "limits", &[tenant.as_uuid().as_bytes(), text]).await?;

    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let mut got = Vec::new();
    for _ in 0..10 {
        got.extend(consumer.fetch(&shard(), 7).await?.leases);
    }
    assert_eq!(got.len(), ids.len(), "all valid jobs are leased");
    assert!(got.iter().all(|lease| lease.attempt == 1));
    let found = invariants(&check(&system, true).await?);
    assert!(found.contains(&Invariant::Garbage) && found.contains(&Invariant::RunningCount), "{found:?}");
    assert_eq!(invariants(&check(&system, true).await?), [], "one round repairs everything");
    assert_eq!(leased_count(&system).await?, 20, "the repair ends no lease");
    Ok(())
}

/// The holder is dead, and the index has lost either the expiry of its lease or the holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_half_a_lease_is_rescued() -> Result<()> {
    let (system, tenant) = scene().await?;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), REPAIR_LEASE);
    for (key, expected) in [("leases", Invariant::HeldWithoutLease), ("held", Invariant::LeaseWithoutHolder)] {
        let id = commit(&system, tenant, 1).await?[0];
        indexed_and_free(&system, 1).await;
        consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits")?;
        delete(&system, key.as_bytes()).await?;
        let waiting = WaitingJob { id, tenant, priority: Priority::DEFAULT, run_at_ms: None };
        system.index.push(&queue(), &[waiting]).await?;
        assert_eq!(consumer.fetch(&shard(), 1).await?.leases.len(), 0, "its holder may be alive");
        put_in_flow(&system, tenant, id.as_bytes()).await?;
        assert_eq!(
            consumer.fetch(&shard(), 1).await?.leases.len(),
            0,
            "its holder may be alive although the job is in a flow"
        );
        let found = checker(&system, REPAIR_LEASE).check(&queue(), Extent::Sample, true).await?;
        assert!(invariants(&found).contains(&expected), "{found:?}");
        let rescued = async || (rescue_all(&system).await.ok()?.rescued == 1).then_some(());
        eventually(PATIENCE, "its lease expires", rescued).await;
        let again = consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits again")?;
        assert_eq!((again.id, again.attempt), (id, 2), "the attempt is raised, which refuses the old holder's finish");
        system.index.settle(&shard(), &[again.release()]).await?;
        let mut owner = Ledger::open(&system).await?;
        sqlx::query("delete from jobs").execute(&mut owner.0).await?;
        assert_eq!(consumer.fetch(&shard(), 1).await?.leases.len(), 0);
    }
    Ok(())
}

/// A leaked running count together with a cap set later must not block the tenant forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_count_does_not_throttle_for_ever() -> Result<()> {
    let (system, tenant) = scene().await?;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    command(&system, "HSET", "running", &[tenant.as_uuid().as_bytes(), b"36"]).await?;
    command(&system, "HSET", "limits", &[tenant.as_uuid().as_bytes(), b"1 3 0 0 0"]).await?;
    commit(&system, tenant, 5).await?;
    indexed_and_free(&system, 5).await;
    assert_eq!(consumer.fetch(&shard(), 5).await?.leases.len(), 0, "the tenant is throttled");
    let found = invariants(&check(&system, true).await?);
    assert_eq!(found, [Invariant::RunningCount, Invariant::ThrottledWithoutReason]);
    assert_eq!(consumer.fetch(&shard(), 5).await?.leases.len(), 3, "as many as its cap allows");
    assert_eq!(invariants(&check(&system, false).await?), []);
    Ok(())
}

/// Both directions: waiting jobs missing in the index, and index entries of jobs that do not wait.
#[tokio::test(flavor = "multi_thread")]
async fn index_and_ledger_are_compared_in_both_directions() -> Result<()> {
    let (system, tenant) = scene().await?;
    let ids = commit(&system, tenant, 3).await?;
    indexed_and_free(&system, 3).await;
    assert_eq!(checker(&system, LEASE).check(&queue(), Extent::Whole, false).await?, []);
    let cancelled = CancelledJob { id: ids[0], tenant, priority: Priority::DEFAULT, attempt: 1 };
    system.index.cancel(&queue(), &[cancelled]).await?;
    let unknown =
        WaitingJob { id: shared::ids::new_id(&system.clock), tenant, priority: Priority::DEFAULT, run_at_ms: None };
    system.index.push(&queue(), &[unknown]).await?;
    let found = checker(&system, LEASE).check(&queue(), Extent::Whole, true).await?;
    assert_eq!(invariants(&found), [Invariant::NotInIndex, Invariant::NotWaiting]);
    let about: Vec<&str> = found.iter().map(|violation| violation.about.as_str()).collect();
    assert!(about.contains(&ids[0].to_string().as_str()) && about.contains(&unknown.id.to_string().as_str()));
    assert_eq!(checker(&system, LEASE).check(&queue(), Extent::Whole, false).await?, [], "one round repairs both");
    Ok(())
}

/// The push of a job may arrive after its cancellation.
#[tokio::test(flavor = "multi_thread")]
async fn samples_find_the_entry_of_a_cancelled_job_in_a_long_flow() -> Result<()> {
    let (system, tenant) = scene().await?;
    let ids = commit(&system, tenant, 1_500).await?;
    indexed_and_free(&system, 1_500).await;
    let mut transaction = system.tenants.begin(tenant).await?;
    control::cancel(&mut transaction, ids[700]).await?;
    transaction.commit().await?;
    let mut checker = checker(&system, LEASE);
    let mut found = Vec::new();
    // A sample reads about 250 of the flow's jobs.
    for _ in 0..8 {
        found.extend(checker.check(&queue(), Extent::Sample, true).await?);
    }
    assert_eq!(invariants(&found), [Invariant::NotWaiting]);
    assert_eq!(found[0].about, ids[700].to_string());
    assert_eq!(checker.check(&queue(), Extent::Whole, false).await?, []);
    Ok(())
}

/// Jobs may be committed faster than they can be pushed: one that reaches the index while the check
/// looks again is not drift, one that does not is.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_being_pushed_is_no_drift() -> Result<()> {
    let (system, tenant) = scene().await?;
    let ids = commit(&system, tenant, 5).await?;
    indexed_and_free(&system, 5).await;
    let cancelled = |id: &Uuid| CancelledJob { id: *id, tenant, priority: Priority::DEFAULT, attempt: 1 };
    system.index.cancel(&queue(), &ids.iter().map(cancelled).collect::<Vec<_>>()).await?;
    let (lost, late) = ids.split_last().context("five")?;
    let (mut checker, queue) = (checker(&system, LEASE), queue());
    let push_late = async {
        for id in late {
            // Slow pushes: some arrive while the check waits for jobs that are under way.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let job = WaitingJob { id: *id, tenant, priority: Priority::DEFAULT, run_at_ms: None };
            system.index.push(&queue, &[job]).await?;
        }
        anyhow::Ok(())
    };
    let (found, pushed) = tokio::join!(checker.check(&queue, Extent::Whole, false), push_late);
    pushed?;
    let found: Vec<_> = found?.into_iter().map(|violation| (violation.invariant, violation.about)).collect();
    assert_eq!(found, [(Invariant::NotInIndex, lost.to_string())]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_repairs_and_counts_drift() -> Result<()> {
    let (system, tenant) = scene().await?;
    let port = free_port()?;
    let metrics = format!("http://127.0.0.1:{port}/metrics");
    let spec = scheduler_spec(&system)?.env("METRICS_PORT", port.to_string()).env("ROTA_RECONCILE_MS", "50");
    let _leader = spec.start()?;
    command(&system, "HSET", "running", &[tenant.as_uuid().as_bytes(), b"7"]).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let counted = async || {
        let text = client.get(&metrics).send().await.ok()?.text().await.ok()?;
        let line = text.lines().find(|line| line.starts_with("rota_index_drift_total{invariant=\"running_count\"}"))?;
        line.ends_with(" 1").then_some(())
    };
    eventually(PATIENCE, "the drift is counted", counted).await;
    index_holds(&system).await;
    Ok(())
}
