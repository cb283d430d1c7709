//! PostgreSQL without free connections, without backends, or without a reply to a commit: the API
//! responds with 503 and `Retry-After` or with the outcome, never with another 5xx, and a repeat
//! under the same key returns the same job.

mod many_clients;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::{eventually, poll_until},
    postgres::{DatabaseUrls, PostgresOptions, PrivatePostgres},
    system::TestSystem,
    tcp_proxy::{Mode, TcpProxy},
    test_app::{Answer, ApiClient, TestApp},
};

use crate::api::{LEASE, PATIENCE, draft};

const JOBS: &str = "/api/v1/jobs";
/// Requests until every connection has prepared the statements.
const WARM_UP: i64 = 50;
/// The pool pings its connections too, and the lost reply may belong to a ping.
const TRIES: usize = 10;
/// Concurrent clients, so that several connections are open.
const CLIENTS: usize = 4;
/// The bound on recovery: the documented five seconds, plus a margin for a busy machine.
const SOON: Duration = Duration::from_secs(15);

struct Scene {
    app: TestApp,
    postgres: PrivatePostgres,
    /// Between the API and PostgreSQL.
    proxy: TcpProxy,
    owner: String,
}

impl Scene {
    async fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, settings }).await?;
        let proxy = TcpProxy::start(([127, 0, 0, 1], postgres.port()).into()).await?;
        let owner = postgres.urls().owner.clone();
        let urls = DatabaseUrls {
            owner: owner.clone(),
            app: proxy.url(&postgres.urls().app)?,
            system: proxy.url(&postgres.urls().system)?,
        };
        let redis_url = std::env::var_os("REDIS_URL").context("REDIS_URL is not set; bin/test sets it")?;
        let app = TestApp::on(TestSystem::on(urls, redis_url.to_string_lossy().into_owned(), None).await?).await?;
        Ok(Self { app, postgres, proxy, owner })
    }

    async fn count(&self, condition: &str) -> Result<i64> {
        let mut owner = PgConnection::connect(&self.owner).await?;
        let count = format!("select count(*) from jobs where {condition}");
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut owner).await?)
    }

    /// Sends a request and loses the reply to its commit; returns the client's response, or `None`
    /// if a different reply was lost and nothing was committed.
    async fn lose_reply(&self, api: &ApiClient, key: &str) -> Result<Option<Answer>> {
        let before = self.count("true").await?;
        self.proxy.set(Mode::DropReply);
        let asking = async {
            let answer = api.post_once(JOBS, key, &noop()).await;
            anyhow::Ok(answer?)
        };
        let losing = async {
            let committed =
                poll_until(Duration::from_secs(2), async || (self.count("true").await.ok()? > before).then_some(()));
            let committed = committed.await.is_some();
            self.proxy.set(Mode::Reset);
            eventually(PATIENCE, "the connections are gone", async || {
                (self.proxy.open_connections() == 0).then_some(())
            })
            .await;
            self.proxy.set(Mode::Pass);
            committed
        };
        let (answer, committed) = tokio::join!(asking, losing);
        Ok(if committed { Some(answer?) } else { None })
    }

    /// Terminates every backend except those of the owner.
    async fn terminate_backends(owner: &mut PgConnection) -> Result<()> {
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename in ('rota_app', 'rota_system')";
        let _: i64 = sqlx::query_scalar(ended).fetch_one(owner).await?;
        Ok(())
    }
}

fn noop() -> Value {
    json!({ "kind": "noop" })
}

/// Success or a retryable refusal; any other response is an error while the ledger is unavailable.
fn is_accepted(answer: &Answer) -> Result<bool> {
    ensure!(matches!(answer.status, 200 | 202 | 503), "{} {}", answer.status, answer.text);
    ensure!(answer.status != 503 || !answer.header("retry-after").is_empty(), "503 without Retry-After");
    Ok(answer.status != 503)
}

