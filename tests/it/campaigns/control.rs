//! What a tenant can do with a started campaign: schedule it, pause it, resume it, cancel it.
//!
//! That no more mail will be sent is checked without waiting: once no job of the campaign is left,
//! none can be sent.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::clock::Clock;
use std::time::Duration;
use tests::{
    eventually::eventually,
    installation::{Installation, InstallationOptions, leads_csv},
};

use super::PATIENCE;

const LEADS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_can_be_scheduled_paused_resumed_and_cancelled() -> Result<()> {
    let options = InstallationOptions { mails_per_second: Some(60), ..InstallationOptions::default() };
    let mut rota = Installation::start_with(options).await?;
    waits_for_its_time(&rota).await?;
    pauses_goes_on_and_stops(&rota).await?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}

async fn waits_for_its_time(rota: &Installation) -> Result<()> {
    let (csv, addresses) = leads_csv("later", 0..5);
    let path = rota.tenant.campaign("Later", &csv).await?;
    let send_at = Clock::system().now() + Duration::from_secs(3);
    let answer = rota.tenant.post(&format!("{path}/send"), &json!({ "send_at": send_at })).await?.expect(202)?;
    assert_eq!(answer["state"], "scheduled");
    let again = rota.tenant.post(&format!("{path}/send"), &json!({})).await?;
    assert_eq!(again.status, 409, "{}", again.body);

    rota.tenant.completed(&path, PATIENCE).await;
    rota.mails(&addresses).ensure_once(0)?;
    let first: Option<DateTime<Utc>> = rota.sink.messages().iter().map(|mail| mail.received_at.into()).min();
    assert!(first.context("there are mails")? >= send_at, "{first:?} is before {send_at}");
    Ok(())
}

async fn pauses_goes_on_and_stops(rota: &Installation) -> Result<()> {
    let before = rota.sink.count();
    let (csv, _) = leads_csv("lead", 0..LEADS);
    let path = rota.tenant.campaign("Now", &csv).await?;
    rota.tenant.send_campaign(&path).await?;
    rota.sink.wait_for(before + 10, PATIENCE).await;

    rota.tenant.post(&format!("{path}/pause"), &json!({})).await?.expect(200)?;
    let paused = at_rest(rota, &path).await;
    let sent = rota.sink.count() - before;
    assert_eq!(paused["state"], "paused");
    assert_eq!(counts(&paused, ["sent", "pending", "queued"]), [sent, LEADS - sent, 0]);
    assert!(sent < LEADS, "all mails were sent before the pause");

    rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
    rota.sink.wait_for(before + sent + 10, PATIENCE).await;
    rota.tenant.post(&format!("{path}/cancel"), &json!({})).await?.expect(200)?;
    let cancelled = at_rest(rota, &path).await;
    let sent = rota.sink.count() - before;
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(counts(&cancelled, ["sent", "cancelled", "pending", "queued"]), [sent, LEADS - sent, 0, 0]);
    assert!(sent < LEADS, "all mails were sent before the cancellation");
    assert_eq!(rota.sink.duplicates(), []);
    for change in ["send", "pause", "resume", "cancel"] {
        let answer = rota.tenant.post(&format!("{path}/{change}"), &json!({})).await?;
        assert_eq!(answer.status, 409, "{change}: {}", answer.body);
    }
    Ok(())
}

/// The campaign once no job waits or runs any more.
async fn at_rest(rota: &Installation, path: &str) -> Value {
    eventually(PATIENCE, "no job is left", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    rota.tenant.campaign_when(path, PATIENCE, "the campaign is shown", |_| true).await
}

fn counts<const N: usize>(campaign: &Value, states: [&str; N]) -> [usize; N] {
    let count = |state| campaign["progress"][state].as_u64().and_then(|count| usize::try_from(count).ok());
    states.map(|state| count(state).unwrap_or(usize::MAX))
}
