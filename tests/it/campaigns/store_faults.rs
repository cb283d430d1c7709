//! Stores crash, lose their data or restart with outdated data while a campaign runs: every
//! recipient gets exactly one mail.

use anyhow::Result;
use tests::installation::{Installation, InstallationOptions, leads_csv};

use super::PATIENCE;

const LEADS: usize = 240;

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_survives_its_stores() -> Result<()> {
    let options = InstallationOptions { mails_per_second: Some(40), ..InstallationOptions::default() };
    let mut rota = Installation::start_with(options).await?;
    let (csv, wanted) = leads_csv("lead", 0..LEADS);
    let path = rota.tenant.campaign_at_once("Long", &csv).await?;

    rota.sink.wait_for(20, PATIENCE).await;
    let old_dump = rota.redis.save_dump().await?;
    rota.sink.wait_for(60, PATIENCE).await;
    rota.flush_redis().await?;
    rota.sink.wait_for(120, PATIENCE).await;
    rota.restart_redis_from(&old_dump).await?;
    rota.sink.wait_for(180, PATIENCE).await;
    assert!(rota.sink.count() < LEADS, "the campaign ended before the last fault");
    rota.crash_postgres().await?;

    rota.tenant.completed(&path, PATIENCE).await;
    rota.mails(&wanted).ensure_once(0)?;
    super::all_jobs_completed(&rota, LEADS).await?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}