/// Repeats the same request under the same key until it is accepted, as a client would.
async fn accepted(api: &ApiClient, key: &str, patience: Duration) -> Answer {
    eventually(patience, &format!("{key} is accepted"), async || {
        let answer = api.post_once(JOBS, key, &noop()).await.ok()?;
        is_accepted(&answer).expect("success or a retryable refusal").then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_the_response_is_503_until_one_is_free() -> Result<()> {
    let scene = Scene::new(&[("max_connections", "30")]).await?;
    let api = scene.app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (scene.app.system.scheduler(), scene.app.system.worker(2, LEASE));
    accepted(&api, "before", PATIENCE).await;
    let mut owner = PgConnection::connect(&scene.owner).await?;
    let mut greedy = Vec::new();
    // Terminates the API's backends until the test holds every connection.
    for _ in 0..30 {
        Scene::terminate_backends(&mut owner).await?;
        while let Ok(connection) = PgConnection::connect(&scene.owner).await {
            greedy.push(connection);
        }
    }
    let mut refused = 0;
    for number in 0..3 {
        let answer = api.post_once(JOBS, &format!("during {number}"), &noop()).await?;
        refused += usize::from(!is_accepted(&answer)?);
    }
    assert!(refused > 0, "no request was refused");
    drop(greedy);
    drop(owner);
    let freed = Instant::now();
    for number in 0..3 {
        accepted(&api, &format!("during {number}"), SOON).await;
    }
    assert!(freed.elapsed() < SOON, "{:?}", freed.elapsed());
    eventually(PATIENCE, "every job has run once", async || {
        (scene.count("state = 'completed' and attempt = 1").await.ok()? == 4).then_some(())
    })
    .await;
    assert_eq!(scene.count("true").await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_lose_nothing_and_a_repeat_succeeds() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    let (_scheduler, worker) = (scene.app.system.scheduler(), scene.app.system.worker(4, LEASE));
    let mut owner = PgConnection::connect(&scene.owner).await?;
    let api = &api;
    let clients = join_all((0..4).map(|client| async move {
        for number in 0..50 {
            accepted(api, &format!("{client}-{number}"), PATIENCE).await;
        }
    }));
    let terminations = async {
        for round in 1..=5 {
            let going_on = async || (scene.count("true").await.ok()? >= round * 30).then_some(());
            eventually(PATIENCE, "jobs run again", going_on).await;
            Scene::terminate_backends(&mut owner).await?;
        }
        anyhow::Ok(())
    };
    tokio::join!(clients, terminations).1?;
    assert_eq!(scene.count("true").await?, 200, "one job per key");
    eventually(PATIENCE, "every job has run", async || {
        (scene.count("state = 'completed'").await.ok()? == 200).then_some(())
    })
    .await;
    worker.stop().await
}

/// A crash without traffic leaves dead connections in every pool, and a client's request is not
/// repeated for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_after_a_crash_is_served() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    for (path, body, created) in [(JOBS, noop(), 202), ("/api/v1/campaigns", draft(), 201)] {
        // The permissions of a key are read from the ledger at its first request.
        let mut early = Vec::new();
        for number in 0..CLIENTS {
            early.push(scene.app.tenant(&format!("early-{created}-{number}")).await?.api);
        }
        let late = scene.app.tenant(&format!("late-{created}")).await?.api;
        for answer in join_all(early.iter().map(|api| api.post_once(path, "before", &body))).await {
            answer?.ok(created);
        }
        scene.postgres.restart_immediate().await?;
        late.post_once(path, "after", &body).await?.ok(created);
    }
    Ok(())
}

/// The commit happened, but its reply is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_finds_the_commit_whose_reply_was_lost() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    for number in 0..TRIES {
        // With prepared statements only one reply can be lost: the one to the commit.
        for warm_up in 0..WARM_UP {
            accepted(&api, &format!("before {number} {warm_up}"), PATIENCE).await;
        }
        let key = format!("in doubt {number}");
        if let Some(answer) = scene.lose_reply(&api, &key).await? {
            let before = scene.count("true").await?;
            let repeated = accepted(&api, &key, PATIENCE).await;
            if is_accepted(&answer)? {
                assert_eq!(answer.id(), repeated.id());
            }
            assert_eq!(scene.count("true").await?, before, "the repeat created no second job");
            assert_eq!(scene.count(&format!("id = '{}'", repeated.id())).await?, 1);
            return Ok(());
        }
    }
    bail!("no reply to a commit was lost in {TRIES} tries")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_an_immediate_restart_give_503_and_recover() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    let (_scheduler, worker) = (scene.app.system.scheduler(), scene.app.system.worker(2, LEASE));
    accepted(&api, "before", PATIENCE).await;
    scene.postgres.stop_immediate().await?;
    let answer = api.post_once(JOBS, "during", &noop()).await?;
    assert!(!is_accepted(&answer)?, "PostgreSQL was down: {}", answer.text);
    scene.postgres.start().await?;
    let back = Instant::now();
    accepted(&api, "during", SOON).await;
    assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
    eventually(PATIENCE, "both jobs have run", async || {
        (scene.count("state = 'completed'").await.ok()? == 2).then_some(())
    })
    .await;
    worker.stop().await
}
