//! Deliveries while Rota's own database is unavailable to the worker's jobs.

use std::time::Duration;

use anyhow::Result;
use shared::db::{PoolSettings, TenantDb};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    tcp_proxy::{Mode, TcpProxy},
    test_app::TestApp,
    webhook_sink::WebhookSink,
};

use super::{LEASE, PATIENCE, delivery_in, endpoint, send_test};

#[derive(sqlx::FromRow)]
struct Runs {
    attempt: i32,
    failures: i16,
}

/// The runs of the only delivery job.
async fn runs(owner: &mut PgConnection) -> Option<Runs> {
    let runs = sqlx::query_as("select attempt, failures from jobs where kind = 'deliver_webhook'");
    runs.fetch_optional(owner).await.ok()?
}

/// A delivery that runs on a worker whose jobs cannot reach the database.
macro_rules! cut_off {
    ($api:ident, $owner:ident, $proxy:ident, $sink:ident, $path:ident) => {
        let mut app = TestApp::start().await?;
        let $api = app.tenant("acme").await?.api;
        let mut $owner = PgConnection::connect(&app.system.urls.owner).await?;
        let (url, $proxy) = TcpProxy::before(&app.system.urls.app).await?;
        let settings = PoolSettings { acquire_timeout: Duration::from_millis(300), ..PoolSettings::default() };
        app.system.tenants = TenantDb::open(&url, "jobs", settings)?;
        let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
        let $sink = WebhookSink::answering(&[200]).await?;
        let endpoint = endpoint(&$api, &$sink).await?;
        $proxy.set(Mode::Refuse);
        let $path = send_test(&$api, &endpoint).await?;
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_uses_up_no_attempt_of_a_delivery() -> Result<()> {
    cut_off!(api, owner, proxy, sink, path);
    let during = eventually(PATIENCE, "the delivery ran three times", async || {
        runs(&mut owner).await.filter(|runs| runs.attempt >= 3)
    })
    .await;
    assert_eq!(during.failures, 0, "{} runs", during.attempt);
    proxy.set(Mode::Pass);
    delivery_in(&api, &path, "delivered", 1).await;
    assert_eq!(sink.received().len(), 1);
    Ok(())
}

/// The cause may be the handler itself: a statement that ends its connection.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_hundred_runs_an_outage_counts_as_a_failure() -> Result<()> {
    for (attempt, failures) in [(100, 0), (101, 1)] {
        cut_off!(api, owner, proxy, sink, path);
        eventually(PATIENCE, "the delivery waits for another run", async || {
            let waiting = "update jobs set attempt = $1 where kind = 'deliver_webhook' and state = 'scheduled'";
            let changed = sqlx::query(waiting).bind(attempt).execute(&mut owner).await.ok()?.rows_affected();
            (changed == 1).then_some(())
        })
        .await;
        let after =
            eventually(PATIENCE, "it ran", async || runs(&mut owner).await.filter(|runs| runs.attempt > attempt)).await;
        assert_eq!((after.attempt, after.failures), (attempt + 1, failures));
        drop((api, proxy, sink, path));
    }
    Ok(())
}
