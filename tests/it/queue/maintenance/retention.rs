//! Finished work is deleted after its retention period; waiting work stays, however old it is.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::queue::ledger::retention;
use sqlx::Connection as _;
use tests::{sql::id_at, system::TestSystem};

use crate::queue::support::Ledger;

const DAY: Duration = Duration::from_hours(24);

/// Inserts a row in `state`, created and finished `age` ago.
async fn add(system: &TestSystem, ledger: &mut Ledger, state: &str, age: &str) -> Result<()> {
    let tenant = system.tenant("acme").await?;
    let insert = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts, finalized_at)
         select {}, $1, 'default', 'noop', '{{}}', $2::job_state, 2, 20,
               case when $2 in ('completed', 'cancelled', 'discarded') then made end
        from (select now() - $3::interval as made) t",
        id_at("made")
    );
    sqlx::query(sqlx::AssertSqlSafe(insert))
        .bind(tenant.as_uuid())
        .bind(state)
        .bind(age)
        .execute(&mut ledger.0)
        .await?;
    Ok(())
}

async fn states(ledger: &mut Ledger) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("select state::text from jobs order by 1").fetch_all(&mut ledger.0).await?)
}

async fn partitions(ledger: &mut Ledger) -> Result<Vec<String>> {
    let names = "select inhrelid::regclass::text from pg_inherits where inhparent = 'jobs'::regclass order by 1";
    Ok(sqlx::query_scalar(names).fetch_all(&mut ledger.0).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_final_jobs_past_their_retention_are_removed() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    for state in ["completed", "cancelled", "discarded", "available", "scheduled", "retryable"] {
        add(&system, &mut ledger, state, "2 hours").await?;
    }
    add(&system, &mut ledger, "completed", "1 minute").await?;
    let report = retention::clean(&system.system, Duration::from_hours(1)).await?;
    assert_eq!(report.jobs, 3);
    assert_eq!(states(&mut ledger).await?, ["available", "completed", "retryable", "scheduled"]);
    assert_eq!(retention::clean(&system.system, Duration::from_hours(1)).await?.jobs, 0);
    Ok(())
}

/// Created long ago, finished now: retention counts from the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_job_that_finished_recently_is_kept() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    add(&system, &mut ledger, "completed", "2 hours").await?;
    sqlx::query("update jobs set finalized_at = now()").execute(&mut ledger.0).await?;
    assert_eq!(retention::clean(&system.system, Duration::from_hours(1)).await?.jobs, 0);
    assert_eq!(states(&mut ledger).await?, ["completed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_dropped_once_all_its_jobs_are_finished() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    // A month that began at least two and at most three months ago, named as
    // `ensure_job_partitions` names it.
    let old: String =
        sqlx::query_scalar("select 'jobs_' || to_char(now() at time zone 'UTC' - interval '3 months', 'YYYY_MM')")
            .fetch_one(&mut ledger.0)
            .await?;
    let create = format!(
        "do $$ declare month timestamp := date_trunc('month', now() at time zone 'UTC' - interval '3 months'); begin
           execute format('create table {old} partition of jobs for values from (%L) to (%L)',
             uuid_at(month at time zone 'UTC'), uuid_at((month + interval '1 month') at time zone 'UTC'));
         end $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut ledger.0).await?;
    add(&system, &mut ledger, "completed", "3 months").await?;
    add(&system, &mut ledger, "retryable", "3 months").await?;

    let dropped = retention::drop_months(&system.system, 365 * DAY).await?;
    assert!(dropped.is_empty(), "{dropped:?} are kept for a year");
    let dropped = retention::drop_months(&system.system, DAY).await?;
    assert!(!dropped.contains(&old), "a job waits in the partition");
    assert_eq!(states(&mut ledger).await?, ["completed", "retryable"]);

    sqlx::query(
        "update jobs set state = 'cancelled', finalized_at = now() - interval '2 months' where state = 'retryable'",
    )
    .execute(&mut ledger.0)
    .await?;
    let dropped = retention::drop_months(&system.system, DAY).await?;
    assert!(dropped.contains(&old), "{dropped:?}");
    assert!(!partitions(&mut ledger).await?.contains(&old));
    assert_eq!(states(&mut ledger).await?, Vec::<String>::new());
    Ok(())
}

/// A failing part of the clean-up must not block the other parts forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_part_stops_no_other() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let tenant = system.tenant("acme").await?;
    add(&system, &mut ledger, "completed", "2 days").await?;
    let fill = format!(
        "insert into unique_keys (tenant_id, key, job_id, expires_at) values ('{}', 'over', gen_random_uuid(), now() - interval '1 hour');
         revoke execute on function ensure_job_partitions(integer) from rota_system;
         revoke delete on idempotency_keys from rota_system",
        tenant.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    assert!(retention::clean(&system.system, DAY).await.is_err(), "two parts lack their permissions");
    assert_eq!(states(&mut ledger).await?, Vec::<String>::new());
    let keys: i64 = sqlx::query_scalar("select count(*) from unique_keys").fetch_one(&mut ledger.0).await?;
    assert_eq!(keys, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coming_months_have_their_partitions() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let last = partitions(&mut ledger).await?.pop().unwrap_or_default();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop table {last}"))).execute(&mut ledger.0).await?;
    assert_eq!(retention::clean(&system.system, 365 * DAY).await?.partitions_made, 1);
    assert_eq!(partitions(&mut ledger).await?.pop(), Some(last));
    // Inserts as a role that may not create tables itself.
    let id = system.enqueue(vec![system.job(system.tenant("acme").await?, "noop", &json!({}))]).await?[0];
    assert_eq!(ledger.row(id).await?.state, "available");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_are_kept_for_a_day() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let tenant = system.tenant("acme").await?;
    for (key, age) in [("old", "25 hours"), ("young", "23 hours")] {
        let insert = "insert into idempotency_keys (tenant_id, key, fingerprint, first_id, created_at)
                      values ($1, $2, '', gen_random_uuid(), now() - $3::interval)";
        sqlx::query(insert).bind(tenant.as_uuid()).bind(key).bind(age).execute(&mut ledger.0).await?;
    }
    assert_eq!(retention::clean(&system.system, 30 * DAY).await?.keys, 1);
    let keys: Vec<String> = sqlx::query_scalar("select key from idempotency_keys").fetch_all(&mut ledger.0).await?;
    assert_eq!(keys, ["young"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_deliveries_are_kept_for_thirty_days() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let tenant = system.tenant("acme").await?;
    for (state, age) in [("delivered", "30 days 1 hour"), ("held", "31 days"), ("failed", "29 days 23 hours")] {
        let insert = "insert into webhook_deliveries (tenant_id, id, endpoint_id, event_type, body, delivery_job_id, state, created_at)
                      values ($1, gen_random_uuid(), gen_random_uuid(), 'job.completed', '{}', gen_random_uuid(), $2, now() - $3::interval)";
        sqlx::query(insert).bind(tenant.as_uuid()).bind(state).bind(age).execute(&mut ledger.0).await?;
    }
    assert_eq!(retention::clean(&system.system, 365 * DAY).await?.deliveries, 2);
    let kept: Vec<String> = sqlx::query_scalar("select state from webhook_deliveries").fetch_all(&mut ledger.0).await?;
    assert_eq!(kept, ["failed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_uses_of_clients_are_deleted_after_their_time() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let tenant = system.tenant("acme").await?;
    let fill = format!(
        "insert into users (tenant_id, id, email, email_key, name, role)
           values ('{tenant}', '{tenant}', 'ada@example.com', 'ada@example.com', 'Ada', 'viewer');
         insert into api_clients (tenant_id, id, name, secret_hash, scopes) values ('{tenant}', '{tenant}', 'client', '', '{{}}');
         insert into sessions (tenant_id, id, user_id, secret, expires_at)
           select '{tenant}', gen_random_uuid(), '{tenant}', '', now() - age::interval
           from unnest(array['30 days 1 hour', '31 days', '29 days 23 hours', '-1 day']) age;
         insert into api_client_uses (tenant_id, id, client_id, action, succeeded, address, used_at)
           select '{tenant}', gen_random_uuid(), '{tenant}', 'token', true, '192.0.2.1', now() - age::interval
           from unnest(array['90 days 1 hour', '89 days 23 hours']) age"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    assert_eq!(retention::clean(&system.system, 365 * DAY).await?.sessions, 3);
    let left = "select (select count(*) from sessions), (select count(*) from api_client_uses)";
    let left: (i64, i64) = sqlx::query_as(left).fetch_one(&mut ledger.0).await?;
    assert_eq!(left, (2, 1));
    Ok(())
}

/// Counts above and below the batch size: one pass removes everything.
#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_are_deleted_in_batches_and_others_stay() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let tenant = system.tenant("acme").await?;
    let fill = format!(
        "insert into idempotency_keys (tenant_id, key, fingerprint, first_id, created_at)
           select '{tenant}', n::text, '', gen_random_uuid(), now() - interval '25 hours' from generate_series(1, 2001) n;
         insert into unique_keys (tenant_id, key, job_id, expires_at)
           select '{tenant}', n::text, gen_random_uuid(), now() - interval '1 second' from generate_series(1, 1000) n;
         insert into unique_keys (tenant_id, key, job_id, expires_at) values
           ('{tenant}', 'held', gen_random_uuid(), null), ('{tenant}', 'young', gen_random_uuid(), now() + interval '1 hour');
         insert into batches (tenant_id, id, total, pending, completed, completion_job, finished_at)
           select '{tenant}', gen_random_uuid(), 1, 0, 1, gen_random_uuid(), now() - interval '2 days' from generate_series(1, 999);
         insert into batches (tenant_id, id, total, pending, completion_job) values ('{tenant}', gen_random_uuid(), 1, 1, gen_random_uuid())",
        tenant = tenant.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    let report = retention::clean(&system.system, DAY).await?;
    assert_eq!((report.keys, report.relations), (2_001, 1_000 + 999));
    let left = "select (select count(*) from idempotency_keys), (select count(*) from unique_keys), (select count(*) from batches)";
    let left: (i64, i64, i64) = sqlx::query_as(left).fetch_one(&mut ledger.0).await?;
    assert_eq!(left, (0, 2, 1));
    Ok(())
}

/// An operator may call the function from psql, without our planner settings.
#[tokio::test(flavor = "multi_thread")]
async fn months_are_dropped_whatever_the_plan() -> Result<()> {
    let system = TestSystem::start().await?;
    for url in [&system.urls.system, &system.urls.owner] {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        for plan in ["enable_hashjoin", "enable_mergejoin", "enable_nestloop", "enable_seqscan", "enable_indexscan"] {
            let statement = format!(
                "reset all; set {plan} = off; select drop_finished_job_partitions('30 days'); set plan_cache_mode = force_generic_plan;
                 select drop_finished_job_partitions('30 days')"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
    }
    Ok(())
}
