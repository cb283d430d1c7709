//! A campaign never stays active forever: however the job that sends it ends, the scheduler settles
//! the campaign.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{ApiClient, TestApp, TestTenant},
};
use uuid::Uuid;

use crate::api::{LEASE, campaign};

const JOBS: &str = "/api/v1/jobs";
/// For the scheduler's election and check, and a worker's start, on a machine busy with other
/// tests.
const PATIENCE: Duration = Duration::from_mins(3);

struct Scene {
    app: TestApp,
    tenant: TestTenant,
    campaign: Uuid,
    job: Uuid,
}

impl Scene {
    /// A campaign in state sending or scheduled whose job no worker runs.
    async fn new(body: &Value) -> Result<Self> {
        let app = TestApp::start().await?;
        let tenant = app.tenant("acme").await?;
        let campaign = campaign(&tenant.api).await?;
        tenant.api.post(&format!("/api/v1/campaigns/{campaign}/send"), body).await?.ok(202);
        let job = sending_job(&tenant.api).await?;
        Ok(Self { app, tenant, campaign, job })
    }

    async fn campaign(&self) -> Result<Value> {
        Ok(self.tenant.api.get(&format!("/api/v1/campaigns/{}", self.campaign)).await?.ok(200).clone())
    }

    async fn reaches(&self, state: &str) -> Value {
        let path = format!("/api/v1/campaigns/{}", self.campaign);
        eventually(PATIENCE, &format!("the campaign is {state}"), async || {
            let answer = self.tenant.api.get(&path).await.ok()?;
            (answer.status == 200 && answer.body["state"] == state).then_some(answer.body)
        })
        .await
    }

    /// Runs a statement as the schema's owner, for changes that no process role may make.
    async fn sql(&self, statement: &str) -> Result<()> {
        let mut owner = PgConnection::connect(&self.app.system.urls.owner).await?;
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).bind(self.job).execute(&mut owner).await?;
        Ok(())
    }
}

/// The newest job that sends a campaign.
async fn sending_job(api: &ApiClient) -> Result<Uuid> {
    let listed = api.get(&format!("{JOBS}?kind=send_campaign&limit=1")).await?;
    let job = listed.ok(200)["items"][0]["id"].as_str().and_then(|id| id.parse().ok());
    Ok(job.expect("a job sends the campaign"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_whose_job_was_cancelled_is_paused_and_can_be_resumed() -> Result<()> {
    for body in [json!({}), json!({ "send_at": "2990-01-01T00:00:00Z" })] {
        let scene = Scene::new(&body).await?;
        let state = if body["send_at"].is_null() { "available" } else { "scheduled" };
        let filter = json!({ "filter": { "state": state, "kind": "send_campaign" } });
        assert_eq!(scene.tenant.api.post(&format!("{JOBS}/cancel"), &filter).await?.ok(200)["changed"], 1);
        let scheduler = scene.app.system.scheduler();
        let paused = scene.reaches("paused").await;
        assert_eq!(paused["pause_reason"], "job_ended");
        let reason = paused["pause_detail"].as_str().unwrap_or_default();
        assert!(reason.contains(&scene.job.to_string()) && reason.contains("cancelled"), "{reason}");
        let resumed = scene.tenant.api.act(&format!("/api/v1/campaigns/{}/resume", scene.campaign)).await?;
        let expected = if body["send_at"].is_null() { "sending" } else { "scheduled" };
        assert_eq!((&resumed.ok(202)["state"], &resumed.body["pause_reason"]), (&json!(expected), &Value::Null));
        if expected == "sending" {
            let worker = scene.app.system.worker(4, LEASE);
            assert_eq!(scene.reaches("completed").await["progress"]["sent"], 1);
            worker.stop().await?;
        }
        scheduler.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_whose_job_was_discarded_is_paused() -> Result<()> {
    let scene = Scene::new(&json!({})).await?;
    scene.sql("update jobs set state = 'discarded', finalized_at = now() where id = $1").await?;
    let scheduler = scene.app.system.scheduler();
    let reason = scene.reaches("paused").await["pause_detail"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("discarded")), "{reason}");
    // Redriving the job does not restart the campaign, which stays paused.
    let worker = scene.app.system.worker(4, LEASE);
    scene.tenant.api.act(&format!("{JOBS}/{}/retry", scene.job)).await?.ok(200);
    eventually(PATIENCE, "the job is cancelled", async || {
        let job = scene.tenant.api.get(&format!("{JOBS}/{}", scene.job)).await.ok()?;
        (job.body["state"] == "cancelled").then_some(())
    })
    .await;
    assert_eq!(scene.campaign().await?["state"], "paused");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_whose_job_is_missing_continues() -> Result<()> {
    let scene = Scene::new(&json!({})).await?;
    scene.sql("delete from jobs where id = $1").await?;
    let (scheduler, worker) = (scene.app.system.scheduler(), scene.app.system.worker(4, LEASE));
    let completed = scene.reaches("completed").await;
    assert_eq!((&completed["progress"]["sent"], &completed["pause_reason"]), (&json!(1), &Value::Null));
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

/// Retention may delete the job of a mail while its campaign is paused; the campaign then does not
/// wait for that recipient.
#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_whose_job_is_missing_does_not_hold_up_the_campaign() -> Result<()> {
    let scene = Scene::new(&json!({})).await?;
    scene.sql("with gone as (select $1::uuid) update recipients set state = 'queued', job_id = gen_random_uuid() from gone").await?;
    let (scheduler, worker) = (scene.app.system.scheduler(), scene.app.system.worker(4, LEASE));
    assert_eq!(scene.reaches("completed").await["progress"]["failed"], 1);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_with_a_live_job_is_unchanged() -> Result<()> {
    let scene = Scene::new(&json!({ "send_at": "2990-01-01T00:00:00Z" })).await?;
    // A release that does not store the job's id.
    scene.sql("update campaigns set send_job_id = null where $1::uuid is not null").await?;
    let other = campaign(&scene.tenant.api).await?;
    scene.tenant.api.post(&format!("/api/v1/campaigns/{other}/send"), &json!({})).await?.ok(202);
    let second = sending_job(&scene.tenant.api).await?;
    let scheduler = scene.app.system.scheduler();
    scene.tenant.api.act(&format!("{JOBS}/{second}/cancel")).await?.ok(200);
    eventually(PATIENCE, "the other campaign is paused", async || {
        let other = scene.tenant.api.get(&format!("/api/v1/campaigns/{other}")).await.ok()?;
        (other.body["state"] == "paused").then_some(())
    })
    .await;
    assert_eq!(scene.campaign().await?["state"], "scheduled");
    assert_eq!(scene.tenant.api.get(&format!("{JOBS}/{}", scene.job)).await?.ok(200)["state"], "scheduled");
    scheduler.stop().await;
    Ok(())
}
