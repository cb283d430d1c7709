//! PostgreSQL without free connections, without backends, or without a reply to a commit: the API
//! responds with 503 and `Retry-After` or with the truth, never with another 5xx, and a repeat
//! under the same key returns the same job.

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

use super::{LEASE, PATIENCE, draft};

const JOBS: &str = "/api/v1/jobs";
/// Requests until every connection has prepared the statements.
const WARM_UP: i64 = 50;
/// The pool pings its connections too, and the lost reply may belong to a ping.
const TRIES: usize = 10;
/// Concurrent clients, so that several connections are open.
const CLIENTS: usize = 4;
/// The bound on recovery: the documented five seconds, plus a margin for a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// Concurrent clients.
const MANY: usize = 250;
/// The bound on the time until a refusal, on a busy machine.
const REFUSED: Duration = shared::patience::PATIENCE.saturating_add(Duration::from_millis(2_500));

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
        let through =
            |url: &str| url.replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.address().port()));
        let urls = DatabaseUrls {
            owner: owner.clone(),
            app: through(&postgres.urls().app),
            system: through(&postgres.urls().system),
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
fn judge(answer: &Answer) -> Result<bool> {
    ensure!(matches!(answer.status, 200 | 202 | 503), "{} {}", answer.status, answer.text);
    ensure!(answer.status != 503 || !answer.header("retry-after").is_empty(), "503 without Retry-After");
    Ok(answer.status != 503)
}

/// Repeats the same request under the same key until it is accepted, as a client would.
async fn accepted(api: &ApiClient, key: &str, patience: Duration) -> Answer {
    eventually(patience, &format!("{key} is accepted"), async || {
        let answer = api.post_once(JOBS, key, &noop()).await.ok()?;
        judge(&answer).expect("a right answer").then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_to_be_had_the_answer_is_503_and_it_recovers() -> Result<()> {
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
        refused += usize::from(!judge(&answer)?);
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
async fn ended_backends_lose_nothing_and_fail_nothing_for_good() -> Result<()> {
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
async fn a_commit_whose_reply_is_lost_is_found_again() -> Result<()> {
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
            if judge(&answer)? {
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
async fn an_outage_and_an_immediate_restart_are_503_and_recover() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    let (_scheduler, worker) = (scene.app.system.scheduler(), scene.app.system.worker(2, LEASE));
    accepted(&api, "before", PATIENCE).await;
    scene.postgres.stop_immediate().await?;
    let answer = api.post_once(JOBS, "during", &noop()).await?;
    assert!(!judge(&answer)?, "PostgreSQL was down: {}", answer.text);
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

/// All of many concurrent requests, whichever part of the ledger they need.
#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_many_clients_are_refused_in_time() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    // One key is cached, the other has to be looked up.
    let (known, unknown) = (scene.app.tenant("known").await?.api, scene.app.tenant("unknown").await?.api);
    accepted(&known, "before", PATIENCE).await;
    scene.postgres.stop_immediate().await?;
    let (known, unknown) = (&known, &unknown);
    let answers = join_all((0..MANY).map(|number| async move {
        let api = if number % 2 == 0 { known } else { unknown };
        let began = Instant::now();
        let answer = match number % 3 {
            0 => api.get(JOBS).await?,
            1 => api.post_once("/api/v1/campaigns", &format!("campaign {number}"), &draft()).await?,
            _ => api.post_once(JOBS, &format!("job {number}"), &noop()).await?,
        };
        anyhow::Ok((answer, began.elapsed()))
    }))
    .await;
    for answer in answers {
        let (answer, waited) = answer?;
        assert!(!judge(&answer)?, "PostgreSQL was down: {}", answer.text);
        assert!(waited < REFUSED, "{waited:?}");
    }
    scene.postgres.start().await?;
    accepted(unknown, "after", SOON).await;
    accepted(known, "before", SOON).await;
    Ok(())
}

/// As an operator's migration may lock it.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_lock_of_the_table_clients_are_refused_in_time_and_keys_keep_their_meaning() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    let api = scene.app.tenant("acme").await?.api;
    accepted(&api, "before", PATIENCE).await;
    let mut owner = PgConnection::connect(&scene.owner).await?;
    let mut holder = owner.begin().await?;
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut *holder).await?;
    let api = &api;
    let ask = async |number: usize| {
        let began = Instant::now();
        let answer = if number.is_multiple_of(4) {
            api.get(JOBS).await?
        } else {
            api.post_once(JOBS, &format!("during {number}"), &noop()).await?
        };
        anyhow::Ok((answer, began.elapsed()))
    };
    let asked = join_all((0..40).map(ask)).await;
    for answer in asked {
        let (answer, waited) = answer?;
        assert!(!judge(&answer)?, "the table was locked: {}", answer.text);
        assert!(waited < REFUSED, "{waited:?}");
    }
    holder.rollback().await?;
    for number in (0..40).filter(|number| number % 4 != 0) {
        let key = format!("during {number}");
        let first = accepted(api, &key, SOON).await;
        let again = accepted(api, &key, SOON).await;
        assert_eq!(first.id(), again.id());
    }
    assert_eq!(scene.count("true").await?, 31, "one job per key");
    Ok(())
}
