//! The operator's commands: settings take effect at once; a mistake is reported clearly and changes
//! nothing.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::{postgres::SharedServer, process::ProcessSpec, system::TestSystem};

use crate::queue::support::{LEASE, PATIENCE, indexed, queue, reaches};

/// Runs `api queue …`; returns its output, and whether it succeeded.
async fn run(system: &TestSystem, arguments: &[&str]) -> Result<(bool, String)> {
    let mut process = ProcessSpec::binary("api")?
        .arg("queue")
        .args(arguments.iter().copied())
        .env("ENVIRONMENT", "test")
        .env("DATABASE_URL", &system.urls.app)
        .env("DATABASE_SYSTEM_URL", &system.urls.system)
        .env("REDIS_URL", &system.redis_url)
        .env("ROTA_REDIS_PREFIX", &system.prefix)
        .env("ROTA_TEST_KINDS", "1")
        .start()?;
    let status = process.wait_exit(PATIENCE).await?;
    Ok((status.success(), process.output()?))
}

async fn json(system: &TestSystem, arguments: &[&str]) -> Result<Value> {
    let (succeeded, text) = run(system, arguments).await?;
    assert!(succeeded, "{arguments:?}: {text}");
    serde_json::from_str(&text).with_context(|| text.clone())
}

async fn refused(system: &TestSystem, arguments: &[&str], reason: &str) -> Result<()> {
    let (succeeded, text) = run(system, arguments).await?;
    assert!(!succeeded && text.contains(reason), "{arguments:?}: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_takes_effect_at_once_and_is_listed() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    indexed(&system, 0).await;
    scheduler.stop().await;
    let worker = system.worker(2, LEASE);
    let id = |tenant: Value| tenant["tenant_id"].clone();

    let told = json(&system, &["limit", "default", "--tenant", "acme", "--pause", "--rate", "20/s"]).await?;
    assert_eq!(told["limits"]["paused"], true);
    assert_eq!((&told["limits"]["rate_per_second"], &told["limits"]["burst"]), (&json!(20.0), &json!(20)));
    let job = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    indexed(&system, 1).await;
    let queues = json(&system, &["list"]).await?;
    let listed =
        queues.as_array().context("no list")?.iter().find(|one| one["queue"] == "default").context("no queue")?;
    assert_eq!(
        (&listed["paused"], &listed["index"]["workers"], &listed["index"]["slots"]),
        (&json!(false), &json!(1), &json!(2))
    );
    assert_eq!((&listed["available"], &listed["index"]["tenants_waiting"]), (&json!(1), &json!(1)));
    assert_eq!(listed["shards"], 1);

    // A tenant named by id is the same tenant.
    let by_id = json(&system, &["limit", "*", "--tenant", &tenant.to_string(), "--weight", "1000"]).await?;
    assert_eq!((id(by_id), &told["tenant_id"]), (json!(tenant), &json!(tenant)));
    let rows = json(&system, &["limits"]).await?;
    let rows = rows.as_array().context("no list")?;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(
        (&rows[0]["queue"], &rows[0]["weight"], &rows[0]["tenant"]),
        (&json!("*"), &json!(1_000), &json!("acme"))
    );
    assert_eq!(
        (&rows[1]["queue"], &rows[1]["weight"], &rows[1]["paused"]),
        (&json!("default"), &Value::Null, &json!(true))
    );

    reaches(&system, tenant, job, "available").await;
    let cleared = json(&system, &["limit", "default", "--tenant", "acme", "--clear"]).await?;
    assert_eq!(cleared["limits"], Value::Null);
    reaches(&system, tenant, job, "completed").await;

    assert_eq!(json(&system, &["pause", "default"]).await?, json!({ "queue": "default", "paused": true }));
    assert!(system.index.status(&queue()).await?.paused);
    let job = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    indexed(&system, 1).await;
    json(&system, &["resume", "default"]).await?;
    reaches(&system, tenant, job, "completed").await;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_reported_and_changes_nothing() -> Result<()> {
    let system = TestSystem::start().await?;
    system.tenant("acme").await?;
    let limit = |more: &[&'static str]| [&["limit", "default", "--tenant", "acme"], more].concat();
    refused(&system, &["pause", "defalt"], "there is no queue \"defalt\"; did you mean \"default\"?").await?;
    refused(&system, &["limit", "default", "--tenant", "nobody", "--weight", "2"], "there is no tenant \"nobody\"")
        .await?;
    refused(&system, &limit(&[]), "nothing to change").await?;
    refused(&system, &limit(&["--weight", "0"]), "--weight must be 1 to 1000, not 0").await?;
    refused(&system, &limit(&["--weight", "1001"]), "--weight must be 1 to 1000, not 1001").await?;
    refused(&system, &limit(&["--max-running", "0"]), "--max-running must be 1 to 1000000, not 0").await?;
    refused(&system, &limit(&["--rate", "0"]), "--rate must be 0.001 to 1000000 a second, not \"0\"").await?;
    refused(&system, &limit(&["--rate", "1", "--burst", "0"]), "--burst must be 1 to 1000000, not 0").await?;
    refused(&system, &limit(&["--burst", "5"]), "--rate").await?;
    refused(&system, &limit(&["--pause", "--resume"]), "cannot be used with").await?;
    assert_eq!(json(&system, &["limits"]).await?, json!([]));
    assert_eq!(json(&system, &limit(&["--weight", "1000", "--max-running", "1"])).await?["limits"]["weight"], 1_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_prepared_is_named_with_the_remedy() -> Result<()> {
    let mut system = TestSystem::start().await?;
    refused(&system, &["check"], "not built yet: the leading scheduler builds it, so start one").await?;
    let mut login = url::Url::parse(&system.urls.system)?;
    login.set_password(Some("wrong")).ok().context("a URL with a password")?;
    let built = std::mem::replace(&mut system.urls.system, login.into());
    refused(&system, &["list"], "the login is refused: check user name and password").await?;
    refused(&system, &["check"], "not built, and cannot be: the database: the password is refused").await?;
    let redis = std::mem::replace(&mut system.redis_url, "redis://127.0.0.1:1/0".into());
    system.urls.system = built;
    let (listed, told) = run(&system, &["list"]).await?;
    assert!(listed && told.contains("Redis is unreachable"), "{told}");
    system.redis_url = redis;
    let empty = SharedServer::from_env()?.create_database().await?;
    system.urls = empty.urls().clone();
    refused(&system, &["list"], "the schema is older than this release, or missing: run `api migrate`").await
}
