//! The `Date` of a mail that is attempted again long after its first attempt: receivers refuse dates
//! of a week ago.

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use shared::clock::Clock;
use sqlx::{Connection as _, PgConnection};
use tests::{
    installation::{Installation, leads_csv},
    smtp_sink::{Fault, Rule, Stage},
};

use super::{PATIENCE, recipient_is};

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_attempted_again_after_a_week_has_a_new_date() -> Result<()> {
    let rota = Installation::start().await?;
    let mut owner = PgConnection::connect(&rota.postgres.urls().owner).await?;
    for (name, fault) in [("later", Fault::reply(451, "4.3.0 try later")), ("lost", Fault::LoseReply)] {
        rota.sink.inject(Rule::at(Stage::EndOfData, fault));
        let (csv, wanted) = leads_csv(name, 0..1);
        let path = rota.tenant.campaign_at_once(name, &csv).await?;
        let id = path.rsplit('/').next().context("an id")?.to_owned();
        recipient_is(&mut owner, &id, "failing_since is not null").await;
        rota.tenant.post(&format!("{path}/pause"), &json!({})).await?.expect(200)?;
        recipient_is(&mut owner, &id, "state = 'pending'").await;
        let aged = "update recipients set failing_since = failing_since - interval '8 days',
                    handed_over_at = handed_over_at - interval '8 days' where campaign_id = $1::uuid";
        sqlx::query(aged).bind(&id).execute(&mut owner).await?;

        rota.sink.clear_faults();
        rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
        assert_eq!(rota.tenant.completed(&path, PATIENCE).await["sent"], 1, "{name}");
        let mails = rota.sink.by_recipient(&wanted[0]);
        let last = mails.last().context("a mail")?;
        let date = DateTime::parse_from_rfc2822(&last.header("Date").context("a date")?)?;
        assert!(date > Clock::system().now() - TimeDelta::days(1), "{name}: {date}");
        assert!(mails.iter().all(|mail| mail.message_id == last.message_id), "{name}: another Message-ID");
    }
    Ok(())
}
