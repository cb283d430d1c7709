//! A relay's reply to a mail and the resulting state of the recipient: sent, permanently refused,
//! temporarily refused, or a problem on our side.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{
    installation::{Installation, leads_csv},
    smtp_sink::{Fault, Rule, Stage},
};

use super::{PATIENCE, recipient_is};

/// Unusual forms of a 250 reply.
const ODD: [&[u8]; 6] = [
    b"250 2.0.0 \xfcbernommen\r\n",
    b"250\r\n",
    b"250\tok\r\n",
    b"250-a\r\n451 c\r\n",
    b"451-a\r\n250 c\r\n",
    b"250 ok\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_mail_is_sent_once_whatever_the_form_of_the_reply() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (csv, wanted) = leads_csv("odd", 0..ODD.len() + 1);
    for (octets, address) in ODD.into_iter().zip(&wanted) {
        rota.sink.inject(Rule::at(Stage::EndOfData, Fault::KeepAndSay(octets)).to(address));
    }
    let long = format!("250 {}\r\n", "x".repeat(3_000)).into_bytes().leak();
    rota.sink.inject(Rule::at(Stage::EndOfData, Fault::KeepAndSay(long)).to(&wanted[ODD.len()]));
    let path = rota.tenant.campaign_at_once("Odd", &csv).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    assert_eq!(progress["sent"], json!(wanted.len()), "{progress}");
    rota.mails(&wanted).ensure_once(0)?;
    assert_eq!(rota.ended_by_themselves()?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_replies_about_the_mailbox_suppress_it_and_that_is_reversible() -> Result<()> {
    let rota = Installation::start().await?;
    let (dead, full, later, policy) =
        ("dead@example.com", "full@example.com", "later@example.com", "policy@example.com");
    for rule in [
        Rule::at(Stage::Rcpt, Fault::reply(550, "5.1.1 <dead@example.com>: no such user, dead")).to(dead).times(1),
        Rule::at(Stage::Rcpt, Fault::reply(552, "5.2.2 full@example.com is over quota")).to(full).times(1),
        Rule::at(Stage::Rcpt, Fault::reply(450, "4.2.0 later@example.com is greylisted")).to(later).times(2),
        Rule::at(Stage::Rcpt, Fault::reply(554, "5.7.1 policy@example.com: Relay access denied")).to(policy).times(2),
    ] {
        rota.sink.inject(rule);
    }
    let csv = format!("email,first_name\n{dead},D\n{full},F\n{later},L\n{policy},P\n");
    let path = rota.tenant.campaign_at_once("Mixed", &csv).await?;
    let progress = rota.tenant.completed(&path, PATIENCE).await;
    for (state, recipients) in [("sent", 2), ("rejected", 1), ("failed", 1), ("suppressed", 0)] {
        assert_eq!(progress[state], recipients, "{progress}");
    }

    let list = rota.tenant.get("suppressions").await?.expect(200)?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let entry = &list["items"][0];
    assert_eq!([&entry["address"], &entry["reason"], &entry["source"]], [dead, "rejected", "relay"]);
    assert_eq!([&entry["stage"], &entry["code"]], ["RCPT TO", "550 5.1.1"]);
    let detail = entry["detail"].as_str().context("a detail")?;
    assert!(detail.contains("<recipient>: no such user, <recipient>"), "{detail}");
    no_address_leaves(&rota, &[dead, full, later, policy]).await?;

    // Once removed from the list, the address gets the mail of the next campaign.
    let status = rota.tenant.delete(&format!("suppressions/{dead}")).await?.status;
    assert_eq!(status, 204);
    let path = rota.tenant.campaign_at_once("Next", &csv).await?;
    assert_eq!(rota.tenant.completed(&path, PATIENCE).await["sent"], 4);
    Ok(())
}

/// The relay's replies contain addresses; logs and lists of errors must not.
async fn no_address_leaves(rota: &Installation, addresses: &[&str]) -> Result<()> {
    let errors = rota.tenant.get("jobs?kind=send_campaign_email&limit=200").await?.expect(200)?;
    let mut texts = vec![("errors", errors.to_string())];
    for worker in &rota.workers {
        texts.push(("log", worker.process.output()?));
    }
    assert!(
        texts.iter().any(|(_, text)| text.contains("mail: not sent at RCPT TO with 554 5.7.1")),
        "the class is logged"
    );
    for (what, text) in &texts {
        for address in addresses {
            assert!(!text.contains(address), "{address} is in the {what}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_equal_refusals_pause_the_campaign_and_suppress_no_address() -> Result<()> {
    let rota = Installation::start().await?;
    rota.sink.inject(Rule::at(Stage::Rcpt, Fault::reply(550, "5.7.26 DMARC")));
    let (csv, wanted) = leads_csv("lead", 0..40);
    let path = rota.tenant.campaign_at_once("Refused", &csv).await?;
    let is_paused = |campaign: &Value| campaign["state"] == "paused";
    let paused = rota.tenant.campaign_when(&path, PATIENCE, "the campaign is paused", is_paused).await;
    assert_eq!(paused["pause_reason"], "refused");
    assert_eq!(paused["pause_detail"], "not sent at RCPT TO with 550 5.7.26");
    assert_eq!(rota.tenant.get("suppressions").await?.expect(200)?["items"], json!([]));

    // Resumed without a fix, the campaign pauses again.
    rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
    let paused_again = rota.tenant.campaign_when(&path, PATIENCE, "the campaign is paused again", is_paused).await;
    assert_eq!(paused_again["pause_reason"], "refused");

    rota.sink.clear_faults();
    let resumed = rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
    assert_eq!([&resumed["state"], &resumed["pause_reason"]], [&json!("sending"), &Value::Null]);
    assert_eq!(rota.tenant.completed(&path, PATIENCE).await["sent"], 40);
    rota.mails(&wanted).ensure_once(0)?;
    Ok(())
}

/// Relays vary the codes of one refusal.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_with_different_codes_pause_the_campaign_too() -> Result<()> {
    let rota = Installation::start().await?;
    let (csv, wanted) = leads_csv("lead", 0..40);
    for (at, address) in wanted.iter().enumerate() {
        let reply = if at % 2 == 0 { Fault::reply(550, "5.7.26 DMARC") } else { Fault::reply(554, "5.7.1 denied") };
        rota.sink.inject(Rule::at(Stage::Rcpt, reply).to(address));
    }
    let path = rota.tenant.campaign_at_once("Refused", &csv).await?;
    let is_paused = |campaign: &Value| campaign["state"] == "paused";
    let paused = rota.tenant.campaign_when(&path, PATIENCE, "the campaign is paused", is_paused).await;
    assert_eq!(paused["pause_reason"], "refused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_refused_for_their_size_pause_the_campaign_and_are_sent_after_a_fix() -> Result<()> {
    let rota = Installation::start().await?;
    for (name, stage, text, detail) in [
        ("sender", Stage::Mail, "message size exceeds fixed limit", "not sent at MAIL FROM with 552"),
        ("recipient", Stage::Rcpt, "5.3.4 message size exceeds limit", "not sent at RCPT TO with 552 5.3.4"),
        ("data", Stage::EndOfData, "message too large", "not sent at final reply with 552"),
    ] {
        rota.sink.inject(Rule::at(stage, Fault::reply(552, text)));
        let (csv, _) = leads_csv(name, 0..12);
        let path = rota.tenant.campaign_at_once(name, &csv).await?;
        let is_paused = |campaign: &Value| campaign["state"] == "paused";
        let paused = rota.tenant.campaign_when(&path, PATIENCE, "the campaign is paused", is_paused).await;
        assert_eq!([&paused["pause_reason"], &paused["pause_detail"]], ["refused", detail]);

        rota.sink.clear_faults();
        rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
        let progress = rota.tenant.completed(&path, PATIENCE).await;
        assert_eq!(progress["sent"], 12, "{name}: {progress}");
    }
    assert_eq!(rota.sink.duplicates(), []);
    assert_eq!(rota.tenant.get("suppressions").await?.expect(200)?["items"], json!([]));
    Ok(())
}

/// One lead whose mail was refused two days ago; returns the path of its campaign.
async fn refused_two_days_ago(rota: &Installation, owner: &mut PgConnection, is_paused: bool) -> Result<String> {
    let (csv, _) = leads_csv("old", 0..1);
    let path = rota.tenant.campaign_at_once("Refused", &csv).await?;
    let id = path.rsplit('/').next().context("an id")?.to_owned();
    recipient_is(owner, &id, "failing_since is not null").await;
    if is_paused {
        rota.tenant.post(&format!("{path}/pause"), &json!({})).await?.expect(200)?;
        recipient_is(owner, &id, "state = 'pending'").await;
    }
    let aged = "update recipients set failing_since = failing_since - interval '2 days' where campaign_id = $1::uuid";
    sqlx::query(aged).bind(&id).execute(owner).await?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_is_given_up_after_a_day_of_refusals_but_not_for_a_pause() -> Result<()> {
    let rota = Installation::start().await?;
    rota.sink.inject(Rule::at(Stage::Rcpt, Fault::reply(554, "5.7.1 denied")));
    let mut owner = PgConnection::connect(&rota.postgres.urls().owner).await?;
    let path = refused_two_days_ago(&rota, &mut owner, false).await?;
    assert_eq!(rota.tenant.completed(&path, PATIENCE).await["failed"], 1);

    let path = refused_two_days_ago(&rota, &mut owner, true).await?;
    rota.tenant.post(&format!("{path}/resume"), &json!({})).await?.expect(202)?;
    let id = path.rsplit('/').next().context("an id")?.to_owned();
    recipient_is(&mut owner, &id, "failing_since > now() - interval '1 day'").await;
    rota.sink.clear_faults();
    assert_eq!(rota.tenant.completed(&path, PATIENCE).await["sent"], 1);
    Ok(())
}
