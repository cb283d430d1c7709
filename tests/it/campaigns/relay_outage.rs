//! The relay is down: no recipient fails because of it, and campaigns pause and resume on their own
//! once it is back.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::clock::Clock;
use tests::{
    installation::{Installation, InstallationOptions, leads_csv},
    smtp_sink::{Fault, Rule, Stage},
};

use super::PATIENCE;

const LEADS: usize = 30;

/// An installation in which the outage steps that usually take hours take a second.
async fn installation(patience_ms: &str) -> Result<Installation> {
    let env = vec![
        ("ROTA_RELAY_PATIENCE_MS", patience_ms.to_owned()),
        ("ROTA_RELAY_PROBE_MS", "500".to_owned()),
        ("ROTA_MAIL_TIMEOUT_MS", "5000".to_owned()),
    ];
    Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await
}

async fn paused(rota: &Installation, path: &str) -> Value {
    let is_paused = |campaign: &Value| campaign["state"] == "paused";
    rota.tenant.campaign_when(path, PATIENCE, "the campaign is paused", is_paused).await
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_pause_during_a_relay_outage_and_resume_automatically() -> Result<()> {
    let mut rota = installation("1000").await?;
    for (fault, reason) in [
        (Fault::reply(421, "4.3.2 down for lead0@example.com"), "not sent at greeting with 421 4.3.2"),
        (Fault::Cut, "not sent at greeting"),
    ] {
        let before = rota.sink.count();
        rota.sink.inject(Rule::at(Stage::Greeting, fault));
        let (csv, wanted) = leads_csv("lead", 0..LEADS);
        let path = rota.tenant.campaign_at_once("Outage", &csv).await?;
        let campaign = paused(&rota, &path).await;
        assert_eq!(campaign["pause_reason"], "relay_unavailable");
        let detail = campaign["pause_detail"].as_str().context("a detail")?;
        assert!(detail == reason || detail == "not sent at connect", "{detail}");
        assert_eq!([&campaign["progress"]["failed"], &campaign["progress"]["rejected"]], [0, 0]);

        // `Date` has whole seconds; the wait gives the restart a different one from the start.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let back = Clock::system().now();
        rota.sink.clear_faults();
        let progress = rota.tenant.completed(&path, PATIENCE).await;
        assert_eq!([&progress["sent"], &progress["failed"]], [LEADS, 0], "{progress}");
        assert_eq!(rota.sink.count(), before + LEADS);
        for mail in rota.sink.messages().iter().skip(before) {
            let date = DateTime::parse_from_rfc2822(&mail.header("Date").context("a date")?)?.with_timezone(&Utc);
            assert!(date.timestamp() >= back.timestamp(), "{date} is before the relay was back at {back}");
        }
        assert!(before > 0 || rota.mails(&wanted).ensure_once(0).is_ok());
        // The next round needs new connections, which the workers open after a restart.
        rota.kill_worker(0).await?;
        rota.kill_worker(1).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_pauses_nothing_and_a_manual_pause_outlasts_an_outage() -> Result<()> {
    let mut rota = installation("600000").await?;
    rota.sink.inject(Rule::at(Stage::Greeting, Fault::reply(554, "not now")).times(6));
    let (csv, wanted) = leads_csv("short", 0..LEADS);
    let path = rota.tenant.campaign_at_once("Short", &csv).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!(progress["sent"], LEADS, "{progress}");
    rota.mails(&wanted).ensure_once(0)?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());

    drop(rota);
    let rota = installation("500").await?;
    rota.sink.inject(Rule::at(Stage::Greeting, Fault::reply(554, "not now")));
    let path = rota.tenant.campaign_at_once("Held", &csv).await?;
    paused(&rota, &path).await;
    let held = rota.tenant.post(&format!("{path}/pause"), &json!({})).await?.expect(200)?;
    assert_eq!(held["pause_reason"], "requested");
    rota.sink.clear_faults();
    // A campaign started now completes, since the relay is back; the paused one stays paused.
    let (csv, _) = leads_csv("other", 0..3);
    let other = rota.tenant.campaign_at_once("Other", &csv).await?;
    rota.tenant.completed(&other, PATIENCE).await;
    assert_eq!(rota.tenant.get(&path).await?.expect(200)?["state"], "paused");
    assert_eq!(rota.sink.count(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_reply_is_lost_is_repeated_identically_and_not_endlessly() -> Result<()> {
    let rota = installation("60000").await?;
    let (once, always) = ("once@example.com", "always@example.com");
    rota.sink.inject(Rule::at(Stage::EndOfData, Fault::LoseReply).to(once).times(1));
    rota.sink.inject(Rule::at(Stage::EndOfData, Fault::LoseReply).to(always));
    let csv = format!("email,first_name\n{once},O\n{always},A\n");
    let path = rota.tenant.campaign_at_once("Lost", &csv).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!([&progress["sent"], &progress["failed"]], [1, 1], "{progress}");
    let mails = rota.sink.by_recipient(once);
    assert_eq!((mails.len(), mails[0].raw == mails[1].raw), (2, true));
    assert_eq!(rota.sink.by_recipient(always).len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_answers_no_mail_pauses_the_campaign_and_no_recipient_fails() -> Result<()> {
    let rota = installation("60000").await?;
    // The sink keeps the mails whose reply it loses, and once the faults are cleared those that
    // hang.
    for (name, leads, fault, most) in
        [("cut", LEADS, Fault::Cut, 1), ("lost", 3, Fault::LoseReply, 5), ("hang", 3, Fault::Hang, 5)]
    {
        rota.sink.inject(Rule::at(Stage::EndOfData, fault));
        // A domain each, since a domain whose mails hang gets one at a time.
        let wanted: Vec<String> = (0..leads).map(|number| format!("lead@{name}{number}.example.com")).collect();
        let path =
            rota.tenant.campaign_at_once(name, &format!("email,first_name\n{},L\n", wanted.join(",L\n"))).await?;
        unanswered(&rota, &path).await;
        // Resumed without a fix, the campaign pauses again.
        rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
        unanswered(&rota, &path).await;

        rota.sink.clear_faults();
        rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
        let progress = rota.tenant.completed(&path, PATIENCE).await;
        assert_eq!([&progress["sent"], &progress["failed"]], [leads, 0], "{name}: {progress}");
        for address in &wanted {
            let mails = rota.sink.by_recipient(address);
            assert!((1..=most).contains(&mails.len()), "{address}: {} mails", mails.len());
            assert!(mails.iter().all(|mail| mail.raw == mails[0].raw), "{address}: a repeat differs");
        }
    }
    Ok(())
}

/// Waits until the campaign is paused because the relay does not answer.
async fn unanswered(rota: &Installation, path: &str) {
    let campaign = paused(rota, path).await;
    assert_eq!([&campaign["pause_reason"], &campaign["pause_detail"]], ["refused", "unanswered at final reply"]);
    assert_eq!(campaign["progress"]["failed"], 0, "{campaign}");
}
