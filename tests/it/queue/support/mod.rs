//! Shared helpers of the engine's tests: access to the ledger and the index, callback jobs, and
//! worker processes.

pub mod bare_engine;
pub mod chains;
pub mod finishes;
pub mod rows_read;

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::{
    db::{PoolSettings, SystemDb},
    queue::{
        Index, IndexSettings, IndexState, NewJob, QueueName, Shard, ShardCounts, announcement,
        control::{self, ControlOutcome},
        enqueue::Producer,
        ledger::follow_up::Position,
        observe::inspect::JobRecord,
        repair::check::{Checker, Extent},
    },
    tenancy::TenantId,
};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::{eventually, poll_until},
    http_sink::HttpSink,
    process::{ProcessSpec, ProcessUnderTest},
    redis_server,
    sql::id_at,
    system::TestSystem,
    tcp_proxy::TcpProxy,
};
use uuid::Uuid;

/// For events that take up to a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough that no lease expires unintentionally.
pub const LEASE: Duration = Duration::from_secs(30);

/// The queue of the test-only kinds.
pub fn queue() -> QueueName {
    "default".parse().expect("a valid name")
}

/// The only shard of that queue if it is not split.
pub fn shard() -> Shard {
    Shard::whole(queue())
}

/// A job that posts `token` to the sink.
pub fn callback(system: &TestSystem, tenant: TenantId, sink: &HttpSink, token: &str) -> NewJob {
    system.job(tenant, "callback", &json!({ "url": sink.url(), "token": token }))
}

