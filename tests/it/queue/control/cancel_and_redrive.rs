//! Cancelling waiting and running jobs, and redriving discarded ones.

use std::time::Duration;

use anyhow::{Result, bail};
use http::StatusCode;
use serde_json::json;
use shared::queue::{
    JobState, announcement,
    control::{self, ControlFilter, ControlOutcome},
};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    sql::id_at,
    system::TestSystem,
};

use crate::queue::support::{
    LEASE, Ledger, PATIENCE, callback, cancel, indexed, reaches, shard, unleased, virtual_time,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_waiting_job_never_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let ids = system
        .enqueue(vec![
            callback(&system, tenant, &sink, "announced"),
            callback(&system, tenant, &sink, "unannounced"),
            callback(&system, tenant, &sink, "last"),
        ])
        .await?;
    indexed(&system, 3).await;
    cancel(&system, tenant, ids[0]).await?;
    // The index need not be updated: the ledger is checked before anything runs.
    let mut transaction = system.tenants.begin(tenant).await?;
    control::cancel(&mut transaction, ids[1]).await?;
    transaction.commit().await?;
    let worker = system.worker(1, LEASE);
    sink.wait_for("last", PATIENCE).await;
    reaches(&system, tenant, ids[2], "completed").await;
    worker.stop().await?;
    assert_eq!(sink.count("announced"), 0);
    assert_eq!(sink.count("unannounced"), 0);
    for id in &ids[..2] {
        let row = Ledger::open(&system).await?.row(*id).await?;
        assert_eq!((row.state.as_str(), row.attempt), ("cancelled", 1));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_running_job_stops_it_and_frees_its_slot() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    let hour = json!({ "ms": 3_600_000 });
    let long = system.enqueue(vec![system.job(tenant, "sleep", &hour)]).await?[0];
    reaches(&system, tenant, long, "running").await;
    let next = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    cancel(&system, tenant, long).await?;
    let cancelled = Ledger::open(&system).await?.row(long).await?;
    // The only slot becomes free only once the long job has been stopped.
    reaches(&system, tenant, next, "completed").await;
    eventually(PATIENCE, "the job's lease has ended", async || {
        (system.index.leased_in(&shard(), &[long]).await.ok()? == [false]).then_some(())
    })
    .await;
    worker.stop().await?;
    assert_eq!(cancelled.state, "cancelled");
    assert_eq!(Ledger::open(&system).await?.row(long).await?, cancelled, "the run's end changes nothing");
    Ok(())
}

/// The API may die between the cancellation and its notification, and notifications are lost while
/// a connection is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_without_a_notification_stops_the_run() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(2, LEASE));
    let hour = json!({ "ms": 3_600_000 });
    let ids = system.enqueue(vec![system.job(tenant, "sleep", &hour), system.job(tenant, "sleep", &hour)]).await?;
    for id in &ids {
        reaches(&system, tenant, *id, "running").await;
    }
    let mut transaction = system.tenants.begin(tenant).await?;
    control::cancel(&mut transaction, ids[0]).await?;
    transaction.commit().await?;
    eventually(PATIENCE, "only the lease of the cancelled job has ended", async || {
        (system.index.leased_in(&shard(), &ids).await.ok()? == [false, true]).then_some(())
    })
    .await;
    cancel(&system, tenant, ids[1]).await?;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_after_its_cancellation_does_not_complete_the_job() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("running", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "running")]).await?[0];
    sink.wait_for("running", PATIENCE).await;
    let mut transaction = system.tenants.begin(tenant).await?;
    control::cancel(&mut transaction, id).await?;
    // The holder gets no notification, and finishes the run.
    transaction.commit().await?;
    sink.release("running");
    worker.stop().await?;
    let row = Ledger::open(&system).await?.row(id).await?;
    assert_eq!((row.state.as_str(), row.attempt), ("cancelled", 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_job_runs_again_when_it_is_redriven() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("token", Behaviour::Answer(StatusCode::INTERNAL_SERVER_ERROR));
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let mut job = callback(&system, tenant, &sink, "token");
    job.max_attempts = 1;
    let id = system.enqueue(vec![job]).await?[0];
    reaches(&system, tenant, id, "discarded").await;

    sink.release("token");
    let mut transaction = system.tenants.begin(tenant).await?;
    let ControlOutcome::Done(position) = control::redrive(&mut transaction, id).await? else { bail!("not redriven") };
    transaction.commit().await?;
    announcement::redriven(&system.index, std::slice::from_ref(&position)).await;
    let job = reaches(&system, tenant, id, "completed").await;
    assert_eq!(job.attempt, 2);
    assert_eq!(sink.count("token"), 2);

    let mut transaction = system.tenants.begin(tenant).await?;
    let again = control::redrive(&mut transaction, id).await?;
    assert!(matches!(again, ControlOutcome::Refused(_)), "a completed job is not redriven: {again:?}");
    let cancelled = control::cancel(&mut transaction, id).await?;
    assert!(matches!(cancelled, ControlOutcome::Refused(_)), "nor cancelled: {cancelled:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_job_is_neither_cancelled_nor_redriven() -> Result<()> {
    let system = TestSystem::start().await?;
    let (owner, other) = (system.tenant("owner").await?, system.tenant("other").await?);
    let mut job = system.job(owner, "noop", &json!({}));
    job.run_at = Some(system.clock.now() + Duration::from_hours(1));
    let id = system.enqueue(vec![job]).await?[0];
    let mut transaction = system.tenants.begin(other).await?;
    assert_eq!(control::cancel(&mut transaction, id).await?, ControlOutcome::NotFound);
    assert_eq!(control::redrive(&mut transaction, id).await?, ControlOutcome::NotFound);
    transaction.commit().await?;
    assert_eq!(Ledger::open(&system).await?.row(id).await?.state, "scheduled");
    Ok(())
}

/// Otherwise a tenant that cancels its long runs in time would always be served first.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_charged_for_its_run_time() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    let long = system.enqueue(vec![system.job(tenant, "sleep", &json!({ "ms": 3_600_000 }))]).await?[0];
    reaches(&system, tenant, long, "running").await;
    // The run time that is charged.
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel(&system, tenant, long).await?;
    unleased(&system, long).await;
    worker.stop().await?;
    // Divided by the tenant's weight, which is at most 8.
    let charged_ms = virtual_time(&system, tenant).await?;
    assert!(charged_ms >= 300.0 / 8.0, "{charged_ms} ms of virtual time");
    Ok(())
}

/// Rows are counted by PostgreSQL, in the transaction that read them.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_by_filter_reads_no_completed_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let fill = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts, finalized_at)
         select {}, '{}', 'default', 'noop', '{{}}',
                (case when n <= 20 then 'discarded' else 'completed' end)::job_state, 2, 20, now()
         from generate_series(1, 50000) n;
         analyze jobs",
        id_at("now()"),
        tenant.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    let filter = |state, error: Option<&str>| ControlFilter {
        kinds_left_out: Vec::new(),
        states: vec![state],
        kind: None,
        queue: None,
        finalized_after: None,
        finalized_before: None,
        error: error.map(str::to_owned),
    };
    for (filter, expected) in [
        (filter(JobState::Discarded, None), 20),
        (filter(JobState::Discarded, Some("no such error")), 0),
        (filter(JobState::Cancelled, None), 0),
    ] {
        let mut transaction = system.tenants.begin(tenant).await?;
        assert_eq!(control::count_matching(&mut transaction, &filter, 10_000).await?, expected);
        let read = "select sum(seq_tup_read + idx_tup_fetch)::int8 from pg_stat_xact_user_tables where relname like 'jobs\\_2%'";
        let read: i64 = sqlx::query_scalar(read).fetch_one(&mut *transaction).await?;
        assert!((expected..100).contains(&usize::try_from(read)?), "{read} rows were read for {filter:?}");
    }
    Ok(())
}
