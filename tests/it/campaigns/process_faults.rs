//! Processes are killed and restarted while a campaign runs: every recipient still gets exactly one
//! mail.

use anyhow::Result;
use tests::installation::{Installation, InstallationOptions, leads_csv};

use super::PATIENCE;

const LEADS: usize = 240;
const WORKER_KILLS: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_survives_its_processes() -> Result<()> {
    let options = InstallationOptions { mails_per_second: Some(40), ..InstallationOptions::default() };
    let mut rota = Installation::start_with(options).await?;
    let (csv, mut wanted) = leads_csv("lead", 0..LEADS);
    let path = rota.tenant.campaign_at_once("Long", &csv).await?;

    rota.sink.wait_for(40, PATIENCE).await;
    rota.kill_worker(0).await?;
    rota.sink.wait_for(100, PATIENCE).await;
    let (more, addresses) = leads_csv("unheard", 0..10);
    wanted.extend(addresses);
    let unheard = rota.kill_api_between_commit_and_push("Unheard of", &more).await?;
    rota.sink.wait_for(150, PATIENCE).await;
    assert!(rota.sink.count() < LEADS, "the campaign ended before the last fault");
    rota.terminate_in_turn().await?;

    for path in [path, unheard] {
        rota.tenant.completed(&path, PATIENCE).await;
    }
    // A mail may repeat if its worker died after the server's 250 and before recording it.
    rota.mails(&wanted).ensure_once(WORKER_KILLS)?;
    super::all_jobs_completed(&rota, wanted.len()).await?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}