/// Enqueues a job that has crashed two workers: its next run is an exclusive run.
pub async fn enqueue_suspect(system: &TestSystem, job: &NewJob) -> Result<()> {
    let mut transaction = system.tenants.begin(job.tenant).await?;
    Producer::enqueue_in(&mut transaction, std::slice::from_ref(job)).await?;
    sqlx::query("update jobs set crashes = 2 where id = $1").bind(job.id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    system.producer.announce(std::slice::from_ref(job));
    Ok(())
}

/// The tokens in order of arrival.
pub fn tokens(sink: &HttpSink) -> Vec<String> {
    let token = |body: &[u8]| {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(body["token"].as_str()?.to_owned())
    };
    sink.bodies().iter().filter_map(|body| token(body)).collect()
}

/// Waits until the job's tenant sees it in this state.
pub async fn reaches(system: &TestSystem, tenant: TenantId, id: Uuid, state: &str) -> JobRecord {
    eventually(PATIENCE, &format!("job {id} is {state}"), async || {
        let job = system.state(tenant, id).await.ok()??;
        (job.state.as_str() == state).then_some(job)
    })
    .await
}

/// The texts of a job's errors.
pub fn errors(job: &JobRecord) -> Vec<String> {
    let entries = job.errors.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["error"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until the index is built and this many jobs are available.
pub async fn indexed(system: &TestSystem, jobs: u64) {
    eventually(PATIENCE, &format!("{jobs} jobs are in the index"), async || {
        let status = system.index.status(&queue()).await.ok()?;
        let depth = system.index.depth(&queue()).await.ok()?;
        (status.state == IndexState::Ready && status.complete && depth.available == jobs).then_some(())
    })
    .await;
}

/// Builds an empty index and leaves no scheduler running that would correct it: for tests that
/// lease and settle manually, without the ledger.
pub async fn build_index(system: &TestSystem) {
    let scheduler = system.scheduler();
    indexed(system, 0).await;
    scheduler.stop().await;
}

/// Waits until the index, which is exact when idle, keeps all its invariants.
pub async fn index_holds(system: &TestSystem) {
    let mut checker = Checker::new(system.system.clone(), system.index.clone(), LEASE);
    let mut last = None;
    let holds = poll_until(PATIENCE, async || {
        last = Some(checker.check(&queue(), Extent::Whole, false).await.ok()?);
        last.as_ref()?.is_empty().then_some(())
    });
    assert!(holds.await.is_some(), "the index does not keep its invariants: {last:?}");
}

/// Deletes the whole index, like a flush of its Redis.
pub async fn lose_index(system: &TestSystem) -> Result<()> {
    let mut connection = redis(system).await?;
    let pattern = format!("{}:{{{}*", system.prefix, queue());
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
    Ok(redis::cmd("DEL").arg(keys).query_async(&mut connection).await?)
}

/// The prefix of the keys of [`shard`].
pub fn root(system: &TestSystem) -> String {
    format!("{}:{{{}}}", system.prefix, queue())
}

/// A tenant's virtual time, in ms, whether the tenant is active or not.
pub async fn virtual_time(system: &TestSystem, tenant: TenantId) -> Result<f64> {
    let mut connection = redis(system).await?;
    let mut asked = async |command: &str, key: &str| -> Result<Option<f64>> {
        let mut command = redis::cmd(command);
        command.arg(format!("{}:{key}", root(system))).arg(tenant.as_uuid().as_bytes());
        Ok(command.query_async(&mut connection).await?)
    };
    let is_active = asked("ZSCORE", "active").await?;
    is_active.or(asked("HGET", "vtimes").await?).context("the tenant is not in the index")
}

/// Cancels a job and announces that, as the API does.
pub async fn cancel(system: &TestSystem, tenant: TenantId, id: Uuid) -> Result<Position> {
    let mut transaction = system.tenants.begin(tenant).await?;
    let ControlOutcome::Done(position) = control::cancel(&mut transaction, id).await? else { bail!("not cancelled") };
    transaction.commit().await?;
    announcement::cancelled(&system.index, &position).await;
    Ok(position)
}

/// The index through a proxy, with this response time-out.
pub async fn far_index(system: &TestSystem, response_timeout: Duration) -> Result<(Index, TcpProxy)> {
    let (url, proxy) = TcpProxy::before(&system.redis_url).await?;
    let (prefix, shards) = (system.prefix.clone(), ShardCounts::default());
    Ok((Index::open(&IndexSettings { url, prefix, response_timeout, shards })?, proxy))
}

/// The ledger through a proxy.
pub async fn far_ledger(system: &TestSystem) -> Result<(SystemDb, TcpProxy)> {
    let (url, proxy) = TcpProxy::before(&system.urls.system).await?;
    Ok((SystemDb::open(&url, "test", PoolSettings::default())?, proxy))
}

/// A connection for direct access to the index.
pub async fn redis(system: &TestSystem) -> Result<redis::aio::MultiplexedConnection> {
    redis_server::connect(&system.redis_url).await
}

/// A row of the ledger with the columns that only the engine sees.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Row {
    pub state: String,
    pub attempt: i32,
    pub failures: i16,
    pub crashes: i16,
    pub finalized_at: Option<DateTime<Utc>>,
    /// The transaction that wrote this version of the row: it changes with any update, even one
    /// without effect.
    pub written_by: String,
}

/// A connection to the ledger as its owner.
pub struct Ledger(pub PgConnection);

impl Ledger {
    pub async fn open(system: &TestSystem) -> Result<Self> {
        Ok(Self(PgConnection::connect(&system.urls.owner).await?))
    }

    pub async fn row(&mut self, id: Uuid) -> Result<Row> {
        let row = sqlx::query_as(
            "select state::text, attempt, failures, crashes, finalized_at, xmin::text as written_by from jobs where id = $1",
        );
        Ok(row.bind(id).fetch_one(&mut self.0).await?)
    }

    /// The number of jobs in this state after this many attempts.
    pub async fn count(&mut self, state: &str, attempt: i32) -> Result<i64> {
        let count = sqlx::query_scalar("select count(*) from jobs where state::text = $1 and attempt = $2");
        Ok(count.bind(state).bind(attempt).fetch_one(&mut self.0).await?)
    }

    /// Inserts jobs of an hour ago whose rows are in the order of their ids.
    pub async fn fill(&mut self, tenant: TenantId, state: &str, jobs: u64) -> Result<()> {
        let fill = format!(
            "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts, finalized_at)
             select {}, $1, 'default', 'noop', '{{}}', $2::job_state, 2, 20, case when $2 = 'completed' then now() end
             from generate_series(1, $3)",
            id_at("clock_timestamp() - interval '1 hour'")
        );
        let fill = sqlx::query(sqlx::AssertSqlSafe(fill));
        fill.bind(tenant.as_uuid()).bind(state).bind(i64::try_from(jobs)?).execute(&mut self.0).await?;
        Ok(())
    }

    /// Updates PostgreSQL's statistics of the table of jobs, which makes it plan statements again.
    pub async fn analyze(&mut self) -> Result<()> {
        let used: Vec<String> =
            sqlx::query_scalar("select distinct tableoid::regclass::text from jobs").fetch_all(&mut self.0).await?;
        for partition in used {
            sqlx::query(sqlx::AssertSqlSafe(format!("vacuum analyze {partition}"))).execute(&mut self.0).await?;
        }
        Ok(())
    }

    /// The number of rows read from the table of jobs so far, by PostgreSQL's statistics; a
    /// connection's reads are included once it has ended.
    pub async fn rows_read(&mut self) -> Result<i64> {
        let read = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::int8 from pg_stat_user_tables where relname like 'jobs\\_2%'";
        Ok(sqlx::query_scalar(read).fetch_one(&mut self.0).await?)
    }

    /// Waits until no connection has this name.
    pub async fn ended(&mut self, application: &str) {
        eventually(PATIENCE, &format!("the connections of {application} have ended"), async || {
            let left = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = $1",
            );
            (left.bind(application).fetch_one(&mut self.0).await.ok() == Some(0_i64)).then_some(())
        })
        .await;
    }

    /// Waits until this many jobs are completed, and returns how many of them took one attempt.
    pub async fn completed(&mut self, jobs: i64) -> i64 {
        eventually(2 * PATIENCE, &format!("{jobs} jobs are completed"), async || {
            let counts = sqlx::query_as::<_, (i64, i64)>(
                "select count(*), count(*) filter (where attempt = 1) from jobs where state = 'completed'",
            );
            let (completed, at_once) = counts.fetch_one(&mut self.0).await.ok()?;
            (completed == jobs).then_some(at_once)
        })
        .await
    }
}

/// A worker in a process of its own, on the system's stores.
pub fn worker_process(system: &TestSystem, slots: usize, lease: Duration) -> Result<ProcessUnderTest> {
    worker_spec(system, slots, lease)?.start()
}

/// The spec of `worker_process`, which the caller may extend.
pub fn worker_spec(system: &TestSystem, slots: usize, lease: Duration) -> Result<ProcessSpec> {
    Ok(process_spec(system, "worker")?
        .env("ROTA_LEASE_MS", lease.as_millis().to_string())
        .env("WORKER_CONCURRENCY", slots.to_string())
        .env("METRICS_PORT", "0")
        .env("SMTP_URL", format!("file:{}", system.mails.path().display())))
}

/// The spec of a scheduler process with the intervals of `TestSystem::scheduler`, which the caller
/// may extend.
pub fn scheduler_spec(system: &TestSystem) -> Result<ProcessSpec> {
    Ok(process_spec(system, "scheduler")?
        .env("ROTA_TICK_MS", "100")
        .env("ROTA_RECONCILE_MS", "200")
        .env("METRICS_PORT", "0"))
}

/// The spec of a process on the system's stores, which the caller may extend.
pub fn process_spec(system: &TestSystem, name: &str) -> Result<ProcessSpec> {
    Ok(ProcessSpec::binary(name)?
        .env("ENVIRONMENT", "test")
        .env("DATABASE_URL", &system.urls.app)
        .env("DATABASE_SYSTEM_URL", &system.urls.system)
        .env("REDIS_URL", &system.redis_url)
        .env("ROTA_REDIS_PREFIX", &system.prefix)
        .env("ROTA_TEST_KINDS", "1"))
}

/// Waits until a worker holds the job.
pub async fn leased(system: &TestSystem, id: Uuid) {
    lease(system, id, true).await;
}

/// Waits until no worker holds the job.
pub async fn unleased(system: &TestSystem, id: Uuid) {
    lease(system, id, false).await;
}

async fn lease(system: &TestSystem, id: Uuid, held: bool) {
    eventually(PATIENCE, "the job's lease", async || {
        (system.index.leased_in(&shard(), &[id]).await.ok()? == [held]).then_some(())
    })
    .await;
}

/// Reports why a test is skipped on this machine.
pub fn skipped(reason: &str) {
    // A closed stream does not matter.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
