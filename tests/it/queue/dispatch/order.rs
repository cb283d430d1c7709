//! The order of dispatch: priorities within a tenant, fairness between tenants.

use std::time::Duration;

use anyhow::Result;
use shared::queue::{NewJob, Priority};
use tests::{
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use crate::queue::support::{LEASE, Ledger, PATIENCE, callback, indexed, tokens};

/// Too long for fetching ahead, so jobs are leased one by one.
const UNHURRIED: Behaviour = Behaviour::Delay(Duration::from_millis(20));

#[tokio::test(flavor = "multi_thread")]
async fn priorities_order_the_jobs_of_a_tenant() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set_default(UNHURRIED);
    let tenant = system.tenant("acme").await?;
    for priority in [3, 4, 1, 2, 1] {
        let mut job = callback(&system, tenant, &sink, &priority.to_string());
        job.priority = Priority::new(priority).expect("1 to 4");
        system.enqueue(vec![job]).await?;
    }
    let _scheduler = system.scheduler();
    indexed(&system, 5).await;
    let _worker = system.worker(1, LEASE);
    sink.wait_total(5, PATIENCE).await;
    assert_eq!(tokens(&sink), ["1", "1", "2", "3", "4"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_does_not_wait_for_another_tenants_backlog() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set_default(UNHURRIED);
    let (many, few) = (system.tenant("many").await?, system.tenant("few").await?);
    let mut urgent: Vec<_> = (0..200).map(|_| callback(&system, many, &sink, "many")).collect();
    // Priorities count only within a tenant.
    for job in &mut urgent {
        job.priority = Priority::new(1).expect("1 to 4");
    }
    system.enqueue(urgent).await?;
    system.enqueue(vec![callback(&system, few, &sink, "few")]).await?;
    let _scheduler = system.scheduler();
    indexed(&system, 201).await;
    let worker = system.worker(1, LEASE);
    sink.wait_for("few", PATIENCE).await;
    let served = tokens(&sink);
    let turn = served.iter().position(|token| token == "few").unwrap_or(usize::MAX);
    assert!(turn <= 3, "served as number {} of {}", turn + 1, served.len());
    worker.stop().await
}

/// Zero values of clients' time types are much earlier than 1970.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_1970_is_due_at_once_and_keeps_its_priority() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let sink = HttpSink::start().await?;
    let _scheduler = system.scheduler();
    for token in ["first", "second", "third"] {
        sink.set(token, UNHURRIED);
    }
    let job = |token: &str, priority: i16, run_at: &str| -> Result<NewJob> {
        let mut job = callback(&system, tenant, &sink, token);
        job.priority = priority.try_into().map_err(anyhow::Error::msg)?;
        job.run_at = Some(run_at.parse()?);
        Ok(job)
    };
    let jobs = vec![
        job("third", 3, "1969-12-31T23:59:59Z")?,
        job("second", 2, "1960-01-01T00:00:00Z")?,
        job("first", 1, "0001-01-01T00:00:00Z")?,
    ];
    system.enqueue(jobs).await?;
    indexed(&system, 3).await;
    let _worker = system.worker(1, LEASE);
    sink.wait_total(3, PATIENCE).await;
    assert_eq!(tokens(&sink), ["first", "second", "third"]);
    assert_eq!(Ledger::open(&system).await?.completed(3).await, 3, "no job was lost and rescued");
    Ok(())
}
