//! A store that cannot be used: every process logs the reason once, and is ready again when the
//! store is usable.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{
    eventually::eventually,
    postgres::{DatabaseUrls, PostgresOptions, PrivatePostgres},
    process::ProcessUnderTest,
    redis_server::{PrivateRedis, RedisOptions},
    sql,
    system::TestSystem,
    test_app::ApiClient,
};

use super::{PATIENCE, program, readiness, redis_url};

fn down(reason: &'static str) -> impl Fn(u16, &Value) -> bool {
    move |status, check| status == 503 && check["reason"].as_str().is_some_and(|text| text.contains(reason))
}

fn degraded(reason: &'static str) -> impl Fn(u16, &Value) -> bool {
    move |status, check| {
        status == 200
            && check["state"] == "degraded"
            && check["reason"].as_str().is_some_and(|text| text.contains(reason))
    }
}

fn up(status: u16, check: &Value) -> bool {
    status == 200 && check["state"] == "up"
}

async fn logged(process: &ProcessUnderTest, text: &str) -> usize {
    let lines = async || {
        let count = process.output().ok()?.lines().filter(|line| line.contains(text)).count();
        (count > 0).then_some(count)
    };
    eventually(PATIENCE, text, lines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_never_migrated_is_named_until_it_is() -> Result<()> {
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let urls = postgres.urls();
    let mut processes = Vec::new();
    for name in ["api", "worker", "scheduler"] {
        let (spec, ready) = program(name, urls, &redis_url()?)?;
        processes.push((spec.env("ROTA_REDIS_PREFIX", format!("unfit-{}", postgres.port())).start()?, ready));
    }
    for (process, ready) in &processes {
        readiness(ready, "database", "not migrated", down("never migrated")).await;
        assert_eq!(logged(process, "never migrated").await, 1);
    }
    shared::db::migrate::migrate(&urls.owner, &urls.app, &urls.system).await?;
    for (process, ready) in &processes {
        readiness(ready, "database", "migrated", up).await;
        logged(process, "works again").await;
    }
    sql::execute(&urls.owner, "create table kept as select * from _sqlx_migrations; delete from _sqlx_migrations where version = (select max(version) from kept)").await?;
    readiness(&processes[0].1, "database", "older", down("older than this release")).await;
    sql::execute(&urls.owner, "insert into _sqlx_migrations select * from kept k where not exists (select from _sqlx_migrations m where m.version = k.version);
        insert into _sqlx_migrations select 99999999999999, description, installed_on, success, checksum, execution_time from kept limit 1").await?;
    readiness(&processes[0].1, "database", "newer", degraded("newer than this release")).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_or_role_is_named_and_no_request_is_served() -> Result<()> {
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let good = postgres.urls().clone();
    shared::db::migrate::migrate(&good.owner, &good.app, &good.system).await?;
    sql::execute(&good.owner, "create role lonely login password 'x'; alter role lonely bypassrls").await?;
    let app = |app: &str| DatabaseUrls { app: app.to_owned(), ..good.clone() };
    let port = postgres.port();
    let server = good.app.rsplit_once('/').expect("a URL names a database").0;
    for (urls, reason) in [
        (app(&format!("{server}/nowhere")), "no such database"),
        (app(&good.app.replace(&format!(":{port}/"), ":9/")), "refused"),
        (app(&good.owner), "bypasses row level security"),
        (app(&format!("postgres://lonely:x@127.0.0.1:{port}/rota")), "bypasses row level security"),
        (app(&good.system), "sees all tenants"),
        (DatabaseUrls { system: good.app.clone(), ..good.clone() }, "not a member of rota_system"),
    ] {
        let (spec, ready) = program("api", &urls, &redis_url()?)?;
        let process = spec.start()?;
        let check = readiness(&ready, "database", reason, down(reason)).await;
        assert!(!check.to_string().contains("127.0.0.1"), "{check}");
        assert_eq!(logged(&process, reason).await, 1);
        let api = ApiClient::new(ready.trim_end_matches("/api/health/readiness"), None);
        let answer = api.get("/api/health/readiness").await?;
        assert_eq!(answer.header("retry-after"), "1");
    }
    sql::execute(&good.owner, "alter role rota_app set default_transaction_read_only = on").await?;
    let (spec, ready) = program("worker", &good, &redis_url()?)?;
    let _process = spec.start()?;
    readiness(&ready, "database", "read-only", down("read-only")).await;
    Ok(())
}

/// The cause of each outage is logged once, however long it lasts. A service of the scheduler that
/// fails in the moment before adds a line of its own.
async fn password_lines(process: &ProcessUnderTest, count: usize) -> Result<()> {
    eventually(PATIENCE, &format!("{count} lines about a password"), async || {
        (process.output().ok()?.matches("the password is refused").count() >= count).then_some(())
    })
    .await;
    let output = process.output()?;
    assert_eq!(output.matches("the password is refused").count(), count, "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_logged_once_by_every_process_until_it_is_accepted() -> Result<()> {
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let urls = postgres.urls();
    shared::db::migrate::migrate(&urls.owner, &urls.app, &urls.system).await?;
    postgres.require_passwords().await?;
    let set_password = async |role: &str, password: &str| {
        sql::execute(&urls.owner, &format!("alter role {role} password '{password}'")).await
    };
    set_password("rota_app", "another").await?;
    let mut processes = Vec::new();
    for name in ["api", "worker", "scheduler"] {
        let (spec, ready) = program(name, urls, &redis_url()?)?;
        processes.push((spec.env("ROTA_REDIS_PREFIX", format!("unfit-{}", postgres.port())).start()?, ready));
    }
    // First a process that starts with a wrong password, then one whose password is changed.
    for (outages, role, reason) in [
        (1, "rota_app", "DATABASE_URL: the password is refused"),
        (2, "rota_system", "DATABASE_SYSTEM_URL: the password is refused"),
    ] {
        set_password(role, "another").await?;
        // Open connections keep working with the old password.
        let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
        sql::execute(&urls.owner, &end).await?;
        for (process, ready) in &processes {
            readiness(ready, "database", reason, down(reason)).await;
            password_lines(process, outages).await?;
        }
        set_password(role, "rota_test").await?;
        for (process, ready) in &processes {
            readiness(ready, "database", "the password is right", up).await;
            let ends = async || (process.output().ok()?.matches("works again").count() >= outages).then_some(());
            eventually(PATIENCE, "the end of the outage", ends).await;
            assert_eq!(process.output()?.matches("works again").count(), outages, "{}", process.output()?);
            password_lines(process, outages).await?;
        }
    }
    Ok(())
}

/// A tenant's request is refused rather than served by a role that sees every tenant.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_served_as_a_role_that_sees_every_tenant() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    for url in [&system.urls.owner, &system.urls.system] {
        let tenants = shared::db::TenantDb::open(url, "test", shared::db::PoolSettings::default())?;
        let error = tenants.begin(tenant).await.expect_err("the role sees too much");
        assert!(shared::db::is_unavailable(&error), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_writes_to_redis_the_api_is_degraded_and_accepts_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    let redis = PrivateRedis::new(RedisOptions::default()).await?;
    let (spec, ready) = program("api", &system.urls, &redis.url())?;
    let mut process = spec.start()?;
    process.wait_ready(&ready, PATIENCE).await?;
    let app = tests::test_app::TestApp::on(system).await?;
    let tenant = app.system.tenant("acme").await?;
    let key = app.key(tenant, &["jobs:create"], None).await?.1;
    let api = ApiClient::new(ready.trim_end_matches("/api/health/readiness"), Some(&key));
    let mut connection = tests::redis_server::connect(&redis.url()).await?;
    let mut set = async |words: &[&str]| -> Result<()> {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        Ok(command.query_async(&mut connection).await?)
    };
    for (broken, mended, reason) in [
        (["config", "set", "maxmemory", "1"], ["config", "set", "maxmemory", "0"], "memory is full"),
        (["config", "set", "min-replicas-to-write", "1"], ["config", "set", "min-replicas-to-write", "0"], "replicas"),
        (["acl", "setuser", "default", "-set"], ["acl", "setuser", "default", "+set"], "permissions"),
        (["acl", "setuser", "default", "-publish"], ["acl", "setuser", "default", "+publish"], "permissions"),
    ] {
        set(&broken).await?;
        readiness(&ready, "redis", reason, degraded(reason)).await;
        api.post("/api/v1/jobs", &json!({"kind": "noop"})).await?.ok(202);
        set(&mended).await?;
        readiness(&ready, "redis", "mended", up).await;
    }
    set(&["replicaof", "127.0.0.1", "9"]).await?;
    readiness(&ready, "redis", "a replica", degraded("replica")).await;
    api.post("/api/v1/jobs", &json!({"kind": "noop"})).await?.ok(202);
    Ok(())
}
