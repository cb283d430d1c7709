//! Fewer connections than configured: work slows down but never stops. Also a pooler in transaction
//! mode, including a very small one.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result};
use axum::http::Method;
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    free_port::free_port,
    postgres::{DatabaseUrls, PostgresOptions, PrivatePostgres},
    process::{ProcessSpec, ProcessUnderTest},
    system::TestSystem,
    test_app::{ApiClient, TestApp},
};

use super::{program, readiness, redis_url};
use crate::queue::support::skipped;

/// Ten times the duration on an idle machine.
const SLOWLY: Duration = Duration::from_mins(3);
const JOBS: usize = 20;

struct Scene {
    app: TestApp,
    postgres: PrivatePostgres,
    prefix: String,
}

impl Scene {
    async fn new() -> Result<Self> {
        let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
        let system = TestSystem::on(postgres.urls().clone(), redis_url()?, None).await?;
        let prefix = system.prefix.clone();
        Ok(Self { app: TestApp::on(system).await?, postgres, prefix })
    }

    /// Starts an API, a worker and a scheduler; also returns the API's readiness URL.
    fn start(&self, urls: &DatabaseUrls, pooler: &str) -> Result<(Vec<ProcessUnderTest>, String)> {
        let mut processes = Vec::new();
        let mut api = String::new();
        for name in ["api", "worker", "scheduler"] {
            let (spec, ready) = program(name, urls, &redis_url()?)?;
            let spec = spec.env("ROTA_REDIS_PREFIX", &self.prefix).env("ROTA_DATABASE_POOLER", pooler);
            processes.push(spec.start()?);
            if name == "api" {
                api = ready;
            }
        }
        Ok((processes, api))
    }

