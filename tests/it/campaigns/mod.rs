//! Campaigns from the HTTP request to the delivered mail, through the real processes.
//!
//! The tests count messages at the mail server and compare Rota's reports with that count.

use std::time::Duration;

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection};
use tests::{eventually::eventually, installation::Installation};

mod control;
mod dates;
mod drafting;
mod mail_faults;
mod process_faults;
mod relay_outage;
mod relay_replies;
mod sending;
mod store_faults;

/// For debug builds on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until no job waits or runs, and checks that the job of every mail completed, with none
/// discarded or cancelled.
async fn all_jobs_completed(rota: &Installation, mails: usize) -> Result<()> {
    eventually(PATIENCE, "no job is left", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    let jobs = rota.jobs().await?;
    assert!(jobs.keys().all(|(_, state)| state == "completed"), "{jobs:?}");
    let of_mails = jobs.get(&("send_campaign_email".to_owned(), "completed".to_owned()));
    assert_eq!(of_mails.copied(), i64::try_from(mails).ok(), "{jobs:?}");
    Ok(())
}

/// Waits until this holds of the campaign's only recipient.
async fn recipient_is(owner: &mut PgConnection, campaign: &str, what: &'static str) {
    eventually(PATIENCE, what, async || {
        let holds = format!("select {what} from recipients where campaign_id = $1::uuid");
        let holds = sqlx::query_scalar::<_, bool>(AssertSqlSafe(holds)).bind(campaign);
        holds.fetch_one(&mut *owner).await.ok()?.then_some(())
    })
    .await;
}
