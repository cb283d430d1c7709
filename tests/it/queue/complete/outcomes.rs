//! The outcome of a job that succeeds, fails, or panics.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use tests::system::TestSystem;

use crate::queue::support::{LEASE, Ledger, errors, reaches};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_is_completed() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    let job = reaches(&system, tenant, id, "completed").await;
    assert_eq!((job.attempt, job.errors), (1, None));
    assert!(job.finalized_at.is_some());
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_runs_are_retried_after_a_pause_until_one_succeeds() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(4, LEASE));
    let id = system.enqueue(vec![system.job(tenant, "fail", &json!({ "times": 2 }))]).await?[0];
    let job = reaches(&system, tenant, id, "completed").await;
    assert_eq!(errors(&job), ["failure 1 of 2, as requested", "failure 2 of 2, as requested"]);
    let row = Ledger::open(&system).await?.row(id).await?;
    assert_eq!(row.attempt, 3);
    assert_eq!(row.failures, 2);
    assert_eq!(row.crashes, 0);

    let at = |run: usize| -> Result<DateTime<chrono::FixedOffset>> {
        let errors = job.errors.as_ref().context("there were errors")?;
        Ok(DateTime::parse_from_rfc3339(errors[run]["at"].as_str().context("a time")?)?)
    };
    assert!(at(1)? - at(0)? >= TimeDelta::milliseconds(100), "the kind requests a delay of 100 ms");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_discarded_after_its_last_attempt() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(4, LEASE));
    let mut job = system.job(tenant, "fail", &json!({ "times": 10 }));
    job.max_attempts = 2;
    let id = system.enqueue(vec![job]).await?[0];
    let job = reaches(&system, tenant, id, "discarded").await;
    assert_eq!(errors(&job), ["failure 1 of 10, as requested", "failure 2 of 10, as requested"]);
    assert!(job.finalized_at.is_some());
    assert_eq!(Ledger::open(&system).await?.row(id).await?.failures, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_the_attempt_and_not_the_worker() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    let mut job = system.job(tenant, "panic", &json!({}));
    job.max_attempts = 1;
    let id = system.enqueue(vec![job]).await?[0];
    let job = reaches(&system, tenant, id, "discarded").await;
    assert_eq!(errors(&job), ["panicked: the test-only kind `panic` was run"]);
    let next = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    reaches(&system, tenant, next, "completed").await;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_invalid_arguments_is_discarded_at_once() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let id = system.enqueue(vec![system.job(tenant, "sleep", &json!({ "ms": "soon" }))]).await?[0];
    let job = reaches(&system, tenant, id, "discarded").await;
    assert_eq!(job.attempt, 1);
    assert!(errors(&job)[0].starts_with("args: invalid type"), "{:?}", job.errors);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_job_runs_when_it_is_due() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let mut job = system.job(tenant, "noop", &json!({}));
    let run_at = system.clock.now() + Duration::from_millis(1_500);
    job.run_at = Some(run_at);
    let id = system.enqueue(vec![job]).await?[0];
    let seen = system.state(tenant, id).await?.context("the job exists")?;
    assert_eq!(seen.state.as_str(), "scheduled");
    let job = reaches(&system, tenant, id, "completed").await;
    let finalized_at = job.finalized_at.context("the job is final")?;
    assert!(finalized_at >= run_at, "ran {} early", run_at - finalized_at);
    Ok(())
}