    async fn key(&self, slug: &str) -> Result<String> {
        let tenant = self.app.system.tenant(slug).await?;
        Ok(self.app.key(tenant, &["jobs:create", "jobs:read", "campaigns:read", "campaigns:write"], None).await?.1)
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        let mut owner = PgConnection::connect(&self.postgres.urls().owner).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut owner).await?;
        Ok(())
    }

    async fn completed(&self) -> Option<i64> {
        let mut owner = PgConnection::connect(&self.postgres.urls().owner).await.ok()?;
        sqlx::query_scalar("select count(*) from jobs where state = 'completed'").fetch_one(&mut owner).await.ok()
    }

    /// Submits jobs, each repeated until it is accepted, and waits until all have run.
    async fn work(&self, api: &ApiClient, round: &str) -> Result<()> {
        let before = self.completed().await.context("the owner can connect")?;
        for at in 0..JOBS {
            let key = format!("{round}-{at}");
            eventually(SLOWLY, "a job is accepted", async || {
                let answer = api.post_once("/api/v1/jobs", &key, &json!({"kind": "noop"})).await.ok()?;
                assert!(matches!(answer.status, 202 | 503), "{}", answer.text);
                (answer.status == 202).then_some(())
            })
            .await;
        }
        let all = before + i64::try_from(JOBS)?;
        eventually(SLOWLY, "all jobs have run", async || (self.completed().await? == all).then_some(())).await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_connections_work_continues_and_readiness_reports_it() -> Result<()> {
    let scene = Scene::new().await?;
    let key = scene.key("acme").await?;
    // The processes use the plain roles; connections of the test itself would count towards the
    // limit.
    let urls = scene.postgres.urls().clone();
    for role in ["rota_system", "rota_app"] {
        for limit in [4, 6, 8] {
            scene.execute(&format!("alter role {role} connection limit {limit}")).await?;
            scene
                .execute(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"))
                .await?;
            let (_processes, ready) = scene.start(&urls, "none")?;
            let api = ApiClient::new(ready.trim_end_matches("/api/health/readiness"), Some(&key));
            scene.work(&api, &format!("{role}-{limit}")).await?;
        }
        scene.execute(&format!("alter role {role} connection limit -1")).await?;
    }
    scene.execute("alter role rota_system connection limit 2").await?;
    let (_processes, ready) = scene.start(&urls, "none")?;
    let told = |_: u16, check: &Value| check["reason"].as_str().is_some_and(|text| text.contains("connection"));
    readiness(&ready, "database", "connections are scarce", told).await;
    Ok(())
}

fn pgbouncer() -> Option<String> {
    ["pgbouncer", "/usr/sbin/pgbouncer"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok())
        .map(ToOwned::to_owned)
}

/// A `PgBouncer` in transaction mode with this many connections per role.
fn pooler(
    program: &str,
    postgres: &PrivatePostgres,
    size: usize,
) -> Result<(ProcessUnderTest, DatabaseUrls, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let users = directory.path().join("users.txt");
    std::fs::write(&users, "\"rota_app\" \"rota_test\"\n\"rota_system\" \"rota_test\"\n")?;
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = plain\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 500\n",
        postgres.port(),
        users.display()
    );
    let path = directory.path().join("pgbouncer.ini");
    std::fs::write(&path, settings)?;
    if nix::unistd::Uid::effective().is_root() {
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everyone)?;
    }
    let mut spec = ProcessSpec::program(program).arg(path.as_os_str());
    if nix::unistd::Uid::effective().is_root() {
        spec = spec.args(["-u", "postgres"]);
    }
    let through = |url: &str| url.replace(&format!(":{}/", postgres.port()), &format!(":{port}/"));
    let urls = postgres.urls();
    let urls = DatabaseUrls { owner: urls.owner.clone(), app: through(&urls.app), system: through(&urls.system) };
    Ok((spec.start()?, urls, directory))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_serves_and_leaks_nothing() -> Result<()> {
    let Some(program) = pgbouncer() else {
        skipped("pgbouncer is not installed");
        return Ok(());
    };
    let scene = Scene::new().await?;
    let keys = [scene.key("acme").await?, scene.key("globex").await?];
    for size in [4, 2] {
        let (_pooler, urls, _directory) = pooler(&program, &scene.postgres, size)?;
        let (_processes, ready) = scene.start(&urls, "transaction")?;
        let base = ready.trim_end_matches("/api/health/readiness").to_owned();
        let apis: Vec<ApiClient> = keys.iter().map(|key| ApiClient::new(&base, Some(key))).collect();
        scene.work(&apis[0], &format!("pooled-{size}")).await?;
        never_rows_of_other_tenants(&apis, size).await?;
    }
    Ok(())
}

/// Two tenants read alternately over the same few connections, and some requests are aborted before
/// the response.
async fn never_rows_of_other_tenants(apis: &[ApiClient], round: usize) -> Result<()> {
    let mut own = Vec::new();
    for (at, api) in apis.iter().enumerate() {
        let body = json!({"name": format!("campaign of {at}"), "subject": "s", "text": "t {{ unsubscribe_url }}",
            "from": {"email": "news@rota.example"}});
        own.push(api.post_once("/api/v1/campaigns", &format!("campaign-{round}"), &body).await?.ok(201)["id"].clone());
    }
    let readers = (0..60).map(async |number| {
        let (api, other) = (&apis[number % 2], &own[(number + 1) % 2]);
        let mine = format!("campaign of {}", number % 2);
        if number % 5 == 0 {
            let request = api.request(&Method::GET, "/api/v1/campaigns").timeout(Duration::from_millis(3));
            let _ = request.send().await;
            return Ok::<_, anyhow::Error>(());
        }
        let answer = api.get("/api/v1/campaigns").await?;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text);
        for campaign in answer.body["items"].as_array().into_iter().flatten() {
            assert_eq!(campaign["name"], mine, "a tenant sees its own");
        }
        let foreign = api.get(&format!("/api/v1/campaigns/{}", other.as_str().unwrap_or_default())).await?;
        assert!(matches!(foreign.status, 404 | 503), "{}", foreign.text);
        Ok(())
    });
    for outcome in join_all(readers).await {
        outcome?;
    }
    Ok(())
}
